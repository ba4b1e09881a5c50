"""A layout folder as a place where images are kept: the same interface as a registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from images import MANIFEST, artifact, image, sha256

from workbench.errors import MachineLacks, StepFailed, UsageError
from workbench.provenance.referrers import newest
from workbench.registry.folder import Folder
from workbench.registry.layout import REF_NAME, Layout, digest_of
from workbench.registry.push import push
from workbench.registry.where import open_target
from workbench.steps import Emit


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    return image(tmp_path / "image", "seed")


@pytest.fixture
def target(tmp_path: Path, parts: dict[str, Path], emit: Emit) -> Folder:
    """A layout with one image, ``digits``."""
    push(parts, {"to": f"oci:{tmp_path}/layout", "name": "digits", "tag": None}, emit)
    return Folder(tmp_path / "layout")


def test_an_image_is_found_by_tag_and_by_digest(tmp_path: Path, target: Folder, parts: dict[str, Path]) -> None:
    digest = digest_of(parts["manifest"])
    for to in (f"oci:layout:digits@{digest}", "oci:layout:digits", "oci:layout"):
        found, name = open_target(to, tmp_path)
        assert found.name == "oci:layout"
        assert found.resolve(name) == digest
        data, descriptor = found.manifest(name)
        assert data == parts["manifest"].read_bytes()
        assert descriptor == {"mediaType": MANIFEST, "digest": digest, "size": len(data)}


def test_a_layout_of_several_images_wants_to_know_which(target: Folder, tmp_path: Path) -> None:
    target.add_manifest(b'{"a":1}', MANIFEST, "other")
    with pytest.raises(UsageError, match="does not say which image") as caught:
        open_target("oci:layout", tmp_path)
    assert "digits, other" in caught.value.cure


def test_an_image_that_is_not_there_is_named_with_those_that_are(target: Folder) -> None:
    assert target.resolve("1.5") is None
    with pytest.raises(UsageError, match=r"has no image '1\.5'") as caught:
        target.manifest("1.5")
    assert "digits" in caught.value.cure


def test_a_blob_comes_out_as_it_went_in(tmp_path: Path, target: Folder, parts: dict[str, Path]) -> None:
    digest = digest_of(parts["layer-00"])
    told: list[tuple[int, int]] = []
    target.pull_blob(digest, tmp_path / "back", lambda *seen: told.append(seen))
    assert (tmp_path / "back").read_bytes() == target.read_blob(digest, 1 << 20) == parts["layer-00"].read_bytes()
    assert told == [(300_000, 300_000)]
    with pytest.raises(MachineLacks, match="cannot be written"):
        target.pull_blob(digest, tmp_path / "none" / "back")


@pytest.mark.parametrize("what", ["rot", "missing", "large"])
def test_a_blob_that_is_not_what_was_asked_for_does_not_come_out(
    tmp_path: Path, target: Folder, parts: dict[str, Path], what: str
) -> None:
    digest = digest_of(parts["layer-01"])
    if what == "rot":
        target.layout.blob(digest).write_bytes(b"rot")
    if what == "missing":
        target.layout.blob(digest).unlink()
    with pytest.raises(StepFailed):
        target.read_blob(digest, 10)
    with pytest.raises(StepFailed):
        target.pull_blob(digest, tmp_path / "back", limit=10)
    assert not (tmp_path / "back").exists()


def test_a_manifest_that_rotted_does_not_come_out(target: Folder, parts: dict[str, Path]) -> None:
    target.layout.blob(digest_of(parts["manifest"])).write_bytes(b"{}")
    assert target.resolve("digits") is None
    with pytest.raises(StepFailed, match="other bytes"):
        target.manifest("digits")


def test_a_manifest_with_a_subject_is_its_referrer(tmp_path: Path, target: Folder, parts: dict[str, Path]) -> None:
    subject = digest_of(parts["manifest"])
    assert target.referrers(subject) == []
    sbom, lock = artifact(subject, "text/sbom", note="a"), artifact(subject, "text/lock")
    target.add_manifest(sbom, MANIFEST)
    target.add_manifest(sbom, MANIFEST)
    target.add_manifest(lock, MANIFEST, "locked")
    target.add_manifest(artifact(sha256(b"other"), "text/sbom"), MANIFEST)
    found = {each["artifactType"]: each for each in target.referrers(subject)}
    assert found["text/sbom"] == {
        "mediaType": MANIFEST,
        "digest": sha256(sbom),
        "size": len(sbom),
        "artifactType": "text/sbom",
        "annotations": {"note": "a"},
    }
    assert found["text/lock"]["digest"] == sha256(lock)
    assert [each["digest"] for each in target.referrers(subject, "text/sbom")] == [sha256(sbom)]
    index = Layout(tmp_path / "layout").index()["manifests"]
    assert [entry["digest"] for entry in index].count(sha256(sbom)) == 1
    assert set(Layout(tmp_path / "layout").tags()) == {"digits", "locked"}


def test_a_referrer_that_rotted_is_passed_over(target: Folder, parts: dict[str, Path]) -> None:
    subject = digest_of(parts["manifest"])
    sbom = artifact(subject, "text/sbom")
    target.add_manifest(sbom, MANIFEST)
    target.layout.blob(sha256(sbom)).write_bytes(sbom + b" ")
    target.add_manifest(b"no manifest", MANIFEST)
    assert target.referrers(subject) == []


def test_an_image_keeps_its_name_when_its_referrers_come(target: Folder, parts: dict[str, Path]) -> None:
    target.add_manifest(artifact(digest_of(parts["manifest"]), "text/sbom"), MANIFEST)
    assert target.resolve("digits") == digest_of(parts["manifest"])
    assert json.loads((target.layout.folder / "index.json").read_bytes())["schemaVersion"] == 2


NESTED = b"[" * 100_000


@pytest.mark.parametrize(
    "index",
    [
        NESTED,
        b'{"schemaVersion": 2, "manifests": ["x"]}',
        b'{"schemaVersion": 2, "manifests": [{"digest": 1}]}',
        b'{"schemaVersion": 2, "manifests": [{"digest": "%s", "annotations": null}]}',
        b'{"schemaVersion": 2, "manifests": [{"digest": "%s", "annotations": {"%%": 1}}]}',
    ],
)
def test_an_index_that_is_none_is_said(target: Folder, index: bytes) -> None:
    index = index.replace(b"%s", sha256(b"x").encode()).replace(b"%%", REF_NAME.encode())
    (target.layout.folder / "index.json").write_bytes(index)
    with pytest.raises(UsageError, match="not an OCI image index"):
        target.resolve("digits")
    with pytest.raises(UsageError, match="not an OCI image index"):
        target.referrers(sha256(b"x"))


@pytest.mark.parametrize("change", [{"config": 1}, {"config": None, "artifactType": 1}, {"annotations": 1}])
def test_a_referrer_of_another_form_is_no_harm(
    target: Folder, parts: dict[str, Path], change: dict[str, object]
) -> None:
    subject = digest_of(parts["manifest"])
    document = json.loads(artifact(subject, "text/x")) | change
    digest = target.layout.add_bytes(json.dumps(document).encode())
    target.layout.list({"mediaType": MANIFEST, "digest": digest, "size": 1})
    target.layout.list({"digest": target.layout.add_bytes(NESTED), "size": 1})
    assert [each["digest"] for each in target.referrers(subject)] == [digest]
    assert newest(target, subject, "sbom") == []
