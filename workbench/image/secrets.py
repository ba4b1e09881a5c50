"""The secret scan: an image that holds a secret goes nowhere.

Every file of every layer is read, also what a higher layer removes: it is in the image all the same. Also searched are
the image's variables, labels, command and history. What is inside archives and compressed files is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from workbench.errors import StepFailed
from workbench.image.layers import PIECE, layer_files
from workbench.image.reading import members, path_of
from workbench.image.secret_rules import LARGEST_NAMED, LONGEST, for_name, in_bytes, in_settings
from workbench.steps import Emit, Outputs

_SHOWN = 20
_CURE = (
    "Take it out of what the image is made from, and replace the secret: who has the layer can read it. "
    "Removing the file in a later layer does not help. Give secrets to the container when it starts."
)


def scan(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:  # noqa: ARG001
    """Looks for secrets in an image.

    ``inputs``: ``config`` and the layers' blobs ``layer-…``. No ``params``. Values: ``files`` and ``bytes`` that were
    searched. Raises StepFailed with the path and kind of each secret, never the secret itself.
    """
    found = [f"the image's config: {kind}" for kind in in_config(json.loads(inputs["config"].read_bytes()))]
    blobs = layer_files(inputs)
    files = size = 0
    for done, blob in enumerate(blobs):
        emit.progress(done, len(blobs), "looking for secrets")
        for path, kinds, length in searched(blob):
            files, size = files + 1, size + length
            found += [f"{path} (layer {done + 1}): {kind}" for kind in kinds]
    emit.progress(len(blobs), len(blobs))
    if found:
        raise StepFailed(f"The image holds what looks like secrets: {_listed(found)}.", _CURE)
    return Outputs(values={"files": files, "bytes": size})


def _listed(found: list[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def searched(blob: Path) -> Iterator[tuple[str, list[str], int]]:
    """Every file of a layer: its path, the kinds of secrets in it, its size in bytes."""
    for member, content in members(blob):
        if content is not None:
            path = path_of(member)
            yield path, _in_file(path, content), member.size


def _in_file(path: str, content: IO[bytes]) -> list[str]:
    kinds: dict[str, None] = {}
    before = b""
    look: Callable[[bytes], list[str]] | None = for_name(path)
    while piece := content.read(PIECE):
        if look is not None and not before:
            kinds |= dict.fromkeys(look(piece[:LARGEST_NAMED]))
        # What a piece ends in the middle of is whole in the next one.
        piece = before + piece
        kinds |= dict.fromkeys(in_bytes(piece))
        before = piece[-LONGEST:]
    return list(kinds)


def in_config(config: Mapping[str, Any]) -> list[str]:
    """The kinds of secrets in an image's config: variables, labels, commands, history."""
    texts = list(_texts(config))
    settings = b"\n".join(text.encode(errors="replace") for text in texts)
    return list(dict.fromkeys([*in_bytes(settings), *in_settings(settings)]))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            # A label's name belongs to its value: {"api_token": "..."} says what the value is.
            yield from ([f"{name}={each}"] if isinstance(each, str) else _texts(each))
