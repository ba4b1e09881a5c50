"""The step that attaches recipe, lock, parts list and provenance to a pushed image, and signs where a key is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import MachineLacks, StepFailed
from workbench.lock import Lock, load
from workbench.provenance import image, referrers, signature
from workbench.provenance.names import KINDS, LOCK, PROVENANCE, RECIPE, SBOM
from workbench.provenance.referrers import Attached, File, digest_of
from workbench.provenance.statement import statement
from workbench.registry.target import Target
from workbench.registry.where import hurry, open_destination
from workbench.steps import Emit, Outputs

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from workbench.registry.http import Patience


def attach(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Makes ``recipe``, ``lock`` and ``sbom`` the newest referrers of the image, with a statement of how it came about.

    What is there already is not sent again.

    ``inputs``: ``manifest``, ``config``, ``recipe``, ``lock``, ``sbom``. ``params``: ``to``, ``name``, perhaps ``tag``
    and ``revision`` (the project's commit). Where the environment variable WORKBENCH_SIGNING_KEY names a key, image and
    referrers are signed with it. Values: ``recipe``, ``sbom``, ``provenance`` (digests), ``bytes_sent``, ``signed``
    (how many now). Raises StepFailed where the lock is of another image, UsageError where the image is not there,
    MachineLacks where the registry cannot be reached.
    """
    subject = _subject(inputs, digest_of(inputs["manifest"].read_bytes()))
    files = _files(inputs, params, str(subject["digest"]))
    target = _target(params)
    image.find(target, str(subject["digest"]))  # nothing is attached to what is not there
    attached, sent = {}, 0
    for done, (kind, each) in enumerate(files.items()):
        emit.progress(done, len(files), f"attaching the {kind}")
        attached[kind], more = referrers.attach(target, subject, kind, each, emit.scratch)
        sent += more
    signed = 0
    if key := _key():
        digests = [str(subject["digest"]), *(one.digest for one in attached.values())]
        signed = sum(signature.sign(target, one, _identity(target, inputs), key, emit.scratch) for one in digests)
    emit.progress(len(files), len(files))
    return Outputs(values=_values(attached, sent, signed))


def in_place(
    inputs: Mapping[str, Path], params: Mapping[str, Any], project: Path, digest_of_file: Callable[[Path], str]
) -> dict[str, Any] | None:
    """The values of an :func:`attach` that finds everything there; None where something is missing or other, or the
    registry cannot be asked: then the step runs, and says so."""
    try:
        return _in_place(inputs, params, project, digest_of_file)
    except (MachineLacks, StepFailed):
        return None


def _in_place(
    inputs: Mapping[str, Path], params: Mapping[str, Any], project: Path, digest_of_file: Callable[[Path], str]
) -> dict[str, Any] | None:
    subject = _subject(inputs, digest_of_file(inputs["manifest"]))
    digest = str(subject["digest"])
    target = _target(params, project, hurry(params["to"]))
    if target.resolve(digest) is None:
        return None
    attached = {}
    for kind, each in _files(inputs, params, digest).items():
        there = referrers.is_newest(target, digest, kind, each)
        if there is None:
            return None
        attached[kind] = there
    if key := _key():
        public = key.public_key()
        if not all(signature.valid(target, one, public) for one in (digest, *(a.digest for a in attached.values()))):
            return None
    return _values(attached, 0, 0)


def _target(params: Mapping[str, Any], project: Path = Path(), patience: Patience | None = None) -> Target:
    target, _ = open_destination(params["to"], params["name"], params.get("tag"), project, patience)
    return target


def _subject(inputs: Mapping[str, Path], digest: str) -> dict[str, Any]:
    manifest = inputs["manifest"]
    media_type = json.loads(manifest.read_bytes())["mediaType"]
    return {"mediaType": media_type, "digest": digest, "size": manifest.stat().st_size}


def _files(inputs: Mapping[str, Path], params: Mapping[str, Any], manifest: str) -> dict[str, Sequence[File]]:
    """What is attached, by kind."""
    lock = _lock(inputs["lock"], manifest)
    contents = {name: inputs[name].read_bytes() for name in ("recipe", "lock", "sbom")}
    config = json.loads(inputs["config"].read_bytes())
    name = str(params["name"])
    how = statement(manifest, config, name, lock, contents, str(params.get("revision") or ""))
    return {
        "recipe": (
            File(RECIPE, f"{name}.yaml", contents["recipe"]),
            File(LOCK, f"{name}.lock.yaml", contents["lock"]),
        ),
        "sbom": (File(SBOM, f"{name}.cdx.json", contents["sbom"]),),
        "provenance": (File(PROVENANCE, f"{name}.intoto.json", how),),
    }


def _lock(path: Path, manifest: str) -> Lock:
    lock = load(path)
    named = lock.artifacts.image.manifest if lock is not None and lock.artifacts.image is not None else "none"
    if lock is None or named != manifest:
        raise StepFailed(f"The lock is of the image {named}, not of {manifest}.", "Run the recipe again.")
    return lock


def _key() -> EllipticCurvePrivateKey | None:
    path = os.environ.get(signature.KEY)
    return signature.private_key(Path(path)) if path else None


def _identity(target: Target, inputs: Mapping[str, Path]) -> str:
    return signature.identity(target, image.labels(json.loads(inputs["config"].read_bytes())))


def _values(attached: Mapping[str, Attached], sent: int, signed: int) -> dict[str, Any]:
    return {kind: attached[kind].digest for kind in KINDS} | {"bytes_sent": sent, "signed": signed}
