"""Inputs that lie elsewhere: fetched by the digest of their content, so where from does not matter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.errors import MachineLacks, WorkbenchError
from workbench.image import downloads
from workbench.steps import Emit, Outputs
from workbench.store import unwritable

if TYPE_CHECKING:
    from requests import Response

    from workbench.registry.http import Patience

LARGEST = 64 << 30
"""The most bytes an input may have: a server that sends without end fills no disk."""
_PIECE = 1 << 20


def fetch(
    inputs: Mapping[str, Path],  # noqa: ARG001
    params: Mapping[str, Any],
    emit: Emit,
    patience: Patience | None = None,
) -> Outputs:
    """Step ``fetch``: the ``file`` whose content has the digest ``sha256`` (hex), from the cache or from elsewhere.

    ``params``: ``sha256``, ``name`` (where the recipe names it), ``url`` or ``oci``. A download that broke off goes on
    where it ended. Value: ``size`` in bytes. Raises MachineLacks where it cannot be had, or has another content.
    """
    sha256, name = str(params["sha256"]), str(params["name"])
    path = downloads.take(sha256)
    if path is None:
        with downloads.partial(sha256) as part:
            path = downloads.take(sha256) or _brought(params, part, emit, patience)
    file = emit.scratch / "file"
    try:
        shutil.copyfile(path, file)
    except OSError as error:
        raise unwritable(file, error) from error
    emit.progress(1, 1, name)
    return Outputs({"file": file}, {"size": file.stat().st_size})


def _brought(params: Mapping[str, Any], part: Path, emit: Emit, patience: Patience | None) -> Path:
    """The file in the cache, after fetching it by way of ``part``."""
    sha256, name = str(params["sha256"]), str(params["name"])
    progress = _Progress(emit, f"fetching {name}")
    try:
        if "oci" in params:
            _pull(str(params["oci"]), f"sha256:{sha256}", part, progress, patience)
        else:
            _Download(str(params["url"]), sha256, part, progress, patience).carry_out()
    except WorkbenchError as error:
        raise MachineLacks(
            f"{name} (sha256:{sha256}) is not on this machine and cannot be fetched: {error.message}",
            f"{error.cure} Or name another place that has it in the recipe, or a path: the content counts.".strip(),
        ) from error
    return downloads.adopt(part, sha256)


def _pull(reference: str, digest: str, part: Path, progress: _Progress, patience: Patience | None) -> None:
    from workbench.registry.where import open_target

    target, _ = open_target(reference, patience=patience)
    target.pull_blob(digest, part, progress, limit=LARGEST)


class _Progress:
    """Tells how far a transfer is, a hundred times at most."""

    def __init__(self, emit: Emit, text: str) -> None:
        self._emit = emit
        self._text = text
        self._told = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, done, 1)
        if percent > self._told:
            self._told = percent
            self._emit.progress(min(done, total), total, self._text)


class _Download:
    """A file on its way here over HTTP, taken up again from where an earlier try, or run, broke off."""

    def __init__(self, url: str, sha256: str, part: Path, progress: _Progress, patience: Patience | None) -> None:
        from workbench.registry.http import Patience, Session

        parts = urlsplit(url)
        self._url = url
        # What follows a ? may be a signature that opens the address to whoever has it.
        self._shown = f"{parts.netloc}{parts.path}"
        self._sha256 = sha256
        self._part = part
        self._progress = progress
        self._patience = patience or Patience(attempts=4, answer_s=60)
        self._session = Session(parts.netloc, self._patience, plain=parts.scheme == "http")

    def carry_out(self) -> None:
        """Fetches what is missing. Raises MachineLacks where the whole has another content."""
        went_on = self._part.stat().st_size > 0
        self._patience.borne(self._go_on)
        if went_on and not self._is_it():
            # What was there was of something else: a part of an older file, say.
            self._patience.borne(self._go_on)
        if not self._is_it():
            raise MachineLacks(
                f"{self._shown} has another content.",
                "Correct the address or the sha256 in the recipe, whichever is wrong.",
            )

    def _is_it(self) -> bool:
        """Whether all that is there has the digest; what has not is removed."""
        if downloads.sha256_of(self._part) == self._sha256:
            return True
        self._part.write_bytes(b"")
        return False

    def _go_on(self) -> None:
        start = self._part.stat().st_size
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._session.open(self._url, self._shown, expect=(200, 206, 404, 410, 416), headers=headers) as answer:
            if answer.status_code in (404, 410):
                host, _, path = self._shown.partition("/")
                raise MachineLacks(f"{host} has no /{path}.", "Correct the address in the recipe.")
            if answer.status_code == 416:
                return  # there is no more: the digest tells whether that is all
            if not (start and re.match(rf"bytes {start}-", answer.headers.get("Content-Range", ""))):
                start = 0
            self._take(answer, start)

    def _take(self, answer: Response, start: int) -> None:
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isascii() and length.isdigit() else 0
        try:
            file = self._part.open("r+b")
            file.truncate(start)
        except OSError as error:
            raise unwritable(self._part, error) from error
        with file:
            file.seek(start)
            while start <= max(total, start) <= LARGEST and (piece := answer.raw.read(_PIECE)):
                start += len(piece)
                try:
                    file.write(piece)
                    file.flush()
                except OSError as error:
                    raise unwritable(self._part, error) from error
                self._progress(start, max(total, start))
        if max(total, start) > LARGEST:
            raise MachineLacks(f"{self._shown} is larger than {LARGEST >> 30} GiB.", "Give a smaller file.")
