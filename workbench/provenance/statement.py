"""How an image came about, as an in-toto Statement v1 with SLSA's provenance v1 for a predicate.

It repeats what recipe and lock say in words that other tools read. There is no time in it and no name of a machine: it
is the same bytes wherever the same lock comes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from workbench.errors import UsageError
from workbench.lock import Artifacts, Lock
from workbench.provenance.names import base_sha256, debian_purl, wheel_purl
from workbench.store import canonical

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:workbench:recipe:1"
BUILDER = "urn:workbench:run:1"
PROJECT = "project"


def statement(
    manifest: str, config: Mapping[str, Any], name: str, lock: Lock, files: Mapping[str, bytes], revision: str = ""
) -> bytes:
    """The statement on the image with the digest ``manifest``.

    ``config`` is the image's own; ``files`` are ``recipe``, ``lock`` and ``sbom`` as they are attached; ``revision`` is
    the project's commit, where there is one to name.
    """
    labels = config.get("config", {}).get("Labels") or {}
    artifacts = lock.artifacts
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "recipe": {"name": name, "digest": _digest(files["recipe"]), "sections": dict(lock.recipe)},
            "seed": artifacts.seed,
        },
        "internalParameters": {"choice": artifacts.choice, "instructionSet": artifacts.instruction_set},
        "resolvedDependencies": [*_project(revision), *dependencies(artifacts)],
    }
    details = {
        "builder": {"id": BUILDER, "version": {"workbench": str(labels.get("workbench.version", ""))}},
        "byproducts": [{"name": part, "digest": _digest(files[part])} for part in ("lock", "sbom")],
    }
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": manifest.removeprefix("sha256:")}}],
            "predicateType": PREDICATE,
            "predicate": {"buildDefinition": definition, "runDetails": details},
        }
    )


def dependencies(artifacts: Artifacts) -> Iterator[dict[str, Any]]:
    """What the image was made from, as in-toto's resource descriptors: sources, packages, tools.

    Raises UsageError where the lock's pins are not what a run writes.
    """
    for name, digest in sorted(artifacts.sources.items()):
        yield {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
    try:
        yield from _pins(artifacts)
        for tool, version in sorted(artifacts.toolchain.items()):
            yield {"name": f"tool {tool}", "uri": wheel_purl(tool, version)}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"The lock's pins are not usable ({error!r}).", "Run the recipe again.") from error


def _pins(artifacts: Artifacts) -> Iterator[dict[str, Any]]:
    base = artifacts.base.pins if artifacts.base else {}
    if "image" in base:
        yield {"name": "base", "uri": f"docker://{base['image']}", "digest": {"sha256": base_sha256(base)}}
    for package in base.get("packages", ()):
        purl = debian_purl(package["name"], package["version"], base["arch"], base["debian"])
        yield {"name": f"package {package['name']}", "uri": purl, "digest": {"sha256": package["sha256"]}}
    for wheel in artifacts.wheels.pins["wheels"] if artifacts.wheels else ():
        purl = wheel_purl(wheel["name"], wheel["version"])
        yield {"name": f"wheel {wheel['name']}", "uri": purl, "digest": {"sha256": wheel["sha256"]}}


def _project(revision: str) -> list[dict[str, Any]]:
    return [{"name": PROJECT, "digest": {"gitCommit": revision}}] if revision else []


def _digest(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}
