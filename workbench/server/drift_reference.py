"""What a model's input statistics are compared with: the file ``<name>/<version>/reference.json``.

Histograms compare with others only over the same bounds, so they can be given: in the form in which the answer for
``/drift`` has them, so that the answer of a server that was asked the training data is such a file. ``counts`` may be
left out; where they are there, the answer has the population stability index of each feature against them (``psi``;
below 0.1 is commonly called stable, above 0.25 changed), and so of labels::

    {"inputs": {"x": {"features": [{"name": "age", "bounds": [18, 30, 50], "counts": [0, 120, 300, 80]}, ...]}},
     "outputs": {"probabilities": {"features": [...]}, "label": {"labels": {"yes": 80, "no": 420}}}}

There is one more count than bounds: values up to the first bound, up to the second, ..., beyond the last.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec

from workbench.server.errors import ServerError

REFERENCE = "reference.json"

CURE = "The documentation of workbench.server.drift_reference has the form; without the file there is no comparison."


class FeatureReference(msgspec.Struct):
    """What a feature is compared with. ``bounds`` of its histogram's bins; ``counts`` of the reference in them."""

    name: str = ""
    bounds: list[float] | None = None
    counts: list[float] | None = None


class TensorReference(msgspec.Struct):
    """Of a tensor: a reference for each feature, or of labels how often each was there."""

    features: list[FeatureReference] | None = None
    labels: dict[str, int] | None = None


class Reference(msgspec.Struct):
    """What ``reference.json`` has that is used; the rest of it is for others."""

    inputs: dict[str, TensorReference] = {}
    outputs: dict[str, TensorReference] = {}


def read_reference(path: Path) -> Reference:
    """The reference in a file, an empty one where there is none; ServerError where it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reference)
    except FileNotFoundError:
        return Reference()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerError(f"{path} is not usable: {error}.", CURE) from None


def check_features(features: list[FeatureReference], columns: int, name: str, path: Path) -> list[FeatureReference]:
    """``features``, which are of the tensor ``name`` with so many ``columns``; ServerError where they do not fit it."""
    if len(features) != columns:
        raise ServerError(f"{path}: {name!r} has {columns} features, and {len(features)} are told of.", CURE)
    for number, each in enumerate(features):
        of = f"{path}: feature {number} of {name!r}"
        if each.bounds is None:
            if each.counts is not None:
                raise ServerError(f"{of} has counts and no bounds.", CURE)
            continue
        if any(low >= high for low, high in pairwise(each.bounds)):
            raise ServerError(f"{of}: the bounds do not rise.", CURE)
        bins = len(each.bounds) + 1
        if each.counts is not None and (len(each.counts) != bins or min(each.counts) < 0):
            raise ServerError(f"{of} takes {bins} counts, one more than bounds, none below 0.", CURE)
    return features
