"""One blob on its way into a registry: in pieces, and after an interruption from where the registry has it.

The upload of the OCI distribution specification: POST opens it, PATCH adds a piece, GET tells how far it is, PUT adds
the last piece and names the digest. What an interruption costs is at most one piece where the registry keeps its
uploads; some (Docker's registry 2.8) drop an upload that was cut off within a piece, and then it begins again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from workbench.errors import StepFailed
from workbench.registry.errors import Answer, damaged, refused
from workbench.registry.http import Session, Slice
from workbench.registry.layout import digest_of

PIECE = 16 << 20
"""How much one request carries, in bytes: each costs a round trip, and an interruption costs one."""

_BEGINNINGS = 5
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")
_LOST = (400, 404, 416)


class Upload:
    """The upload of the file ``source`` as the blob ``digest`` to ``repository``. ``told`` gets the bytes so far."""

    def __init__(
        self,
        session: Session,
        repository: str,
        source: Path,
        digest: str,
        told: Callable[[int], None],
        piece: int = PIECE,
    ) -> None:
        self._session = session
        self._repository = repository
        self._place = f"{session.host}/{repository}"
        self._source = source
        self._digest = digest
        self._told = told
        self._piece = piece
        self._size = source.stat().st_size
        self._location = ""
        self._offset = 0
        self._unsure = False
        self._out_of_step = False
        self._beginnings = 0

    def carry_out(self) -> int:
        """Sends what is missing. Returns the blob's size; raises as :meth:`Session.ask`."""
        while not self._session.patience.borne(self._advance):
            pass
        self._told(self._size)
        return self._size

    def _advance(self) -> bool:
        """One piece further; whether that was the last."""
        if self._unsure and self._find_out():
            return True
        if not self._location:
            self._begin()
        self._unsure = True
        end = min(self._offset + self._piece, self._size)
        answer = self._finish() if end == self._size else self._add(end)
        if answer.status in _LOST:
            self._refused(answer)
            return False
        self._unsure = self._out_of_step = False
        self._offset = end
        return end == self._size

    def _begin(self) -> None:
        if self._beginnings == _BEGINNINGS:
            raise StepFailed(
                f"{self._place} lost the upload of {self._digest} {_BEGINNINGS} times.", "Run the same command again."
            )
        opened = self._session.once("POST", f"/v2/{self._repository}/blobs/uploads/", self._place, expect=(202,))
        self._beginnings += 1
        self._offset = 0
        least = opened.headers.get("oci-chunk-min-length", "")
        self._piece = max(self._piece, int(least)) if re.fullmatch("[0-9]{1,12}", least) else self._piece
        self._move(opened)

    def _add(self, end: int) -> Answer:
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{self._offset}-{end - 1}"}
        answer = self._session.once(
            "PATCH", self._location, self._place, expect=(202, *_LOST), headers=headers, body=self._slice(end)
        )
        if answer.status == 202:
            self._move(answer)
        return answer

    def _finish(self) -> Answer:
        headers = {"Content-Type": "application/octet-stream"}
        if 0 < self._offset < self._size:
            headers["Content-Range"] = f"{self._offset}-{self._size - 1}"
        join = "&" if "?" in self._location else "?"
        url = f"{self._location}{join}digest={self._digest}"
        body = self._slice(self._size)
        answer = self._session.once(
            "PUT", url, self._place, expect=(201, *_LOST), headers=headers, body=body if len(body) else b""
        )
        said = answer.headers.get("docker-content-digest", self._digest)
        if "DIGEST_INVALID" in answer.codes or answer.status == 201 and said != self._digest:
            raise self._wrong_digest()
        return answer

    def _wrong_digest(self) -> StepFailed:
        if digest_of(self._source) != self._digest:
            return StepFailed(f"{self._source} is no longer {self._digest}: it was damaged here.", "Run with --fresh.")
        return damaged(self._digest, self._place)

    def _refused(self, answer: Answer) -> None:
        """A piece was not taken: the registry is asked where it stands, once; then the upload begins again."""
        if answer.status == 416 and not self._out_of_step:
            self._out_of_step = True
            return
        if answer.status == 400 and not self._offset:
            raise refused(answer, self._place)
        if answer.status != 404:
            self._piece = max(self._piece, self._size)  # some registries take only whole blobs
        self._location = ""

    def _find_out(self) -> bool:
        """Asks how far the upload is after a fault; whether the blob has arrived after all."""
        blob = f"/v2/{self._repository}/blobs/{self._digest}"
        if self._session.once("HEAD", blob, self._place, expect=(200, 404)).status == 200:
            return True
        if self._location:
            self._resume(self._session.once("GET", self._location, self._place, expect=(204, 200, *_LOST)))
        self._unsure = False
        return False

    def _resume(self, state: Answer) -> None:
        found = _RANGE.fullmatch(state.headers.get("range", ""))
        last = int(found[1]) if found and state.status not in _LOST else 0
        # "0-0" says nothing or one byte, as the registry likes.
        if not 0 < last < self._size:
            self._location = ""
            return
        self._offset = last + 1
        self._move(state)

    def _move(self, answer: Answer) -> None:
        location = answer.headers.get("location", "") or self._location
        if not location:
            raise StepFailed(f"{self._place} opened an upload and did not say where.", "Look at that registry.")
        self._location = location

    def _slice(self, end: int) -> Slice:
        return Slice(self._source, self._offset, end, self._told)
