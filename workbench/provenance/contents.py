"""The packages that the layers of an image hold, by the records that package managers leave in them."""

from __future__ import annotations

import email.parser
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workbench.errors import StepFailed
from workbench.image.reading import OPAQUE, WHITEOUT, members, path_of

MAX_RECORD = 32 << 20
"""The list of a whole Debian desktop has 5 MB."""
MAX_RECORDS = 20_000
MAX_RECORD_BYTES = 512 << 20
"""Of all records together; they are held in memory."""

_STATUS = "var/lib/dpkg/status"
_STATUS_FOLDER = "var/lib/dpkg/status.d/"
_RELEASE = "usr/lib/os-release"
_METADATA = re.compile(r"(?:.*/)?[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO)")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~_!-]{0,254}")


@dataclass(frozen=True, order=True)
class Package:
    """A package as its own record names it: ``arch`` and ``source`` (``name`` or ``name@version``, where it has another
    than the package) of Debian's, ``licence`` of Python's where the record says it."""

    name: str
    version: str
    arch: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Contents:
    """What is in an image: ``debian`` is None where there is no list of Debian packages; ``release`` is os-release."""

    debian: tuple[Package, ...] | None
    python: tuple[Package, ...]
    release: Mapping[str, str]


def read_layers(layers: Sequence[Path]) -> Contents:
    """The packages in ``layers`` (lowest first). Raises StepFailed for a layer that is damaged or beyond all bounds."""
    files = _files(layers, _is_record)
    lists = [data for path, data in files.items() if path == _STATUS or path.startswith(_STATUS_FOLDER)]
    found = {package for data in lists for package in _debian(data.decode("utf-8", "replace"))}
    python = {_python(data) for path, data in files.items() if _METADATA.fullmatch(path)}
    return Contents(
        debian=tuple(sorted(found)) if lists else None,
        python=tuple(sorted(package for package in python if package is not None)),
        release=_release(files.get(_RELEASE, b"").decode("utf-8", "replace")),
    )


def _is_record(path: str) -> bool:
    in_folder = path.startswith(_STATUS_FOLDER) and not path.endswith(".md5sums")
    return path in (_STATUS, _RELEASE) or in_folder or _METADATA.fullmatch(path) is not None


def _files(layers: Sequence[Path], wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The wanted files of the image, by path: a higher layer replaces and removes what lower ones have."""
    found: dict[str, bytes] = {}
    count = size = 0
    for layer in layers:
        own: dict[str, bytes] = {}
        for member, file in members(layer):
            path = path_of(member).strip("/")
            _remove(found, path)
            if file is not None and wanted(path):
                own[path] = _read(file, member.size, path)
                count, size = count + 1, size + member.size
                if count > MAX_RECORDS or size > MAX_RECORD_BYTES:
                    raise StepFailed(f"The image has {count} packages; that is no image.", "Use another base.")
        found |= own
    return found


def _remove(found: dict[str, bytes], path: str) -> None:
    """Takes away what the whiteout ``path`` of the OCI specification removes from lower layers."""
    folder, _, name = path.rpartition("/")
    if not name.startswith(WHITEOUT):
        return
    gone = folder if name == OPAQUE else f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/")
    for one in [one for one in found if one == gone or one.startswith(f"{gone}/") or not gone]:
        del found[one]


def _read(file: IO[bytes], size: int, path: str) -> bytes:
    if size > MAX_RECORD:
        raise StepFailed(f"/{path} in the image has {size} bytes; no list of packages is as large.")
    return file.read()


def _debian(status: str) -> list[Package]:
    """The installed packages in a dpkg status file: paragraphs of ``Field: value`` (Debian policy, chapter 5)."""
    found = []
    for paragraph in re.split(r"\n[ \t]*\n", status):
        # What surrounds a value is taken off below: a pattern that does takes the square of a line's length.
        lines = re.findall(r"^([A-Za-z-]+):(.*)$", paragraph, re.MULTILINE)
        fields = {name: value.strip(" \t") for name, value in lines}
        # Distroless images keep a file a package, without a state: what is there is installed.
        state = fields.get("Status", "install ok installed").rpartition(" ")[2]
        name, version = fields.get("Package", ""), fields.get("Version", "")
        if state == "installed" and _SAFE.fullmatch(name) and _SAFE.fullmatch(version):
            found.append(Package(name, version, fields.get("Architecture", ""), _source(fields.get("Source", ""))))
    return found


def _source(field: str) -> str:
    """The source package: advisories name it, not what is built from it."""
    name, _, version = field.partition(" ")
    return "@".join(part for part in (name, version.strip("() ")) if _SAFE.fullmatch(part))


def _python(metadata: bytes) -> Package | None:
    """The distribution that a METADATA file is of (core metadata specifications); None where it names none."""
    head = email.parser.BytesHeaderParser().parsebytes(metadata)
    name, version = str(head.get("Name", "")), str(head.get("Version", ""))
    if not (_SAFE.fullmatch(name) and _SAFE.fullmatch(version)):
        return None
    named = [str(line) for line in head.get_all("Classifier", []) if str(line).startswith("License ::")]
    licence = str(head.get("License-Expression") or head.get("License") or "").strip()
    if not licence or "\n" in licence or len(licence) > 120:  # some put the whole text there
        licence = named[0].rpartition("::")[2].strip() if named else ""
    return Package(name, version, licence=licence)


def _release(text: str) -> dict[str, str]:
    """The values of an os-release file."""
    found = re.findall(r"^([A-Z_]+)=[\"']?(.*?)[\"']?$", text, re.MULTILINE)
    return {key: value for key, value in found if _SAFE.fullmatch(value)}
