"""What things are called outside: media types, annotations, the addresses of packages (purl).

Apart from what makes and reads them, because a run with nothing changed looks at attachments and loads no more for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"

RECIPE = "application/vnd.workbench.recipe.v1+yaml"
LOCK = "application/vnd.workbench.lock.v1+yaml"
SBOM = "application/vnd.cyclonedx+json"
PROVENANCE = "application/vnd.in-toto+json"
KINDS: Mapping[str, str] = {"recipe": RECIPE, "sbom": SBOM, "provenance": PROVENANCE}
"""What is attached to an image, and its artifact type. The lock travels with the recipe."""

TITLE = "org.opencontainers.image.title"
REPLACES = "workbench.replaces"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
DEBIAN_RELEASES = {"bookworm": "12"}


def normalised(name: str) -> str:
    """A package's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def purl(kind: str, namespace: str | None, name: str, version: str, qualifiers: Mapping[str, str]) -> str:
    """The address of a package of ``kind`` (``deb``, ``pypi``); empty qualifiers are left out."""
    from packageurl import PackageURL

    return PackageURL(kind, namespace, name, version, dict(qualifiers)).to_string()


def debian_purl(name: str, version: str, arch: str, suite: str) -> str:
    """The address of a pinned Debian package. Raises KeyError for a release there is not."""
    return purl("deb", "debian", name, version, {"arch": arch, "distro": f"debian-{DEBIAN_RELEASES[suite]}"})


def wheel_purl(name: str, version: str) -> str:
    """The address of a pinned wheel."""
    return purl("pypi", None, normalised(name), version, {})


def base_sha256(pins: Mapping[str, Any]) -> str:
    """The digest that a base from a registry is pinned by."""
    found = re.search(r"sha256:([0-9a-f]{64})", json.dumps(pins))
    return found[1] if found else ""
