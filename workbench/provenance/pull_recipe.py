"""From an image back to what it was made from: the recipe and the lock that travel with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from workbench.document import MAX_BYTES, parse
from workbench.errors import ArtifactDiffers, StepFailed, UsageError
from workbench.provenance import image
from workbench.provenance.names import LOCK, RECIPE
from workbench.provenance.referrers import newest, read_file
from workbench.registry.target import Target
from workbench.store import unwritable, write_atomically

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Pulled:
    """A recipe and its lock as they were attached to ``image`` (a digest). ``others`` more pairs are as new."""

    image: str
    name: str
    recipe: bytes
    lock: bytes
    others: int


def pull(target: Target, reference: str) -> Pulled:
    """The recipe and the lock of the image that ``reference`` names.

    Raises UsageError where none is attached, StepFailed where it is no recipe, ArtifactDiffers where the lock is of
    another image.
    """
    digest = image.find(target, reference).digest
    found = newest(target, digest, "recipe")
    if not found:
        raise UsageError(
            f"Nothing is attached to {target.name}@{digest}.",
            "Its recipe is where it was pushed from; workbench run pushes both.",
        )
    recipe, lock = (read_file(target, found[0], kind) for kind in (RECIPE, LOCK))
    name = _document(recipe, "recipe").get("name")
    locked = _document(lock, "lock").get("artifacts")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StepFailed(f"The recipe beside {target.name}@{digest} has no usable name.", "Push the image again.")
    facts = locked.get("image") if isinstance(locked, dict) else None
    of = facts.get("manifest") if isinstance(facts, dict) else None
    if of != digest:
        raise ArtifactDiffers(
            f"The lock beside {target.name}@{digest} is of the image {of}.",
            "Do not trust it. See: workbench verify REF",
        )
    return Pulled(digest, name, recipe, lock, len(found) - 1)


def _document(data: bytes, what: str) -> dict[str, object]:
    """Reads what came as any document is read: bounded, without aliases and tags."""
    if len(data) > MAX_BYTES:
        raise StepFailed(f"The {what} has {len(data)} bytes; that is none.", "Push the image again.")
    try:
        return parse(data.decode(), Path(f"the pulled {what}")).data
    except UnicodeDecodeError:
        raise StepFailed(f"The {what} is not UTF-8 text.", "Push the image again.") from None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:  # a folder, or not ours to read
        return False


def write(pulled: Pulled, folder: Path, *, force: bool = False) -> list[Path]:
    """Writes ``<name>.yaml`` and ``<name>.lock.yaml`` into ``folder``, which is made; their paths.

    Raises UsageError where one is there already with another content, and writes none, unless ``force``.
    """
    files = {folder / f"{pulled.name}.yaml": pulled.recipe, folder / f"{pulled.name}.lock.yaml": pulled.lock}
    other = [path for path, data in files.items() if path.exists() and not _holds(path, data)]
    if other and not force:
        names = " and ".join(str(path) for path in other)
        raise UsageError(f"{names} would be overwritten.", "Name another folder with -o, or overwrite with --force.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    for path, data in files.items():
        write_atomically(path, data)
    return list(files)
