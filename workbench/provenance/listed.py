"""What a parts list says, whoever wrote it, and whether the lock says the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.lock import Artifacts
from workbench.provenance.names import normalised
from workbench.provenance.sbom import MODEL

_SHOWN = 3


@dataclass(frozen=True)
class Listed:
    """``packages`` by kind (``deb``, ``pypi``), name and version, each with its sha256 or nothing; ``image`` is the
    digest of the config, ``model`` that of the model."""

    image: str
    model: str
    packages: Mapping[tuple[str, str, str], str] = field(default_factory=dict)


def listed(document: Mapping[str, Any]) -> Listed:
    """What ``document``, a CycloneDX parts list, says; what has not the form says nothing."""
    metadata = document.get("metadata")
    component = metadata.get("component") if isinstance(metadata, dict) else None
    image = str(component.get("version", "")) if isinstance(component, dict) else ""
    model, packages = "", {}
    components = document.get("components")
    for each in components if isinstance(components, list) else ():
        if not isinstance(each, dict):
            continue
        if each.get("bom-ref") == MODEL:
            model = f"sha256:{_sha256(each)}"
        elif kind := re.match(r"pkg:(deb|pypi)/", str(each.get("purl", ""))):
            packages[kind[1], normalised(str(each.get("name"))), str(each.get("version"))] = _sha256(each)
    return Listed(image, model, packages)


def _sha256(component: Mapping[str, Any]) -> str:
    hashes = component.get("hashes")
    for one in hashes if isinstance(hashes, list) else ():
        if isinstance(one, dict) and one.get("alg") == "SHA-256":
            return str(one.get("content"))
    return ""


def pinned(artifacts: Artifacts) -> Iterator[tuple[tuple[str, str, str], str]]:
    """The packages that a lock pins, as in :class:`Listed`."""
    for resolved, key, kind in ((artifacts.base, "packages", "deb"), (artifacts.wheels, "wheels", "pypi")):
        for one in resolved.pins.get(key, ()) if resolved else ():
            yield (kind, normalised(str(one.get("name"))), str(one.get("version"))), str(one.get("sha256"))


def against_lock(parts: Listed, artifacts: Artifacts) -> list[str]:
    """What differs between a list and a lock, in words: the first few. A base from a registry brings packages of its
    own, which only the list names."""
    ours, theirs = dict(pinned(artifacts)), parts.packages
    wrong = [f"{each[1]} {each[2]} is not listed" for each in ours if each not in theirs]
    wrong += [f"{each[1]} {each[2]} has another digest" for each in ours if theirs.get(each, ours[each]) != ours[each]]
    if artifacts.base is not None and "image" not in artifacts.base.pins:
        wrong += [f"{each[1]} {each[2]} is not in the lock" for each in theirs if each not in ours]
    return [*wrong[:_SHOWN], f"{len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else wrong
