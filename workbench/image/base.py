"""The base of an image: Debian packages, locked by content and unpacked into one layer.

The list is explicit and no dependency is followed: what a model server needs of Debian is known, and following the
dependencies of these packages brings debconf, perl, a shell and five times the size. What a package needs and the list
has not is left out (``assets/image/omit.txt``) with the part of the package that would use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
_POOL_PATH = re.compile(r"pool/[A-Za-z0-9+.~_/-]+\.deb")


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
    """Locks the packages of the base: name, version, sha256, size and path in Debian's pool, from signed lists.

    ``params``: ``base`` (``{"debian": "bookworm"}``), ``packages`` (names to have besides the needed ones, or None),
    ``arch`` (``"amd64"``). Raises UsageError for a package or release there is not, MachineLacks where apt cannot ask.
    """
    suite = suite_of(params["base"])
    added = list(params.get("packages") or ())
    for name in added:
        if not _PACKAGE_NAME.fullmatch(name):
            raise UsageError(f"image.base.packages: {name!r} is no name of a Debian package.", "Correct the name.")
    names = sorted({*SUITES[suite].packages, *added})
    emit.progress(0, 2, "fetching package lists")
    apt = Apt(emit.scratch / "apt", suite, params["arch"])
    apt.update()
    emit.progress(1, 2, f"resolving {len(names)} packages")
    found = apt.candidates(names)
    _note_missing(added, found, emit)
    packages = [
        {
            "name": name,
            "version": found[name]["Version"],
            "sha256": found[name]["SHA256"],
            "size": int(found[name]["Size"]),
            "filename": found[name]["Filename"],
        }
        for name in names
    ]
    pins = {"debian": suite, "arch": params["arch"], "packages": packages}
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
                and _POOL_PATH.fullmatch(package["filename"])
                and ".." not in package["filename"]
                and isinstance(package["version"], str)
            )
            if not usable:
                raise UsageError(
                    f"The lock's base package {package['name']!r} is not usable.",
                    "Lock the base again: workbench run RECIPE --update base",
                )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"The lock's base packages are not usable ({error!r}).",
            "Lock the base again: workbench run RECIPE --update base",
        ) from error
    return pins


def layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Unpacks the locked packages into one layer: ``blob``, ``descriptor``, ``contents``.

    ``params``: ``created`` (seconds since 1970). Raises MachineLacks where Debian no longer serves a locked version.
    """
    pins = read_pins(inputs["pins"])
    packages = pins["packages"]
    files = _fetched(pins, emit)
    emit.progress(len(packages), len(packages) + 1, "unpacking")
    with rootfs.Rootfs(emit.scratch / "unpacked", omit.shipped()) as root:
        for package in packages:
            root.add(package["name"], files[package["name"]])
        entries = root.entries()
        outputs = write_layer(
            "base",
            entries,
            emit.scratch,
            created=params["created"],
            omitted_bytes=root.omitted_bytes,
            more={"architecture": pins["arch"], "debian": pins["debian"]},
        )
    emit.progress(len(packages) + 1, len(packages) + 1)
    return outputs


def _fetched(pins: Mapping[str, Any], emit: Emit) -> dict[str, Path]:
    """The .deb file of each package: from the cache, or fetched and verified."""
    apt: Apt | None = None
    files: dict[str, Path] = {}
    for done, package in enumerate(pins["packages"]):
        name, sha256 = package["name"], package["sha256"]
        cached = downloads.take(sha256)
        if cached is None:
            emit.progress(done, len(pins["packages"]) + 1, f"fetching {name}")
            apt = apt or Apt(emit.scratch / "apt", pins["debian"], pins["arch"])
            cached = _fetch(apt, package, emit.scratch / "package.deb")
        files[name] = cached
    return files


def _fetch(apt: Apt, package: Mapping[str, Any], target: Path) -> Path:
    wanted = f"{package['name']}={package['version']}"
    said = apt.fetch(package["filename"], package["sha256"], target)
    if not said:
        if downloads.sha256_of(target) != package["sha256"]:
            raise MachineLacks(
                f"What apt fetched for {wanted} is not what the lock names.", "Run the same command again."
            )
        kept = downloads.keep(target, package["sha256"])
        target.unlink()
        return kept
    if re.search(r"\b404\b|not found|hash sum mismatch|does not match|unexpected size", said, re.IGNORECASE):
        raise MachineLacks(
            f"Debian no longer serves {wanted}.", "Lock the base again: workbench run RECIPE --update base"
        )
    raise MachineLacks(
        f"{wanted} cannot be fetched: {said.splitlines()[-1]}",
        "See that `apt-get update` works on this machine, then run the same command again.",
    )
