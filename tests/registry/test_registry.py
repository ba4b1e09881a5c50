"""A real registry: pushed to, pulled from, and read by others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ACCOUNT
from images import MANIFEST, artifact, image, noise, patience, sha256
from proxy import Proxy
from services import Service

from workbench.errors import MachineLacks, StepFailed, UsageError
from workbench.registry.layout import INDEX, digest_of
from workbench.registry.push import in_place, push
from workbench.registry.reference import parse
from workbench.registry.remote import Remote
from workbench.registry.where import open_target
from workbench.steps import Emit

pytestmark = pytest.mark.integration


def pushed(parts: dict[str, Path], to: str, emit: Emit, **more: Any) -> dict[str, Any]:
    return dict(push(parts, {"to": to, "name": "digits", "tag": None, **more}, emit, patience()).values)


def remote(address: str, repository: str, **more: Any) -> Remote:
    return Remote(parse(f"{address}/{repository}"), patience(), **more)


def test_an_image_arrives_and_another_tool_reads_it(
    tmp_path: Path, registry: Service, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    name = f"{registry.address}/{repository}"
    values = pushed(parts, f"{name}:1.4", emit)
    digest = digest_of(parts["manifest"])
    assert {part["state"] for part in values.pop("parts")} == {"sent"}
    assert values == {
        "reference": f"{name}:1.4",
        "by_digest": f"{name}@{digest}",
        "digest": digest,
        "sent": 4,
        "skipped": 0,
        "mounted": 0,
        "bytes_sent": sum(path.stat().st_size for path in parts.values()),
    }
    inspect = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{values['by_digest']}"]
    assert subprocess.run(inspect, check=True, capture_output=True).stdout == parts["manifest"].read_bytes()
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{values['by_digest']}"]
    subprocess.run([*copy, f"dir:{tmp_path}/copy"], check=True, capture_output=True)
    copied = {path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert {path.read_bytes() for path in parts.values()} <= copied


def test_an_unchanged_image_takes_head_requests_only(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    to = f"{faulty.address}/{repository}:1"
    pushed(parts, to, emit)
    faulty.seen.clear()
    values = pushed(parts, to, emit)
    assert (values["sent"], values["skipped"], values["bytes_sent"]) == (0, 4, 0)
    assert set(faulty.methods()) == {"HEAD"}
    faulty.seen.clear()
    assert in_place(parts, {"to": to, "name": "digits", "tag": None}, tmp_path, digest_of, patience()) == values
    assert set(faulty.methods()) == {"HEAD"}


def test_only_the_layer_that_changed_is_sent(tmp_path: Path, faulty: Proxy, repository: str, emit: Emit) -> None:
    first = image(tmp_path / "first", repository, (300_000, 5_000))
    to = f"{faulty.address}/{repository}:1"
    pushed(first, to, emit)
    second = image(tmp_path / "second", repository, (300_000, 6_000))
    params = {"to": to, "name": "digits", "tag": None}
    assert in_place(second, params, tmp_path, digest_of, patience()) is None
    before = faulty.got()
    values = pushed(second, to, emit)
    assert (values["sent"], values["skipped"]) == (2, 2)
    assert faulty.got() - before == 6_000


def test_few_connections_carry_a_push(tmp_path: Path, faulty: Proxy, repository: str, emit: Emit) -> None:
    pushed(image(tmp_path / "image", repository), f"{faulty.address}/{repository}:1", emit)
    assert len(faulty.seen) > 10
    assert faulty.connections <= 4


def test_a_blob_of_another_repository_is_mounted_and_not_sent(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    pushed(parts, f"{faulty.address}/{repository}:1", emit)
    before = faulty.got()
    values = pushed(parts, f"{faulty.address}/{repository}/copy:1", emit, mount=[f"{faulty.address}/{repository}"])
    assert (values["mounted"], values["sent"]) == (3, 1)
    assert faulty.got() == before


def test_what_no_other_repository_has_is_sent(tmp_path: Path, registry: Service, repository: str, emit: Emit) -> None:
    parts = image(tmp_path / "image", repository)
    to = f"{registry.address}/{repository}:1"
    values = pushed(parts, to, emit, mount=[f"{registry.address}/{repository}/none", "elsewhere.example/a"])
    assert (values["mounted"], values["sent"]) == (0, 4)


def test_a_large_blob_goes_in_pieces_and_arrives_whole(tmp_path: Path, faulty: Proxy, repository: str) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(noise(1_000_000, repository))
    told: list[tuple[int, int]] = []
    target = remote(faulty.address, repository, piece=300_000)
    assert target.add_blob(blob, digest_of(blob), lambda done, total: told.append((done, total))) == 1_000_000
    assert faulty.methods().count("PATCH") == 3
    assert told == sorted(told)
    assert told[-1] == (1_000_000, 1_000_000)
    target.pull_blob(digest_of(blob), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()
    assert target.add_blob(blob, digest_of(blob)) == 0


def test_an_empty_blob_arrives(tmp_path: Path, registry: Service, repository: str) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"")
    target = remote(registry.address, repository)
    target.add_blob(blob, digest_of(blob))
    assert target.read_blob(digest_of(blob), 10) == b""


def test_progress_covers_every_layer_and_ends_at_the_end(tmp_path: Path, registry: Service, repository: str) -> None:
    told: list[tuple[float, float, str]] = []

    class Listening:
        scratch = tmp_path

        def progress(self, done: float, total: float, text: str = "") -> None:
            told.append((done, total, text))

        def note(self, text: str) -> None: ...
        def sample(self, kind: str, values: Any) -> None: ...

    parts = image(tmp_path / "image", repository)
    size = sum(path.stat().st_size for name, path in parts.items() if name != "manifest")
    pushed(parts, f"{registry.address}/{repository}:1", Listening())
    assert told[-1][:2] == (size, size)
    assert any("layer 1 of 2" in text for *_, text in told)
    assert len(told) < 110


# --- reading


def test_a_manifest_is_read_by_tag_and_by_digest(
    tmp_path: Path, registry: Service, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    values = pushed(parts, f"{registry.address}/{repository}:1", emit)
    for reference in (values["reference"], values["by_digest"]):
        target, name = open_target(reference)
        data, descriptor = target.manifest(name)
        assert data == parts["manifest"].read_bytes()
        assert descriptor == {"mediaType": MANIFEST, "digest": values["digest"], "size": len(data)}
        assert target.resolve(name) == values["digest"]


def test_an_image_that_is_not_there_is_named(registry: Service, repository: str) -> None:
    target = remote(registry.address, repository)
    assert target.resolve("1.4") is None
    with pytest.raises(UsageError, match=rf"{repository} has no image '1\.4'"):
        target.manifest("1.4")


def test_a_blob_larger_than_it_may_be_is_not_taken(tmp_path: Path, registry: Service, repository: str) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(noise(1000, repository))
    target = remote(registry.address, repository)
    target.add_blob(blob, digest_of(blob))
    assert target.read_blob(digest_of(blob), 1000) == blob.read_bytes()
    with pytest.raises(StepFailed, match="larger than the 999 bytes"):
        target.read_blob(digest_of(blob), 999)
    with pytest.raises(StepFailed, match="larger than the 999 bytes"):
        target.pull_blob(digest_of(blob), tmp_path / "back", limit=999)
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name or "new" in path.name] == []


def test_a_blob_that_cannot_be_written_here_is_this_machines_lack(
    tmp_path: Path, registry: Service, repository: str
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(noise(1000, repository))
    target = remote(registry.address, repository)
    target.add_blob(blob, digest_of(blob))
    with pytest.raises(MachineLacks, match="cannot be written"):
        target.pull_blob(digest_of(blob), tmp_path / "none" / "back")


def test_what_is_no_digest_never_becomes_a_request(faulty: Proxy, repository: str) -> None:
    with pytest.raises(UsageError, match="is no digest"):
        remote(faulty.address, repository).has_blob("sha256:../../x")
    assert faulty.seen == []


# --- referrers


def test_referrers_are_listed_by_tag_where_the_registry_has_no_list(
    tmp_path: Path, faulty: Proxy, repository: str, emit: Emit
) -> None:
    """Docker's registry 2.8 has none: the index under the tag of the subject's digest is what is written and read."""
    digest = pushed(image(tmp_path / "image", repository), f"{faulty.address}/{repository}:1", emit)["digest"]
    target = remote(faulty.address, repository)
    assert target.referrers(digest) == []
    (tmp_path / "empty").write_bytes(b"{}")
    target.add_blob(tmp_path / "empty", sha256(b"{}"))
    listed = {}
    for kind in ("text/sbom", "text/lock"):
        data = artifact(digest, kind, note=kind)
        assert target.add_manifest(data, MANIFEST) == sha256(data)
        target.add_manifest(data, MANIFEST)  # again: it is listed once
        listed[kind] = {
            "mediaType": MANIFEST,
            "digest": sha256(data),
            "size": len(data),
            "artifactType": kind,
            "annotations": {"note": kind},
        }
    assert target.referrers(digest) == list(listed.values())
    assert target.referrers(digest, "text/lock") == [listed["text/lock"]]
    raw, descriptor = target.manifest(digest.replace(":", "-"))
    assert descriptor["mediaType"] == INDEX
    assert len(json.loads(raw)["manifests"]) == 2


def test_a_tag_that_holds_no_list_of_referrers_is_left_alone(
    tmp_path: Path, registry: Service, repository: str, emit: Emit
) -> None:
    parts = image(tmp_path / "image", repository)
    name = f"{registry.address}/{repository}"
    digest = pushed(parts, f"{name}:1", emit)["digest"]
    pushed(parts, f"{name}:{digest.replace(':', '-')}", emit)
    with pytest.raises(StepFailed, match="no index of referrers"):
        remote(registry.address, repository).referrers(digest)


# --- accounts


def configured(monkeypatch: pytest.MonkeyPatch, folder: Path, document: dict[str, Any]) -> None:
    """Docker's configuration, in a folder of its own."""
    (folder / "docker").mkdir(exist_ok=True)
    (folder / "docker" / "config.json").write_text(json.dumps(document))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "docker"))


def with_password(host: str, account: str) -> dict[str, Any]:
    import base64

    return {"auths": {host: {"auth": base64.b64encode(account.encode()).decode()}}}


def test_an_account_of_dockers_configuration_opens_the_registry(
    tmp_path: Path, guarded: Service, repository: str, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(monkeypatch, tmp_path, with_password(guarded.address, ACCOUNT))
    parts = image(tmp_path / "image", repository)
    assert pushed(parts, f"{guarded.address}/{repository}:1", emit)["sent"] == 4


def test_a_credential_helper_opens_the_registry(
    tmp_path: Path, guarded: Service, repository: str, emit: Emit, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _, password = ACCOUNT.partition(":")
    helper = tmp_path / "bin" / "docker-credential-mine"
    helper.parent.mkdir()
    said = json.dumps({"ServerURL": guarded.address, "Username": user, "Secret": password})
    helper.write_text(f"#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {guarded.address}' ] && echo '{said}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(helper.parent), prepend=":")
    configured(monkeypatch, tmp_path, {"credHelpers": {guarded.address: "mine"}})
    parts = image(tmp_path / "image", repository)
    assert pushed(parts, f"{guarded.address}/{repository}:1", emit)["sent"] == 4


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "none is configured"),
        ({"auths": "wrong"}, "refuses the account"),
        ({"credHelpers": "missing"}, "credential helper fails"),
        ({"auths": "damaged"}, "cannot be read"),
    ],
)
def test_an_account_that_opens_nothing_is_said_without_it(
    tmp_path: Path,
    guarded: Service,
    repository: str,
    emit: Emit,
    monkeypatch: pytest.MonkeyPatch,
    document: dict[str, str],
    said: str,
) -> None:
    host = guarded.address
    written: dict[str, Any] = {
        "": {},
        "wrong": with_password(host, "ali:not that"),
        "missing": {"credHelpers": {host: "which-nobody-has"}},
        "damaged": {"auths": {host: {"auth": "bm8gY29sb24="}}},
    }
    configured(monkeypatch, tmp_path, written["".join(document.values())])
    to = f"{host}/{repository}:1"
    parts = image(tmp_path / "image", repository)
    with pytest.raises(MachineLacks, match=said) as caught:
        pushed(parts, to, emit)
    assert host in caught.value.message
    assert f"docker login {host}" in caught.value.cure
    assert not any(word in str(caught.value) for word in ("not that", "bm8g", "Basic"))
    assert in_place(parts, {"to": to, "name": "digits", "tag": None}, tmp_path, digest_of, patience()) is None


def test_a_users_netrc_is_not_asked(
    tmp_path: Path, guarded: Service, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _, password = ACCOUNT.partition(":")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {user} password {password.replace(' ', '')}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    configured(monkeypatch, tmp_path, with_password(guarded.address, ACCOUNT))
    assert remote(guarded.address, repository).has_blob(sha256(b"x")) is False
