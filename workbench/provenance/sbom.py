"""The parts list of an image (SBOM) in CycloneDX 1.6: Debian packages, Python packages, the server, the model.

It is a function of the image: no time, and a serial number that follows from the content. Where the layers are at hand
the packages are those found in them, and the lock's pins add the digests of what they were unpacked from; a pin that
is not in the layers, or is there in another version, is an error and no line in a list.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import StepFailed
from workbench.image.base import read_pins as read_base_pins
from workbench.image.downloads import sha256_of
from workbench.image.layers import canonical, layer_files
from workbench.image.wheels import read_pins as read_wheels_pins
from workbench.provenance.contents import Contents, Package, read_layers
from workbench.provenance.names import DEBIAN_RELEASES, base_sha256, normalised, purl, wheel_purl
from workbench.steps import Emit, Outputs

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

IMAGE, MODEL, SERVER = "image", "model", "server"

_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:workbench:sbom:1")
_MISSING = "The list would be untrue. Run with --fresh."


@dataclass(frozen=True)
class Part:
    """A package in the image: its address (purl), and the sha256 of the file it was unpacked from where it is known."""

    package: Package
    purl: str
    sha256: str = ""


@dataclass(frozen=True)
class Parts:
    """All packages of an image. ``whole`` is False where the base has no list of its packages that can be read."""

    parts: tuple[Part, ...]
    distribution: tuple[str, str]
    whole: bool = True
    base: Mapping[str, Any] = field(default_factory=dict)


def make(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Writes ``sbom``. ``inputs``: ``base_pins``, ``wheels_pins``, ``model``, ``signature``, ``config``, and the
    layers ``layer-…``, without which the pins are taken at their word.

    ``params``: ``name`` (of the image). Values: ``packages`` (how many), ``whole`` (False where the base does not say
    what is in it). Raises StepFailed where layers and pins contradict each other.
    """
    parts = parts_of(inputs)
    if not parts.whole:
        emit.note("The base has no list of Debian packages: the SBOM says that it is incomplete.")
    document = _document(inputs, str(params["name"]), parts)
    path = emit.scratch / "sbom"
    path.write_bytes(document)
    return Outputs({"sbom": path}, {"packages": len(parts.parts), "whole": parts.whole})


# --- what is inside


def parts_of(inputs: Mapping[str, Path]) -> Parts:
    """The packages by pins and layers; ``inputs`` as in :func:`make`."""
    base = json.loads(inputs["base_pins"].read_bytes())
    pinned = {} if "image" in base else {p["name"]: p for p in read_base_pins(inputs["base_pins"])["packages"]}
    wheels = {normalised(w["name"]): w for w in read_wheels_pins(inputs["wheels_pins"])["wheels"]}
    layers = layer_files(inputs)
    contents = read_layers(layers) if layers else _as_pinned(base, pinned, wheels)
    debian = contents.debian or ()
    _refuse_absent({p["name"]: p["version"] for p in pinned.values()}, debian, "Debian package")
    _refuse_absent({name: w["version"] for name, w in wheels.items()}, contents.python, "wheel")
    release = contents.release
    distribution = release.get("ID", "debian"), release.get("VERSION_ID", DEBIAN_RELEASES.get(base.get("debian"), ""))
    parts = (
        *(_debian_part(package, distribution, pinned.get(package.name, {})) for package in debian),
        *(_python_part(package, wheels.get(normalised(package.name), {})) for package in contents.python),
    )
    # One that lies in the image twice, as pip's own copies do, is one line.
    once = {part.purl: part for part in parts}
    return Parts(
        tuple(once[purl] for purl in sorted(once)),
        distribution,
        contents.debian is not None,
        base if "image" in base else {},
    )


def _as_pinned(
    base: Mapping[str, Any], pinned: Mapping[str, Mapping[str, Any]], wheels: Mapping[str, Mapping[str, Any]]
) -> Contents:
    debian = tuple(Package(p["name"], p["version"], base["arch"]) for p in pinned.values())
    return Contents(debian or None, tuple(Package(w["name"], w["version"]) for w in wheels.values()), {})


def _refuse_absent(pinned: Mapping[str, str], found: Iterable[Package], kind: str) -> None:
    there: dict[str, set[str]] = {}
    for package in found:
        there.setdefault(normalised(package.name), set()).add(package.version)
    for name, version in pinned.items():
        versions = there.get(normalised(name), set())
        if version not in versions:
            has = f"has {name} {', '.join(sorted(versions))}" if versions else f"has no {name}"
            raise StepFailed(f"The lock pins the {kind} {name} {version}, and the image {has}.", _MISSING)


def _debian_part(package: Package, distribution: tuple[str, str], pin: Mapping[str, Any]) -> Part:
    qualifiers = {"arch": package.arch, "distro": "-".join(filter(None, distribution)), "upstream": package.source}
    return Part(
        package,
        purl("deb", distribution[0], package.name, package.version, qualifiers),
        _pinned_sha256(package, pin),
    )


def _python_part(package: Package, pin: Mapping[str, Any]) -> Part:
    named = Package(normalised(package.name), package.version, licence=package.licence)
    return Part(named, wheel_purl(package.name, package.version), _pinned_sha256(package, pin))


def _pinned_sha256(package: Package, pin: Mapping[str, Any]) -> str:
    return str(pin["sha256"]) if pin.get("version") == package.version else ""


# --- the document


def _document(inputs: Mapping[str, Path], name: str, parts: Parts) -> bytes:
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    config = json.loads(inputs["config"].read_bytes())
    labels = config["config"].get("Labels") or {}
    version = str(labels.get("workbench.version", ""))
    bom = Bom()
    image = _component("container", name, f"sha256:{sha256_of(inputs['config'])}", IMAGE)
    bom.metadata.component = image
    bom.metadata.tools.components.add(_component("application", "workbench", version, "workbench"))
    for component in _components(inputs, name, version, parts):
        bom.components.add(component)
    bom.register_dependency(image, bom.components)
    data = json.loads(JsonV1Dot6(bom).output_as_string())
    signature = json.loads(inputs["signature"].read_bytes())
    return _finished(data, signature, parts.whole)


def _components(inputs: Mapping[str, Path], name: str, version: str, parts: Parts) -> Iterable[Component]:
    for part in parts.parts:
        yield _package_component(part)
    system, release = parts.distribution
    yield _component("operating-system", system, release, "system")
    if parts.base:
        yield _component("container", str(parts.base["image"]), "", "base", base_sha256(parts.base))
    yield _component("application", "workbench.server", version, SERVER)
    yield _component("machine-learning-model", name, "", MODEL, sha256_of(inputs["model"]))


def _package_component(part: Part) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from packageurl import PackageURL

    component = _component("library", part.package.name, part.package.version, part.purl, part.sha256)
    component.purl = PackageURL.from_string(part.purl)
    if part.package.licence:
        component.licenses.add(LicenseFactory().make_from_string(part.package.licence))
    return component


def _component(kind: str, name: str, version: str, ref: str, sha256: str = "") -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []
    return Component(name=name, type=ComponentType(kind), version=version or None, bom_ref=ref, hashes=hashes)


def _finished(data: dict[str, Any], signature: Mapping[str, Any], whole: bool) -> bytes:
    """The document without time and chance, and with what the library cannot say: the model's card, completeness."""
    del data["metadata"]["timestamp"], data["serialNumber"]
    for component in data["components"]:
        if component["bom-ref"] == MODEL:
            sides = {side: [{"format": _format(entry)} for entry in signature[side]] for side in ("inputs", "outputs")}
            component["modelCard"] = {"modelParameters": {side: each for side, each in sides.items() if each}}
    data["components"].sort(key=lambda component: str(component["bom-ref"]))
    aggregate = "complete" if whole else "incomplete"
    data["compositions"] = [{"aggregate": aggregate, "assemblies": [IMAGE]}]
    serial = uuid.uuid5(_SERIALS, canonical(data).decode())
    return canonical({**data, "serialNumber": f"urn:uuid:{serial}"})


def _format(entry: Mapping[str, Any]) -> str:
    return f"{entry['name']}: {entry['dtype']}[{', '.join(str(axis) for axis in entry['shape'])}]"
