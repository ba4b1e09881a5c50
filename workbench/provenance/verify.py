"""Whether an image and what travels with it belong together.

Every check is a row: ``ok``, ``differs``, ``missing``, or ``not checked``. All are made, so that one look shows what
was changed; the first that fails is the error. Without a key this proves that the parts agree with each other; who
made them is what a signature says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from workbench.document import parse
from workbench.errors import ArtifactDiffers, StepFailed, UsageError
from workbench.lock import Lock, recipe_digests
from workbench.plan import models
from workbench.provenance import deep as inside
from workbench.provenance import image, referrers, signature, statement
from workbench.provenance.image import Image
from workbench.provenance.listed import against_lock, listed
from workbench.provenance.names import KINDS, LOCK, PROVENANCE, RECIPE, SBOM
from workbench.provenance.referrers import Attached, digest_of
from workbench.registry.target import Target
from workbench.schema import Recipe

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

State = Literal["ok", "differs", "missing", "not checked"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``detail`` says what was found."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class Subject:
    """An image with its config and the attached files that could be read, by media type."""

    target: Target
    image: Image
    config: Mapping[str, Any] = field(default_factory=dict)
    attached: Mapping[str, Attached] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def verify(target: Target, reference: str, *, key: Path | None = None, deep: Path | None = None) -> list[Check]:
    """Checks the image that ``reference`` names; ``key`` is the public key it has to be signed with, ``deep`` an empty
    folder to download the layers to, which hashes them and compares what is in them with the parts list.

    Raises UsageError where there is no such image or key, MachineLacks where the repository cannot be reached, or the
    layers have no room in ``deep``.
    """
    public = signature.public_key(key) if key else None
    try:
        found = image.find(target, reference)
    except StepFailed as error:
        return [Check("image", "differs", error.message)]
    checks = [Check("image", "ok", found.digest)]
    subject = Subject(target, found, _config(target, found, checks))
    checks += _layers(target, found)
    subject = _with_attached(subject, checks)
    lock, recipe = _lock(subject, checks), _recipe(subject, checks)
    if lock is not None:
        checks += _image_of_lock(subject, lock)
    if lock is not None and recipe is not None:
        checks += _recipe_of_lock(subject, lock, recipe)
    checks += [*_sbom(subject, lock), *_provenance(subject, lock)]
    if deep is not None:
        sbom = _json(subject.files[SBOM]) if SBOM in subject.files else None
        checks += [Check(*each) for each in inside.checks(target, found, subject.config, sbom, deep)]
    return [*checks, *_signatures(subject, public)]


def failure(checks: Sequence[Check]) -> ArtifactDiffers | None:
    """The first check that failed, as an error."""
    for check in checks:
        if check.state in ("differs", "missing"):
            word = "is missing" if check.state == "missing" else "differs"
            return ArtifactDiffers(
                f"{check.name} {word}: {check.detail}", "Do not use this image, or push it again from its recipe."
            )
    return None


def _same(name: str, expected: object, found: object) -> Check:
    if expected == found:
        return Check(name, "ok", _short(found))
    return Check(name, "differs", f"{_short(found)} instead of {_short(expected)}")


def _short(value: object) -> str:
    text = str(value)
    return text[:19] if text.startswith("sha256:") else text


# --- the image


def _config(target: Target, found: Image, checks: list[Check]) -> dict[str, Any]:
    digest = str(found.manifest["config"]["digest"])
    if not target.has_blob(digest):
        checks.append(Check("config", "missing", digest))
        return {}
    try:
        config = _json(target.read_blob(digest, referrers.MAX_MANIFEST))
    except StepFailed as error:
        checks.append(Check("config", "differs", error.message))
        return {}
    checks.append(Check("config", "ok", digest) if config else Check("config", "differs", f"{digest} is no config"))
    return config


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _layers(target: Target, found: Image) -> Iterator[Check]:
    digests = [str(layer["digest"]) for layer in found.manifest["layers"]]
    absent = [digest for digest in digests if not target.has_blob(digest)]
    yield (
        Check("layers", "missing", f"{', '.join(absent)}, or damaged")
        if absent
        else Check("layers", "ok", f"{len(digests)} there")
    )


# --- what is attached


def _with_attached(subject: Subject, checks: list[Check]) -> Subject:
    attached: dict[str, Attached] = {}
    files: dict[str, bytes] = {}
    for kind, media_types in (("recipe", (RECIPE, LOCK)), ("sbom", (SBOM,)), ("provenance", (PROVENANCE,))):
        name = {"recipe": "recipe and lock", "sbom": "SBOM"}.get(kind, kind)
        try:
            found = referrers.newest(subject.target, subject.image.digest, kind)
            if not found:
                checks.append(Check(name, "missing", "none is attached"))
                continue
            for media_type in media_types:
                files[media_type] = referrers.read_file(subject.target, found[0], media_type)
            attached[KINDS[kind]] = found[0]
            more = f", and {len(found) - 1} as new" if len(found) > 1 else ""
            checks.append(Check(name, "ok", f"{found[0].digest}{more}"))
        except (StepFailed, UsageError) as error:
            checks.append(Check(name, "differs", error.message))
    return Subject(subject.target, subject.image, subject.config, attached, files)


def _document(subject: Subject, kind: str, name: str, checks: list[Check]) -> Any:
    data = subject.files.get(kind)
    if data is None:
        return None
    try:
        document = parse(data.decode(), Path(name)).data
        return (Lock if kind == LOCK else Recipe).model_validate(document)
    except (UsageError, UnicodeDecodeError, ValidationError) as error:
        said = error.message if isinstance(error, UsageError) else str(error).splitlines()[0]
        checks.append(Check(name, "differs", f"cannot be read: {said}{_of_another_version(subject)}"))
        return None


def _lock(subject: Subject, checks: list[Check]) -> Lock | None:
    lock: Lock | None = _document(subject, LOCK, "lock", checks)
    try:
        list(statement.dependencies(lock.artifacts) if lock else ())
    except UsageError as error:
        checks.append(Check("lock", "differs", error.message))
        return None
    return lock


def _recipe(subject: Subject, checks: list[Check]) -> Recipe | None:
    recipe: Recipe | None = _document(subject, RECIPE, "recipe", checks)
    return recipe


def _of_another_version(subject: Subject) -> str:
    """A later version may know other keys and defaults than the one that made the image: a reason, and no excuse."""
    import workbench

    made = image.labels(subject.config).get(image.VERSION, "unknown")
    if made == workbench.__version__:
        return ""
    return f" (made by workbench {made}, and this is {workbench.__version__})"


def _image_of_lock(subject: Subject, lock: Lock) -> Iterator[Check]:
    facts = lock.artifacts.image
    if facts is None:
        yield Check("lock: image", "differs", "the lock has no image")
        return
    yield _same("lock: image", facts.manifest, subject.image.digest)
    yield _same("lock: config", facts.config, subject.image.manifest["config"]["digest"])
    diff_ids = image.diff_ids(subject.config)
    if diff_ids != list(facts.layers.values()):
        names = [name for name, digest in facts.layers.items() if digest not in diff_ids]
        yield Check("lock: layers", "differs", f"not in the image: {', '.join(names) or 'none, but in another order'}")
    else:
        yield Check("lock: layers", "ok", ", ".join(facts.layers))


def _recipe_of_lock(subject: Subject, lock: Lock, recipe: Recipe) -> Iterator[Check]:
    ours = recipe_digests(recipe)
    other = [name for name in {**lock.recipe, **ours} if lock.recipe.get(name) != ours.get(name)]
    if other:
        detail = f"not what the lock was made from: {', '.join(other)}{_of_another_version(subject)}"
        yield Check("recipe", "differs", detail)
    else:
        yield Check("recipe", "ok", f"{len(ours)} sections as the lock says")
    chosen = models(recipe).get(lock.artifacts.choice)
    expected = lock.artifacts.made.get(chosen.step) if chosen else f"a variant {lock.artifacts.choice}"
    yield _same("lock: model", expected, image.labels(subject.config).get(image.MODEL))


def _sbom(subject: Subject, lock: Lock | None) -> Iterator[Check]:
    data = subject.files.get(SBOM)
    if data is None:
        return
    parts = listed(_json(data))
    yield _same("SBOM: image", subject.image.manifest["config"]["digest"], parts.image)
    yield _same("SBOM: model", image.labels(subject.config).get(image.MODEL), parts.model)
    if lock is not None:
        wrong = against_lock(parts, lock.artifacts)
        yield Check("SBOM: packages", "differs" if wrong else "ok", "; ".join(wrong) or f"{len(parts.packages)}")
        facts = lock.artifacts.image
        if facts is not None and facts.sbom:
            yield _same("SBOM: lock", facts.sbom, digest_of(data))


def _provenance(subject: Subject, lock: Lock | None) -> Iterator[Check]:
    data = subject.files.get(PROVENANCE)
    if data is None:
        return
    said = _json(data)
    yield _same("provenance: image", subject.image.digest, f"sha256:{_at(said, 'subject', 0, 'digest', 'sha256')}")
    for part, kind, way in (
        ("recipe", RECIPE, ("predicate", "buildDefinition", "externalParameters", "recipe", "digest", "sha256")),
        ("lock", LOCK, ("predicate", "runDetails", "byproducts", 0, "digest", "sha256")),
        ("SBOM", SBOM, ("predicate", "runDetails", "byproducts", 1, "digest", "sha256")),
    ):
        if kind in subject.files:
            yield _same(f"provenance: {part}", digest_of(subject.files[kind]), f"sha256:{_at(said, *way)}")
    if lock is not None:
        named = _at(said, "predicate", "buildDefinition", "resolvedDependencies")
        ours = list(statement.dependencies(lock.artifacts))
        theirs = [one for one in named if isinstance(one, dict)] if isinstance(named, list) else []
        kept = [one for one in theirs if one.get("name") != statement.PROJECT]
        wrong = [str(one.get("name")) for one in (*ours, *kept) if one not in ours or one not in kept]
        detail = ", ".join(dict.fromkeys(wrong)) or f"{len(ours)} as the lock says"
        yield Check("provenance: sources", "differs" if wrong else "ok", detail)


def _at(data: object, *way: str | int) -> Any:
    """What stands there in a document from whoever wrote it, or None."""
    for part in way:
        try:
            data = data[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return data


# --- who made it


def _signatures(subject: Subject, key: EllipticCurvePublicKey | None) -> Iterator[Check]:
    yield _signature(subject, "signature", subject.image.digest, key)
    for kind, media_type in KINDS.items():
        if media_type in subject.attached:
            name = "recipe and lock" if kind == "recipe" else kind.replace("sbom", "SBOM")
            yield _signature(subject, f"signature of {name}", subject.attached[media_type].digest, key)


def _signature(subject: Subject, name: str, digest: str, key: EllipticCurvePublicKey | None) -> Check:
    try:
        found = list(signature.signatures(subject.target, digest))
    except (StepFailed, UsageError) as error:
        return Check(name, "differs", error.message)
    if key is None:
        return Check(name, "not checked", "signed, not checked (no key)" if found else "not signed")
    if (valid := signature.valid_among(found, digest, key)) is not None:
        named = signature.identity_of(valid.payload)
        return Check(name, "ok", f"as {named}") if named else Check(name, "differs", "its payload names no repository")
    if found:
        return Check(name, "differs", f"{len(found)} there, none by this key for this image")
    return Check(name, "missing", "not signed")
