"""Names of images: ``HOST[:PORT]/NAME[:TAG][@DIGEST]`` in a registry, ``oci:FOLDER[:TAG][@DIGEST]`` in a layout folder.

Short names of registries mean what they mean to Docker: ``python:3.11`` is ``docker.io/library/python:3.11``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.errors import UsageError

OCI = "oci:"
DEFAULT_TAG = "latest"

_DOCKER_HUB = "docker.io"
_FORM = "Write HOST/NAME:TAG, such as registry.example.com/team/digits:1.4, or oci:FOLDER:TAG."

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_WORD}(?:/{_WORD})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The grammar of org.opencontainers.image.ref.name in the OCI image specification.
_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = re.compile(rf"{_PART}(?:/{_PART})*")


@dataclass(frozen=True)
class Reference:
    """An image in a registry. ``host`` has the port where one is given; ``tag`` and ``digest`` may be None."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The repository with its host, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def endpoint(self) -> str:
        """The host that answers for it: Docker Hub's has another name than its images."""
        return "registry-1.docker.io" if self.host == _DOCKER_HUB else self.host


@dataclass(frozen=True)
class LayoutReference:
    """An image in a layout folder, as it is written; ``tag`` and ``digest`` may be None."""

    folder: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """The layout, without tag and digest."""
        return f"{OCI}{self.folder}"


def parse(text: str) -> Reference:
    """The image that ``text`` names in a registry. Raises UsageError with what is wrong with it."""
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise UsageError(f"{text!r} has no digest after the @.", "A digest is sha256: and 64 hexadecimal digits.")
    if "://" in rest:
        raise UsageError(f"{text!r} is an address, not the name of an image.", _FORM)
    host, slash, path = rest.partition("/")
    if not slash or not (set(".:[") & set(host) or host == "localhost" or host != host.lower()):
        host, path = _DOCKER_HUB, rest
    host = _DOCKER_HUB if host == f"index.{_DOCKER_HUB}" else host
    repository, colon, tag = path.partition(":")
    if host == _DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not _HOST.fullmatch(host):
        raise UsageError(f"{text!r} begins with {host!r}, which is no host.", _FORM)
    if not _NAME.fullmatch(repository) or len(repository) > 255:
        raise UsageError(
            f"{repository!r} in {text!r} cannot be a repository.",
            "Use lower-case letters and digits, with single '.', '_', '-' or '/' between them.",
        )
    if colon and not _TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} cannot be a tag.", "Use letters, digits, '.', '_' and '-', 128 at most.")
    return Reference(host, repository, tag or None, digest or None)


def parse_layout(text: str) -> LayoutReference:
    """The image that ``oci:FOLDER[:TAG][@DIGEST]`` names. Raises UsageError with what is wrong with it."""
    rest, at, digest = text.removeprefix(OCI).rpartition("@sha256:")
    rest = rest if at else digest
    folder, colon, tag = rest.partition(":")
    if not folder:
        raise UsageError(f"{text!r} has no folder.", "Write oci:FOLDER or oci:FOLDER:TAG.")
    if at and not _DIGEST.fullmatch(f"sha256:{digest}"):
        raise UsageError(f"{text!r} has no digest after the @.", "A digest is sha256: and 64 hexadecimal digits.")
    if colon:
        check_ref_name(tag)
    return LayoutReference(folder, tag or None, f"sha256:{digest}" if at else None)


def check_ref_name(tag: str) -> None:
    """Raises UsageError where a layout cannot have ``tag``."""
    if not _REF_NAME.fullmatch(tag):
        raise UsageError(
            f"{tag!r} cannot be a tag.",
            "Use letters and digits, with single '.', '-', '_', ':' or '/' between them.",
        )


def check_destination(to: str) -> None:
    """Raises UsageError where ``to`` is nothing to push to: its host has to be said, and its digest cannot be."""
    if to.startswith(OCI):
        layout = parse_layout(to)
        digest, host_missing = layout.digest, False
    else:
        image = parse(to)
        digest, host_missing = image.digest, image.host == _DOCKER_HUB and not to.startswith((_DOCKER_HUB, "index."))
    if digest is not None:
        raise UsageError(f"{to!r} names a digest, and that is what a push comes to.", "Write a tag, or none.")
    if host_missing:
        # Docker would push to its own registry; here it is as likely a folder without its oci:.
        raise UsageError(
            f"{to!r} does not say which registry.", f"Write docker.io/NAME:TAG, or oci:{to} for a layout folder."
        )
