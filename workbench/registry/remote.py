"""A repository in a registry, by the OCI distribution specification 1.1."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote, urljoin

from workbench.errors import StepFailed, UsageError
from workbench.registry.errors import Answer, damaged, no_blob
from workbench.registry.http import SMALL, Patience, Session
from workbench.registry.layout import INDEX, canonical
from workbench.registry.reference import Reference
from workbench.registry.target import Descriptor, Progress, as_referrer
from workbench.registry.upload import PIECE, Upload
from workbench.store import unwritable

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)

_ACCEPT = {"Accept": ", ".join(MANIFESTS)}
_READ = 256 << 10
_PAGES = 100
_REFERRERS = 10_000
_RACES = 5
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def _nothing(done: int, total: int) -> None: ...


class Remote:
    """The repository that ``reference`` names; its tag and digest do not count. Threads may share it.

    ``piece`` is how many bytes one request of an upload carries. Every method raises MachineLacks where the registry
    cannot be reached, has no room or wants another account, and StepFailed where it answers what no registry should.
    """

    def __init__(
        self,
        reference: Reference,
        patience: Patience | None = None,
        *,
        piece: int = PIECE,
        session: Session | None = None,
    ) -> None:
        self._reference = reference
        self._repository = reference.repository
        self._piece = piece
        self._session = session or Session(reference.host, patience, endpoint=reference.endpoint)

    @property
    def name(self) -> str:
        return self._reference.name

    # --- blobs

    def has_blob(self, digest: str) -> bool:
        """Whether the registry says that it has the blob."""
        return self._ask("HEAD", self._blob(digest), expect=(200, 404)).status == 200

    def add_blob(self, source: Path, digest: str, progress: Progress | None = None) -> int:
        """Sends the file as the blob ``digest`` unless it is there already. Returns the bytes that were sent."""
        if self.has_blob(digest):
            return 0
        told, size = progress or _nothing, source.stat().st_size
        upload = Upload(
            self._session, self._repository, source, digest, lambda done: told(done, size), piece=self._piece
        )
        sent = upload.carry_out()
        arrived = self._ask("HEAD", self._blob(digest), expect=(200, 404))
        if arrived.status != 200 or arrived.headers.get("content-length", str(size)) != str(size):
            raise damaged(digest, self.name)
        return sent

    def mount_blob(self, digest: str, source: str) -> bool:
        """Whether the blob is there now because the repository ``source`` of the same registry has it."""
        host, _, repository = source.partition("/")
        if host != self._reference.host or repository == self._repository:
            return False
        self._session.authorization.also(f"repository:{repository}:pull")
        url = self._url(f"blobs/uploads/?mount={_checked(digest)}&from={quote(repository, safe='')}")
        answer = self._ask("POST", url, expect=(201, 202, 401, 403, 404))
        if answer.status == 202:
            # It has no such blob to share and waits for it instead.
            self._ask("DELETE", answer.headers.get("location", url), expect=(202, 204, 400, 404, 405))
        return answer.status == 201 and self.has_blob(digest)

    def read_blob(self, digest: str, limit: int) -> bytes:
        """A small blob, verified. Raises StepFailed where it is damaged or larger than ``limit`` bytes."""
        file = io.BytesIO()
        self._session.patience.borne(_Download(self, digest, file, limit, _nothing).go_on)
        return file.getvalue()

    def pull_blob(self, digest: str, into: Path, progress: Progress | None = None, *, limit: int | None = None) -> None:
        """Writes the blob to the file ``into``, verified while it streams; a broken connection is taken up again."""
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=into.parent, prefix=".new-", delete=False) as file:
                temporary = Path(file.name)
                download = _Download(self, digest, cast("BinaryIO", file), limit, progress or _nothing)
                self._session.patience.borne(download.go_on)
            temporary.chmod(0o644)
            temporary.replace(into)
        except OSError as error:
            raise unwritable(into, error) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)

    # --- manifests

    def resolve(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names, by a HEAD request; None where there is none."""
        answer = self._ask("HEAD", self._manifest(reference), expect=(200, 404), headers=_ACCEPT)
        said = answer.headers.get("docker-content-digest", "")
        if answer.status != 200 or _DIGEST.fullmatch(said):
            return said if answer.status == 200 else None
        return str(self.manifest(reference)[1]["digest"])

    def manifest(self, reference: str) -> tuple[bytes, Descriptor]:
        """The manifest (or index) that a tag or digest names, verified. Raises UsageError where there is none."""
        answer = self._ask("GET", self._manifest(reference), expect=(200, 404), headers=_ACCEPT)
        if answer.status == 404:
            raise UsageError(f"{self.name} has no image {reference!r}.", "Correct its tag or digest, or push it first.")
        digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        said = reference if _DIGEST.fullmatch(reference) else answer.headers.get("docker-content-digest", digest)
        if said != digest:
            raise damaged(said, self.name)
        media_type = _media_type(answer)
        return answer.body, {"mediaType": media_type, "digest": digest, "size": len(answer.body)}

    def add_manifest(self, data: bytes, media_type: str, tag: str | None = None) -> str:
        """Puts the manifest there under ``tag``, reads it back by its digest, and lists it with its subject."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        answer = self._ask(
            "PUT", self._manifest(tag or digest), expect=(201,), headers={"Content-Type": media_type}, body=data
        )
        if answer.headers.get("docker-content-digest", digest) != digest:
            raise damaged(digest, self.name)
        if self.manifest(digest)[0] != data:
            raise damaged(digest, self.name)
        document = json.loads(data)
        subject = document.get("subject")
        if subject is not None and "oci-subject" not in answer.headers:
            self._list_by_tag(str(subject["digest"]), as_referrer(document, digest, len(data), media_type))
        return digest

    # --- referrers

    def referrers(self, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """The referrers of ``digest``: as the registry lists them, or from the index under the tag of its digest."""
        found = self._listed(digest, artifact_type)
        if found is None:
            found = self._referrers_by_tag(digest)
        return [each for each in found if artifact_type is None or each.get("artifactType") == artifact_type]

    def _listed(self, digest: str, artifact_type: str | None) -> list[Descriptor] | None:
        """What the referrers API lists; None where the registry has none."""
        url = self._url(f"referrers/{_checked(digest)}")
        url += f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        found: list[Descriptor] = []
        for _ in range(_PAGES):
            answer = self._ask("GET", url, expect=(200, 404), headers={"Accept": INDEX})
            if answer.status == 404 or INDEX not in answer.headers.get("content-type", ""):
                return None
            found += self._entries(answer.body)
            further = re.search(r'<([^>]+)>\s*;[^,]*rel="?next"?', answer.headers.get("link", ""))
            if not further:
                return found
            if len(found) > _REFERRERS:
                break
            url = urljoin(f"{self._session.base}{url}", further[1])
        raise StepFailed(f"{self.name} lists the referrers of {digest} without end.", "Look at that registry.")

    def _referrers_by_tag(self, digest: str) -> list[Descriptor]:
        tag = _checked(digest).replace(":", "-")
        answer = self._ask("GET", self._manifest(tag), expect=(200, 404), headers=_ACCEPT)
        if answer.status == 404:
            return []
        if _media_type(answer) != INDEX:
            raise StepFailed(f"{self.name}:{tag} is no index of referrers.", "Remove that tag from the registry.")
        return self._entries(answer.body)

    def _list_by_tag(self, subject: str, descriptor: Descriptor) -> None:
        """Adds to the index under the subject's tag, and reads it again: another writer may replace it meanwhile."""
        tag = _checked(subject).replace(":", "-")
        for _ in range(_RACES):
            found = self._referrers_by_tag(subject)
            if any(each["digest"] == descriptor["digest"] for each in found):
                return
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*found, descriptor]}
            body = canonical(index)
            self._ask("PUT", self._manifest(tag), expect=(201,), headers={"Content-Type": INDEX}, body=body)
        if not any(each["digest"] == descriptor["digest"] for each in self._referrers_by_tag(subject)):
            raise StepFailed(
                f"Others write the referrers of {subject} at the same time.", "Run the same command again."
            )

    def _entries(self, body: bytes) -> list[Descriptor]:
        with contextlib.suppress(RecursionError, ValueError, KeyError, TypeError):
            entries = json.loads(body)["manifests"]
            if all(_DIGEST.fullmatch(entry["digest"]) and entry["size"] >= 0 for entry in entries):
                return list(entries)
        raise StepFailed(f"{self.name} has a list of referrers that cannot be read.", "Look at that registry.")

    # --- requests

    def _ask(self, method: str, url: str, **more: Any) -> Answer:
        return self._session.ask(method, url, self.name, **more)

    def _url(self, rest: str) -> str:
        return f"/v2/{self._repository}/{rest}"

    def _blob(self, digest: str) -> str:
        return self._url(f"blobs/{_checked(digest)}")

    def _manifest(self, reference: str) -> str:
        return self._url(f"manifests/{quote(reference, safe=':')}")

    def download(self, digest: str, start: int) -> Any:
        """The blob from its byte ``start`` on, as a context manager; see :meth:`Session.open`."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        return self._session.open(self._blob(digest), self.name, expect=(200, 206, 404), headers=headers)


class _Download:
    """A blob on its way here: hashed as it comes, taken up again from where it broke off."""

    def __init__(self, remote: Remote, digest: str, file: BinaryIO, limit: int | None, progress: Progress) -> None:
        self._remote = remote
        self._digest = digest
        self._file = file
        self._limit = limit
        self._progress = progress
        self._begin()

    def _begin(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._done = 0

    def go_on(self) -> None:
        """Reads what is missing. Raises Passing where the connection breaks, StepFailed for other bytes than asked."""
        if self._done and self._whole():
            return
        with self._remote.download(self._digest, self._done) as response:
            if response.status_code == 404:
                answer = Answer(404, {}, response.raw.read(SMALL))
                raise no_blob(answer, self._digest, self._remote.name)
            if self._done and not response.headers.get("Content-Range", "").startswith(f"bytes {self._done}-"):
                self._begin()
            length = response.headers.get("Content-Length", "")
            total = self._done + (int(length) if re.fullmatch("[0-9]{1,18}", length) else 0)
            if self._limit is not None and total > self._limit:
                raise self._too_large()
            while piece := response.raw.read(_READ):
                self._take(piece, total)
        if not self._whole():
            raise damaged(self._digest, self._remote.name)

    def _whole(self) -> bool:
        return f"sha256:{self._hash.hexdigest()}" == self._digest

    def _take(self, piece: bytes, total: int) -> None:
        self._hash.update(piece)
        self._done += len(piece)
        if self._limit is not None and self._done > self._limit:
            raise self._too_large()
        try:
            self._file.write(piece)
        except OSError as error:
            raise unwritable(Path(self._file.name), error) from error
        self._progress(self._done, max(total, self._done))

    def _too_large(self) -> StepFailed:
        return StepFailed(
            f"{self._digest} at {self._remote.name} is larger than the {self._limit} bytes it may have.",
            "Push it again.",
        )


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest!r} is no digest.", "A digest is sha256: and 64 hexadecimal digits.")
    return digest


def _media_type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip()
