"""What networks and overloaded registries do: nothing is lost, nothing is sent twice, and what is said helps."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from images import MANIFEST, artifact, image, noise, patience, sha256
from proxy import Proxy, Tokens
from services import Service

from workbench.errors import MachineLacks, StepFailed, WorkbenchError
from workbench.registry.http import Patience
from workbench.registry.layout import digest_of
from workbench.registry.push import in_place, push
from workbench.registry.reference import parse
from workbench.registry.remote import Remote
from workbench.steps import Emit

pytestmark = pytest.mark.integration

SIZE, PIECE = 1_000_000, 300_000


def pushed(parts: dict[str, Path], to: str, emit: Emit, waits: list[float] | None = None) -> dict[str, Any]:
    return dict(push(parts, {"to": to, "name": "digits", "tag": None}, emit, patience(waits)).values)


def remote(address: str, repository: str, **more: Any) -> Remote:
    return Remote(parse(f"{address}/{repository}"), patience(), **more)


@pytest.fixture
def blob(tmp_path: Path, repository: str) -> Path:
    """A file that no registry has."""
    (tmp_path / "blob").write_bytes(noise(SIZE, repository))
    return tmp_path / "blob"


# --- what passes


@pytest.mark.parametrize(
    ("method", "part"),
    [("HEAD", "/blobs/"), ("POST", ""), ("PATCH", ""), ("PUT", "/blobs/"), ("PUT", "/manifests/"), ("GET", "")],
)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_registry_that_fails_and_then_works_gets_the_image_once(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit, method: str, part: str, status: int, blob: Path
) -> None:
    faulty.answer(method, status, part, times=2)
    target = remote(faulty.address, repository, piece=PIECE)
    assert target.add_blob(blob, digest_of(blob)) == SIZE
    parts = image(tmp_path / "image", repository)
    pushed(parts, f"{faulty.address}/{repository}:1", emit)
    assert sum(rule.times for rule in faulty.rules) == 0
    assert faulty.got() == SIZE + sum(path.stat().st_size for name, path in parts.items() if name != "manifest")


def test_the_wait_that_a_registry_asks_for_is_kept(tmp_path: Path, faulty: Proxy, repository: str, emit: Emit) -> None:
    faulty.answer("HEAD", 429, "/manifests/", Retry_After="7")
    faulty.answer("HEAD", 429, "/manifests/", Retry_After="0")
    faulty.answer("HEAD", 429, "/manifests/", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    waits: list[float] = []
    pushed(image(tmp_path / "image", repository), f"{faulty.address}/{repository}:1", emit, waits)
    assert waits == [7, 0, 0]


def test_a_wait_of_hours_is_said_instead_of_kept(tmp_path: Path, faulty: Proxy, repository: str, emit: Emit) -> None:
    faulty.answer("HEAD", 429, times=100, Retry_After="21600")
    waits: list[float] = []
    with pytest.raises(MachineLacks, match="allows no more requests"):
        pushed(image(tmp_path / "image", repository), f"{faulty.address}/{repository}:1", emit, waits)
    assert waits == []


def test_waits_grow(faulty: Proxy, repository: str) -> None:
    faulty.answer("HEAD", 503, times=100)
    waits: list[float] = []
    target = Remote(parse(f"{faulty.address}/{repository}"), patience(waits, attempts=12))
    with pytest.raises(MachineLacks, match="fails \\(503\\)"):
        target.has_blob(sha256(b""))
    assert len(waits) == 11
    assert max(waits) <= 10
    assert sum(waits[6:]) > sum(waits[:3])


# --- interruptions


def test_an_upload_cut_within_a_piece_goes_on_where_the_registry_has_it(
    faulty: Proxy, repository: str, blob: Path
) -> None:
    """The second piece is cut before the registry gets it, as behind a proxy that collects a request first."""
    faulty.change("PATCH")
    faulty.cut("PATCH", after=100_000, forwarded=False)
    assert remote(faulty.address, repository, piece=PIECE).add_blob(blob, digest_of(blob)) == SIZE
    assert faulty.got() == SIZE
    assert faulty.methods().count("POST") == 1
    assert "GET" in faulty.methods()


def test_the_last_piece_goes_on_too(faulty: Proxy, repository: str, blob: Path) -> None:
    faulty.cut("PUT", after=50_000, forwarded=False, times=2)
    assert remote(faulty.address, repository, piece=PIECE).add_blob(blob, digest_of(blob)) == SIZE
    assert faulty.got() == SIZE
    assert faulty.methods().count("POST") == 1


def test_a_blob_whose_arrival_was_not_heard_of_is_not_sent_again(faulty: Proxy, repository: str, blob: Path) -> None:
    faulty.lose_answer("PUT", "/blobs/")
    assert remote(faulty.address, repository, piece=PIECE).add_blob(blob, digest_of(blob)) == SIZE
    assert faulty.got() == SIZE
    assert faulty.methods().count("PUT") == 1


def test_an_upload_that_the_registry_dropped_begins_again(faulty: Proxy, repository: str, blob: Path) -> None:
    """Docker's registry 2.8 drops an upload of which it got part of a piece."""
    target = remote(faulty.address, repository, piece=PIECE)
    faulty.cut("PATCH", after=100_000, forwarded=True)
    assert target.add_blob(blob, digest_of(blob)) == SIZE
    assert faulty.methods().count("POST") == 2
    target.pull_blob(digest_of(blob), blob.with_name("back"))
    assert blob.with_name("back").read_bytes() == blob.read_bytes()


def test_an_upload_that_is_always_dropped_ends(faulty: Proxy, repository: str, blob: Path) -> None:
    faulty.cut("PATCH", after=100_000, forwarded=True, times=100)
    with pytest.raises((MachineLacks, StepFailed), match=r"broke off|lost the upload"):
        remote(faulty.address, repository, piece=PIECE).add_blob(blob, digest_of(blob))
    assert faulty.methods().count("POST") <= 5


@pytest.mark.parametrize("status", [400, 416])
def test_a_registry_that_takes_only_whole_blobs_gets_them_whole(
    faulty: Proxy, repository: str, blob: Path, status: int
) -> None:
    faulty.change("PATCH")
    faulty.answer("PATCH", status, times=2)
    assert remote(faulty.address, repository, piece=PIECE).add_blob(blob, digest_of(blob)) == SIZE
    assert faulty.got() == PIECE + SIZE


def test_what_arrived_before_a_failure_is_not_sent_by_the_next_push(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    to = f"{faulty.address}/{repository}:1"
    faulty.answer("PUT", 500, "/manifests/", times=4)
    with pytest.raises(MachineLacks, match=r"fails \(500\)"):
        pushed(parts, to, emit)
    got = faulty.got()
    values = pushed(parts, to, emit)
    assert (values["sent"], values["skipped"]) == (1, 3)
    assert faulty.got() == got


def test_a_pull_goes_on_where_it_broke_off(faulty: Proxy, repository: str, blob: Path) -> None:
    target = remote(faulty.address, repository)
    target.add_blob(blob, digest_of(blob))
    faulty.seen.clear()
    faulty.cut_answer("/blobs/", after=600_000)
    faulty.cut_answer("/blobs/", after=200_000)
    target.pull_blob(digest_of(blob), blob.with_name("back"))
    assert blob.with_name("back").read_bytes() == blob.read_bytes()
    starts = [int(one.headers.get("Range", "bytes=0-")[6:-1]) for one in faulty.seen]
    assert starts[0] == 0 < starts[1] < starts[2]


def test_a_pull_that_stays_broken_leaves_no_file(faulty: Proxy, repository: str, blob: Path) -> None:
    target = remote(faulty.address, repository)
    target.add_blob(blob, digest_of(blob))
    faulty.cut_answer("/blobs/", after=100, times=100)
    with pytest.raises(MachineLacks, match="broke off"):
        target.pull_blob(digest_of(blob), blob.with_name("back"))
    assert [path.name for path in blob.parent.iterdir() if path.name not in ("blob", "home0")] == []


# --- what does not pass


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, MachineLacks, "wants an account"),
        (403, MachineLacks, "does not allow"),
        (404, MachineLacks, "has no"),
        (413, MachineLacks, "takes no blob of this size"),
        (418, StepFailed, "answered 418"),
        (507, MachineLacks, "no room"),
    ],
)
def test_a_refusal_is_said_once_with_what_to_do(
    tmp_path: Path,
    faulty: Proxy,
    repository: str,
    emit: Emit,
    status: int,
    kind: type[WorkbenchError],
    said: str,
) -> None:
    faulty.answer("POST", status, times=100, WWW_Authenticate='Basic realm="x"')
    waits: list[float] = []
    with pytest.raises(kind, match=said) as caught:
        pushed(image(tmp_path / "image", repository), f"{faulty.address}/{repository}:1", emit, waits)
    assert faulty.address in caught.value.message
    assert caught.value.cure
    assert waits == []


def test_a_full_disk_there_is_said_and_the_next_push_goes_on(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    to = f"{faulty.address}/{repository}:1"
    detail = {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/secret/path", "Err": 28}}
    said = {"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": detail}]}
    body = json.dumps(said, separators=(",", ":")).encode()
    big = digest_of(parts["layer-00"])
    faulty.answer("PUT", 500, big, body=body)
    with pytest.raises(MachineLacks, match="no room") as caught:
        pushed(parts, to, emit)
    assert "/secret/path" not in str(caught.value)
    got = faulty.got()
    values = pushed(parts, to, emit)
    assert values["sent"] >= 2
    assert faulty.got() == sum(path.stat().st_size for name, path in parts.items() if name != "manifest") >= got


@pytest.mark.parametrize("part", ["/blobs/", "/manifests/"])
def test_another_digest_than_ours_is_damage(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit, part: str
) -> None:
    faulty.change("PUT", part, Docker_Content_Digest=sha256(b"other"))
    with pytest.raises(StepFailed, match="other bytes than its digest says"):
        pushed(image(tmp_path / "image", repository), f"{faulty.address}/{repository}:1", emit)


def test_a_part_that_was_damaged_here_is_named(tmp_path: Path, faulty: Proxy, repository: str, emit: Emit) -> None:
    parts = image(tmp_path / "image", repository)
    parts["layer-01"].write_bytes(noise(parts["layer-01"].stat().st_size, "other"))
    with pytest.raises(StepFailed, match=r"layer-01 is no longer sha256"):
        pushed(parts, f"{faulty.address}/{repository}:1", emit)


def test_a_blob_of_other_bytes_is_not_pulled(faulty: Proxy, repository: str, blob: Path) -> None:
    target = remote(faulty.address, repository)
    faulty.answer("GET", 200, "/blobs/", times=2, body=b"other")
    with pytest.raises(StepFailed, match="other bytes than its digest says"):
        target.pull_blob(digest_of(blob), blob.with_name("back"))
    assert not blob.with_name("back").exists()
    faulty.answer("GET", 200, "/manifests/", body=b"{}")
    with pytest.raises(StepFailed, match="other bytes than its digest says"):
        target.manifest(digest_of(blob))


def test_a_blob_that_is_not_there_is_said_and_not_taken_for_its_repository(faulty: Proxy, repository: str) -> None:
    target, digest = remote(faulty.address, repository), sha256(b"not there")
    name = {"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known to registry"}]}
    faulty.answer("GET", 404, "/blobs/", body=json.dumps(name).encode())
    with pytest.raises(MachineLacks, match=f"has no {faulty.address}/{repository}"):
        target.read_blob(digest, 10)
    with pytest.raises(StepFailed, match=f"{repository} has no blob {digest}"):
        target.read_blob(digest, 10)  # the registry itself, by now
    blob = {"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown to registry"}]}
    for body in (json.dumps(blob).encode(), b"<html>not found</html>"):
        faulty.answer("GET", 404, "/blobs/", body=body)
        with pytest.raises(StepFailed, match=f"{repository} has no blob {digest}"):
            target.read_blob(digest, 10)


def test_an_answer_without_end_is_not_read_to_its_end(faulty: Proxy, repository: str) -> None:
    faulty.answer("GET", 200, "/manifests/", body=b" " * (5 << 20))
    with pytest.raises(StepFailed, match="more than 4 MiB"):
        remote(faulty.address, repository).manifest("1")


def test_a_registry_that_does_not_run_is_said_after_some_tries(tmp_path: Path, emit: Emit, repository: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    waits: list[float] = []
    parts = image(tmp_path / "image", repository)
    with pytest.raises(MachineLacks, match=f"{address} refuses connections"):
        pushed(parts, f"{address}/{repository}:1", emit, waits)
    assert len(waits) % 3 == 0
    params = {"to": f"{address}/{repository}:1", "name": "digits", "tag": None}
    assert in_place(parts, params, tmp_path, digest_of) is None


def test_a_registry_that_does_not_answer_is_said(repository: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        target = Remote(parse(f"{address}/{repository}"), Patience(attempts=1, answer_s=0.05))
        with pytest.raises(MachineLacks, match="does not answer in time"):
            target.has_blob(sha256(b""))


def test_a_name_that_nobody_knows_is_said(emit: Emit) -> None:
    with pytest.raises(MachineLacks, match=r"nobody\.invalid"):
        remote("nobody.invalid", "a").has_blob(sha256(b""))


# --- tokens


def account(monkeypatch: pytest.MonkeyPatch, folder: Path, host: str, text: str) -> None:
    (folder / "docker").mkdir(exist_ok=True)
    auths = {host: {"auth": base64.b64encode(text.encode()).decode()}}
    (folder / "docker" / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))


@pytest.fixture
def with_tokens(faulty: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The proxy wants tokens, which it gives for an account that we have."""
    faulty.tokens = Tokens("ali:open sesame")
    account(monkeypatch, tmp_path, faulty.address, "ali:open sesame")
    return faulty


def test_a_push_gets_by_on_two_tokens(tmp_path: Path, with_tokens: Proxy, repository: str, emit: Emit) -> None:
    """One to look what is there, one to send the rest."""
    pushed(image(tmp_path / "image", repository), f"{with_tokens.address}/{repository}:1", emit)
    assert with_tokens.tokens is not None
    assert with_tokens.tokens.asked <= 3


def test_a_mount_asks_for_a_token_for_both_repositories(
    tmp_path: Path, with_tokens: Proxy, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    source = f"{with_tokens.address}/{repository}"
    pushed(parts, f"{source}:1", emit)
    target = remote(with_tokens.address, f"{repository}/copy")
    assert target.mount_blob(digest_of(parts["layer-00"]), source) is True
    assert with_tokens.tokens is not None
    scopes = list(with_tokens.tokens.given.values())[-1]
    assert scopes >= {f"repository:{repository}:pull", f"repository:{repository}/copy:pull,push"}


def test_a_token_that_ends_within_a_blob_is_fetched_anew(with_tokens: Proxy, repository: str, blob: Path) -> None:
    assert with_tokens.tokens is not None
    tokens = with_tokens.tokens
    expired: list[int] = []

    def told(done: int, total: int) -> None:
        if done > 2 * PIECE and not expired:
            expired.append(done)
            tokens.expire()

    assert remote(with_tokens.address, repository, piece=PIECE).add_blob(blob, digest_of(blob), told) == SIZE
    assert expired
    assert tokens.asked == 3
    assert with_tokens.got() == SIZE


def test_a_token_is_replaced_before_it_ends(with_tokens: Proxy, repository: str) -> None:
    now = [0.0]
    target = Remote(parse(f"{with_tokens.address}/{repository}"), Patience(clock=lambda: now[0]))
    target.has_blob(sha256(b"a"))
    target.has_blob(sha256(b"b"))
    assert with_tokens.tokens is not None
    assert with_tokens.tokens.asked == 1
    now[0] = 0.95 * with_tokens.tokens.ends_s
    refused = [one.status for one in with_tokens.seen].count(401)
    target.has_blob(sha256(b"c"))
    assert with_tokens.tokens.asked == 2
    assert [one.status for one in with_tokens.seen].count(401) == refused


def test_an_account_that_gets_no_token_is_said_without_it(
    tmp_path: Path, with_tokens: Proxy, repository: str, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(monkeypatch, tmp_path, with_tokens.address, "ali:not that")
    with pytest.raises(MachineLacks, match="refuses the account") as caught:
        pushed(image(tmp_path / "image", repository), f"{with_tokens.address}/{repository}:1", emit)
    assert "docker login" in caught.value.cure
    assert not any(word in repr(caught.value) + str(caught.value.as_record()) for word in ("not that", "secret-token"))


def test_a_token_that_is_refused_is_fetched_anew_once(with_tokens: Proxy, repository: str) -> None:
    with_tokens.answer("HEAD", 401, times=100, WWW_Authenticate=f'Bearer realm="http://{with_tokens.address}/token"')
    assert with_tokens.tokens is not None
    with_tokens.tokens.allow = lambda *_: True  # type: ignore[method-assign]
    with pytest.raises(MachineLacks, match="401"):
        remote(with_tokens.address, repository).has_blob(sha256(b""))
    assert with_tokens.tokens.asked == 1


# --- where credentials go


def test_credentials_do_not_follow_to_another_host(
    with_tokens: Proxy, registry: Service, repository: str, blob: Path
) -> None:
    """Registries point to storage elsewhere, which gets the request and no more."""
    from proxy import running

    target = remote(with_tokens.address, repository)
    target.add_blob(blob, digest_of(blob))
    with running(registry.address) as storage:
        path = f"/v2/{repository}/blobs/{digest_of(blob)}"
        with_tokens.answer("GET", 307, "/blobs/", Location=f"http://{storage.address}{path}")
        target.pull_blob(digest_of(blob), blob.with_name("back"))
        assert blob.with_name("back").read_bytes() == blob.read_bytes()
        assert [one.path for one in storage.seen] == [path]
        assert "Authorization" not in storage.seen[0].headers
    assert "Authorization" in with_tokens.seen[-1].headers


@pytest.mark.parametrize(
    "location", ["http://storage.example/x?signature=secret", "file:///etc/passwd", "//a.example/x"]
)
def test_an_address_without_tls_is_not_followed(faulty: Proxy, repository: str, location: str) -> None:
    faulty.answer("GET", 307, "/blobs/", Location=location)
    with pytest.raises(StepFailed, match="without TLS") as caught:
        remote(faulty.address, repository).read_blob(sha256(b""), 10)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", ["https://[storage/x", "https://storage.example:port/x", "//[/x"])
def test_what_is_no_address_is_not_followed(faulty: Proxy, repository: str, location: str) -> None:
    faulty.answer("GET", 307, "/blobs/", Location=location)
    with pytest.raises(StepFailed, match="no address"):
        remote(faulty.address, repository).read_blob(sha256(b""), 10)
    faulty.answer("POST", 401, WWW_Authenticate=f'Bearer realm="{location}",service="x"')
    with pytest.raises(StepFailed, match="no address"):
        remote(faulty.address, repository).mount_blob(sha256(b""), f"{faulty.address}/other")


def test_a_registry_that_points_in_circles_is_left(faulty: Proxy, repository: str) -> None:
    faulty.answer("HEAD", 307, "/blobs/", times=100, Location=f"/v2/{repository}/blobs/{sha256(b'')}")
    with pytest.raises(StepFailed, match="without end"):
        remote(faulty.address, repository).has_blob(sha256(b""))


def test_an_account_is_not_sent_without_tls_to_a_token_server_elsewhere(with_tokens: Proxy, repository: str) -> None:
    with_tokens.tokens = None
    with_tokens.answer("HEAD", 401, WWW_Authenticate='Bearer realm="http://tokens.example/get",service="x"')
    with pytest.raises(MachineLacks, match=r"without TLS to tokens\.example"):
        remote(with_tokens.address, repository).has_blob(sha256(b""))


# --- referrers, by a registry that lists them: a stand-in answers what Docker's 2.8 cannot


def test_a_registry_that_lists_referrers_is_asked_page_by_page(faulty: Proxy, repository: str) -> None:
    """The proxy stands in for a registry with the referrers API."""
    subject = sha256(b"subject")

    def page(*digests: str) -> bytes:
        entries = [{"mediaType": MANIFEST, "digest": each, "size": 1, "artifactType": "a/b"} for each in digests]
        return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()

    kind = "application/vnd.oci.image.index.v1+json"
    link = f'</v2/{repository}/referrers/{subject}?page=2>; rel="next"'
    faulty.answer("GET", 200, "/referrers/", body=page(sha256(b"1")), Content_Type=kind, Link=link)
    faulty.answer("GET", 200, "page=2", body=page(sha256(b"2")), Content_Type=kind)
    found = remote(faulty.address, repository).referrers(subject)
    assert [each["digest"] for each in found] == [sha256(b"1"), sha256(b"2")]
    faulty.answer("GET", 200, "/referrers/", body=page(sha256(b"1")), Content_Type=kind)
    assert remote(faulty.address, repository).referrers(subject, "other/kind") == []


def test_a_registry_that_lists_a_subject_by_itself_needs_no_tag(tmp_path: Path, faulty: Proxy, repository: str) -> None:
    """The proxy stands in for such a registry: it says so in a header."""
    target, subject = remote(faulty.address, repository), sha256(b"subject")
    (tmp_path / "empty").write_bytes(b"{}")
    target.add_blob(tmp_path / "empty", sha256(b"{}"))
    faulty.change("PUT", "/manifests/", OCI_Subject=subject)
    target.add_manifest(artifact(subject, "text/x"), MANIFEST)
    assert target.resolve(subject.replace(":", "-")) is None


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b"[]", b'{"manifests":[{"digest":"x","size":1}]}', b'{"manifests":{}}x']
)
def test_a_list_of_referrers_that_is_none_is_said(faulty: Proxy, repository: str, body: bytes) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    faulty.answer("GET", 200, "/referrers/", body=body, Content_Type=kind)
    with pytest.raises(StepFailed, match="cannot be read"):
        remote(faulty.address, repository).referrers(sha256(b""))
