"""The base of an image: Debian packages, locked by content and unpacked into one layer.

The list is explicit and no dependency is followed: what a model server needs of Debian is known, and following the
dependencies of these packages brings debconf, perl, a shell and five times the size. What a package needs and the list
has not is left out (``assets/image/omit.txt``) with the part of the package that would use it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import MachineLacks, UsageError
from workbench.image import downloads, omit, rootfs
from workbench.image.apt import Apt
from workbench.image.layers import write_layer, written_json
from workbench.steps import Emit, Outputs

_LIBRARIES = (
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libssl3",
    "libstdc++6",
    "libuuid1",
)
_PYTHON_311 = ("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal")
_FILES = ("base-files", "ca-certificates", "netbase", "tzdata")
# Holds the licence that libgcc-s1 and libstdc++6 point to, and nothing else.
_LICENCES = ("gcc-12-base",)


@dataclass(frozen=True)
class Suite:
    """A Debian release that images can be based on: the Python it has, and the packages a server needs of it."""

    python: str
    packages: tuple[str, ...]


SUITES: Mapping[str, Suite] = {
    "bookworm": Suite("3.11", tuple(sorted((*_LIBRARIES, *_PYTHON_311, *_FILES, *_LICENCES, "zlib1g")))),
}

_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
_RELOCK = "Lock the base again: workbench run RECIPE --update base"


def suite_of(base: Mapping[str, Any]) -> str:
    """The Debian release that a recipe's ``image.base`` names. Raises UsageError for any other base."""
    suite = base.get("debian")
    if suite in SUITES:
        return str(suite)
    allowed = ", ".join(f"{{debian: {name}}}" for name in SUITES)
    if "image" in base:
        raise UsageError(f"image.base names the image {base['image']}, which cannot be a base yet.", f"Use {allowed}.")
    raise UsageError(f"image.base names Debian {suite}, which is not supported.", f"Use {allowed}.")


def resolve(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:  # noqa: ARG001
    """Locks the packages of the base: name, version, sha256 and size, from signed lists; each is fetched and checked.

    Where a package lies is not locked: mirrors differ in it. ``params``: ``base`` (``{"debian": "bookworm"}``, or
    ``{"image": REFERENCE}``: see :func:`workbench.image.registry_base.resolve`, with ``python``), ``packages`` (names
    to have besides the needed ones; may be absent), ``arch`` (``"amd64"``). Raises UsageError for a package or release
    there is not, MachineLacks where apt cannot ask.
    """
    if "image" in params["base"]:
        from workbench.image import registry_base

        return registry_base.resolve(str(params["base"]["image"]), str(params["python"]), emit)
    suite = suite_of(params["base"])
    added = list(params.get("packages") or ())
    for name in added:
        if not _PACKAGE_NAME.fullmatch(name):
            raise UsageError(f"image.base.packages: {name!r} is no name of a Debian package.", "Correct the name.")
    names = sorted({*SUITES[suite].packages, *added})
    emit.progress(0, 2, "fetching package lists")
    apt = _updated_apt(suite, params["arch"], emit.scratch)
    found = apt.candidates(names)
    _note_missing(added, found, emit)
    packages = [
        {
            "name": name,
            "version": found[name]["Version"],
            "sha256": found[name]["SHA256"],
            "size": int(found[name]["Size"]),
        }
        for name in names
    ]
    pins = {"debian": suite, "arch": params["arch"], "packages": packages}
    emit.progress(1, 2, f"fetching {len(names)} packages")
    fetched(packages, emit.scratch, lambda: apt)
    emit.progress(2, 2)
    return Outputs({"pins": written_json(emit.scratch / "pins", pins)}, {"pins": pins})


def _note_missing(added: list[str], found: Mapping[str, Mapping[str, str]], emit: Emit) -> None:
    """Says what the packages that the recipe added depend on and the image will not have."""
    for name in added:
        depends = ", ".join(found[name].get(field, "") for field in ("Pre-Depends", "Depends"))
        for alternatives in filter(None, (part.strip() for part in depends.split(","))):
            choices = [re.split(r"[ (:]", choice.strip())[0] for choice in alternatives.split("|")]
            if not set(choices) & set(found):
                emit.note(
                    f"{name} depends on {' or '.join(choices)}, which the base has not: "
                    "add it to image.base.packages if it is needed."
                )


def read_pins(path: Path) -> dict[str, Any]:
    """The locked packages. Raises UsageError where they are not what :func:`resolve` writes (a lock edited by hand)."""
    try:
        pins: dict[str, Any] = json.loads(path.read_bytes())
        for package in pins["packages"]:
            usable = (
                _PACKAGE_NAME.fullmatch(package["name"])
                and re.fullmatch(r"[0-9a-f]{64}", package["sha256"])
                and _VERSION.fullmatch(package["version"])
            )
            if not usable:
                raise UsageError(f"The lock's base package {package['name']!r} is not usable.", _RELOCK)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"The lock's base packages are not usable ({error!r}).", _RELOCK) from error
    return pins


def layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Unpacks the locked packages into one layer: ``blob``, ``descriptor``, ``contents``.

    ``params``: ``created`` (seconds since 1970). Raises MachineLacks where Debian no longer serves a locked version.
    """
    pins = read_pins(inputs["pins"])
    packages = pins["packages"]
    emit.progress(0, 2, "fetching packages")
    files = fetched(packages, emit.scratch, lambda: _updated_apt(pins["debian"], pins["arch"], emit.scratch))
    emit.progress(1, 2, "unpacking")
    with rootfs.Rootfs(emit.scratch / "unpacked", omit.shipped()) as root:
        for package in packages:
            root.add(package["name"], files[package["sha256"]])
        entries = root.entries()
        outputs = write_layer(
            "base",
            entries,
            emit.scratch,
            created=params["created"],
            omitted_bytes=root.omitted_bytes,
            more={"architecture": pins["arch"], "debian": pins["debian"]},
        )
    emit.progress(2, 2)
    return outputs


def _updated_apt(suite: str, arch: str, scratch: Path) -> Apt:
    apt = Apt(scratch / "apt", suite, arch)
    apt.update()
    return apt


def fetched(packages: Sequence[Mapping[str, Any]], scratch: Path, asked: Callable[[], Apt]) -> dict[str, Path]:
    """The .deb files of locked ``packages`` by sha256: from the cache, the rest fetched in one go and verified.

    ``asked`` gives an apt with its lists, and is called only if something is missing: a warm cache needs no network.
    Raises MachineLacks where Debian has another content by now, or none.
    """
    files: dict[str, Path] = {}
    missing = []
    for package in packages:
        cached = downloads.take(package["sha256"])
        if cached is None:
            missing.append(package)
        else:
            files[package["sha256"]] = cached
    if missing:
        files |= _download(asked(), missing, scratch / "packages")
    return files


def _download(apt: Apt, packages: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Path]:
    served = apt.served([package["name"] for package in packages])
    gone = [package for package in packages if (package["name"], package["version"]) not in served]
    if gone:
        raise MachineLacks(f"Debian no longer serves {_named(gone)}.", _RELOCK)
    other = [p for p in packages if p["sha256"] not in served[p["name"], p["version"]]]
    if other:
        raise MachineLacks(f"Debian serves {_named(other)} with another content than the lock names.", _RELOCK)
    folder.mkdir()
    arrived = apt.download([(package["name"], package["version"]) for package in packages], folder)
    by_content = {downloads.sha256_of(path): path for path in arrived}
    lost = [package for package in packages if package["sha256"] not in by_content]
    if lost:
        raise MachineLacks(f"What apt fetched for {_named(lost)} is not what the lock names.", _RELOCK)
    kept = {str(p["sha256"]): downloads.keep(by_content[p["sha256"]], p["sha256"]) for p in packages}
    shutil.rmtree(folder)
    return kept


def _named(packages: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{package['name']}={package['version']}" for package in packages)
