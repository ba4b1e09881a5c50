"""The lock: what came out of a recipe. Facts only, written by runs, read by runs and replays.

``artifacts`` holds digests and pins, ``figures`` what was measured, by host class. The order is stable and every list
has one entry a line, so two branches merge by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from workbench.document import Problem, read, refuse, render
from workbench.errors import UsageError
from workbench.schema import Recipe, Tolerance
from workbench.store import canonical, digest_of_bytes, write_atomically

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class LockPart(BaseModel):
    """A part of a lock: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Resolved(LockPart):
    """What a request came to: the ``pins`` hold as long as the request stays the same."""

    request: dict[str, Any]
    pins: dict[str, Any]

    def pin_bytes(self) -> bytes:
        """The pins as the file that the resolving step made."""
        return canonical(self.pins)


class ImageFacts(LockPart):
    """The image: its config's digest covers all content; the manifest's also the way it is packed.

    An engine's builds differ in times, so of those ``tree`` says what is in it: every path with mode, owner and bytes.
    ``pushed`` is the image by digest where it was pushed to.
    """

    builder: Literal["oci", "docker"] = "oci"
    tree: Digest | None = None
    config: Digest
    manifest: Digest
    compressor: str
    created: int
    layers: dict[str, Digest]
    sbom: Digest | None = None
    pushed: str | None = None


class Artifacts(LockPart):
    """Everything with bytes."""

    toolchain: dict[str, str]
    instruction_set: str
    seed: int
    sources: dict[str, Digest]
    made: dict[str, Digest]
    choice: str
    image: ImageFacts | None = None
    base: Resolved | None = None
    wheels: Resolved | None = None


class Figure(LockPart):
    """A measured value. ``interval`` is its 95% interval where one was measured; ``kind`` picks the tolerance."""

    value: float
    interval: tuple[float, float] | None = Field(None, strict=False)
    unit: str
    better: Literal["lower", "higher"]
    kind: Literal["metric", "latency", "memory", "size"]
    disturbed: bool = False

    def worse_than(self, locked: Figure, tolerance: Tolerance) -> bool:
        """Whether this is worse than ``locked`` outside both intervals *and* the tolerance.

        A figure taken while others used the machine says nothing about the model, so it is never worse, and worse than
        it is nothing.
        """
        if self.disturbed or locked.disturbed:
            return False
        sign = 1.0 if self.better == "lower" else -1.0
        allowed = getattr(tolerance, self.kind, 0.0) * abs(locked.value)
        if sign * (self.value - locked.value) <= allowed:
            return False
        if self.interval is None or locked.interval is None:
            return True
        mine = min(sign * edge for edge in self.interval)
        theirs = max(sign * edge for edge in locked.interval)
        return mine > theirs

    def left(self, locked: Figure, tolerance: Tolerance) -> bool:
        """Whether this differs from ``locked``, either way, by more than intervals and tolerance explain."""
        return self.worse_than(locked, tolerance) or locked.worse_than(self, tolerance)


class HostFigures(LockPart):
    """The figures of one class of machines; ``machine`` is for information."""

    machine: dict[str, Any]
    values: dict[str, Figure]


class Lock(LockPart):
    """A whole lock. ``recipe`` has the digest of each section of the recipe it was made from."""

    format: Literal[1] = Field(1, alias="workbench-lock")
    recipe: dict[str, Digest]
    artifacts: Artifacts
    figures: dict[str, HostFigures]

    def text(self) -> str:
        """The lock as YAML."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for figures in data["figures"].values():
            for figure in figures["values"].values():
                if not figure["disturbed"]:
                    del figure["disturbed"]
        return render(data, "Written by workbench from the recipe beside it; commit both together.")


def recipe_digests(recipe: Recipe) -> dict[str, str]:
    """The digest of each section of a recipe in its normal form."""
    return {name: digest_of_bytes(canonical(value)) for name, value in recipe.normal_form().items()}


def load(path: Path) -> Lock | None:
    """The lock at ``path``; None where there is none. Raises UsageError with every problem."""
    if not path.exists():
        return None
    document = read(path)
    try:
        return Lock.model_validate(document.data)
    except ValidationError as error:
        problems = [
            Problem(document.line(item["loc"]), ".".join(map(str, item["loc"])), item["msg"])
            for item in error.errors(include_url=False)
        ]
        refuse(path, problems, UsageError)
        raise


def save(lock: Lock, path: Path) -> None:
    """Writes the lock, atomically."""
    write_atomically(path, lock.text().encode())


@dataclass(frozen=True)
class Difference:
    """An artifact that is not what the lock says."""

    name: str
    locked: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: {_short(self.locked)} → {_short(self.found)}"


def _short(value: str) -> str:
    return value[:19] if value.startswith("sha256:") else value


def flat(artifacts: Artifacts) -> dict[str, str]:
    """Artifacts and what decides them by name, causes before effects: the first difference explains the rest."""
    found = {f"tool {name}": value for name, value in artifacts.toolchain.items()}
    found |= dict(artifacts.sources)
    found["seed"] = str(artifacts.seed)
    for name, resolved in (("base packages", artifacts.base), ("wheels", artifacts.wheels)):
        if resolved is not None:
            found[name] = digest_of_bytes(resolved.pin_bytes())
    found["instruction set"] = artifacts.instruction_set
    found |= dict(artifacts.made)
    found["choice"] = artifacts.choice
    return found | (_flat_image(artifacts.image) if artifacts.image else {})


def _flat_image(image: ImageFacts) -> dict[str, str]:
    """The layers an engine builds carry times, so of its images the tree comes first, and what follows is packing."""
    tree = {"image tree": image.tree} if image.tree else {}
    layers = {f"layer {name}": digest for name, digest in image.layers.items()}
    found = {**tree, **layers, "image config": image.config, "image manifest": image.manifest}
    return found | ({"sbom": image.sbom} if image.sbom else {}) | ({"pushed": image.pushed} if image.pushed else {})


def differences(locked: Artifacts, found: Artifacts) -> list[Difference]:
    """What differs, causes before effects."""
    before, after = flat(locked), flat(found)
    names = [*before, *(name for name in after if name not in before)]
    return [
        Difference(name, before.get(name, "absent"), after.get(name, "absent"))
        for name in names
        if before.get(name) != after.get(name)
    ]


def figure_changes(old: Mapping[str, HostFigures], new: HostFigures, host: str, tolerance: Tolerance) -> list[str]:
    """The figures of ``new`` that left their interval and tolerance, or were not there before, in words."""
    before = old[host].values if host in old else {}
    return [
        f"{name}: {before[name].value:.6g} → {figure.value:.6g} {figure.unit}".rstrip()
        if name in before
        else f"{name}: new"
        for name, figure in new.values.items()
        if name not in before or figure.left(before[name], tolerance)
    ]


def removed_figures(old: Mapping[str, HostFigures], new: HostFigures, host: str) -> Iterator[str]:
    """The locked figures of this host class that the recipe no longer yields."""
    for name in old[host].values if host in old else {}:
        if name not in new.values:
            yield f"{name}: gone"


def pins_of(data: bytes) -> dict[str, Any]:
    """The pins that a resolving step wrote."""
    pins: dict[str, Any] = json.loads(data)
    return pins
