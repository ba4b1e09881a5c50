"""From what a user writes (``oci:FOLDER:TAG``, ``registry.example.com/team/digits:1.4``) to where that is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.registry.folder import Folder
from workbench.registry.reference import DEFAULT_TAG, OCI, check_destination, check_ref_name, parse, parse_layout
from workbench.registry.target import Target

if TYPE_CHECKING:
    from workbench.registry.http import Patience

# Cosign keeps the signatures of an image beside it under such a tag.
_SIGNATURES = re.compile(r"sha256-[0-9a-f]{64}\.sig")


def open_target(to: str, project: Path = Path(), patience: Patience | None = None) -> tuple[Target, str]:
    """Where the image ``to`` is kept, and its digest or tag there: ``latest`` in a registry where none is written.

    A relative layout folder lies in ``project``. Nothing is asked yet. Raises UsageError where ``to`` is no such name,
    and where a layout's tag is missing and it has not exactly one.
    """
    if not to.startswith(OCI):
        image = parse(to)
        return _remote(to, patience), image.digest or image.tag or DEFAULT_TAG
    layout = parse_layout(to)
    target = Folder(project / layout.folder, layout.folder)
    chosen = layout.digest or layout.tag
    if chosen is None:
        tags = sorted(tag for tag in target.layout.tags() if not _SIGNATURES.fullmatch(tag))
        if len(tags) != 1:
            raise UsageError(
                f"{to} does not say which image.", f"Write {to}:TAG; its tags: {', '.join(tags) or 'none'}."
            )
        chosen = tags[0]
    return target, chosen


def open_destination(
    to: str, name: str, tag: str | None = None, project: Path = Path(), patience: Patience | None = None
) -> tuple[Target, str]:
    """Where a push of the image ``name`` to ``to`` goes, and the tag it gets.

    Without a tag in ``to`` that is ``tag`` (or ``latest``) in a registry, and ``name`` (``name:tag`` where there is
    one) in a layout: it has one room for tags, and several recipes push to it. Raises UsageError as
    :func:`check_destination` does.
    """
    check_destination(to)
    if not to.startswith(OCI):
        return _remote(to, patience), parse(to).tag or tag or DEFAULT_TAG
    layout = parse_layout(to)
    chosen = layout.tag or (f"{name}:{tag}" if tag else name)
    check_ref_name(chosen)
    return Folder(project / layout.folder, layout.folder), chosen


def hurry(to: str) -> Patience | None:
    """For a look, not for work: a registry that does not answer at once is not waited for. None for a layout."""
    if to.startswith(OCI):
        return None
    from workbench.registry.http import Patience

    return Patience(attempts=1, connect_s=3, answer_s=5)


def _remote(to: str, patience: Patience | None) -> Target:
    # Only a registry needs an HTTP client, which takes 0.2 s to load.
    from workbench.registry.remote import Remote

    return Remote(parse(to), patience)
