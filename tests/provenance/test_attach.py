"""Recipe, lock, parts list and provenance travel with the image, in a layout folder and in a registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from image_helpers import Emit
from kept import Kept, KeyPairs
from small_image import digest_of

from workbench.errors import StepFailed, UsageError
from workbench.provenance import names, referrers, signature
from workbench.provenance.attach import attach, in_place
from workbench.provenance.names import KINDS, LOCK, PROVENANCE, RECIPE, SBOM
from workbench.provenance.referrers import newest, read_file


def digest_of_file(path: Path) -> str:
    return digest_of(path.read_bytes())


def here(kept: Kept) -> dict[str, object] | None:
    return in_place(kept.files, kept.params, Path(), digest_of_file)


def test_each_kind_is_a_referrer_of_the_image(kept: Kept) -> None:
    values = kept.attach()
    listed = {one["artifactType"]: one["digest"] for one in kept.target.referrers(kept.digest)}
    assert listed == {media_type: values[kind] for kind, media_type in KINDS.items()}
    for digest in listed.values():
        manifest = json.loads(kept.target.manifest(str(digest))[0])
        assert manifest["subject"]["digest"] == kept.digest
        assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"


def test_recipe_and_lock_are_one_artifact_with_their_names(whole: Kept) -> None:
    [found] = newest(whole.target, whole.digest, "recipe")
    titles = [file["annotations"][names.TITLE] for file in found.files]
    assert titles == ["digits.yaml", "digits.lock.yaml"]
    assert read_file(whole.target, found, RECIPE) == whole.files["recipe"].read_bytes()
    assert read_file(whole.target, found, LOCK) == whole.files["lock"].read_bytes()


def test_what_is_there_is_not_sent_again(whole: Kept) -> None:
    before = whole.target.referrers(whole.digest)
    assert here(whole) is not None
    assert whole.attach()["bytes_sent"] == 0
    assert whole.target.referrers(whole.digest) == before


def test_an_attachment_that_is_missing_or_other_is_not_in_place(kept: Kept) -> None:
    assert here(kept) is None
    kept.attach()
    kept.files["recipe"].write_bytes(kept.files["recipe"].read_bytes() + b"# a remark\n")
    assert here(kept) is None


def test_a_registry_that_cannot_be_asked_has_nothing_in_place(whole: Kept) -> None:
    assert in_place(whole.files, {**whole.params, "to": "127.0.0.1:1/digits:1"}, Path(), digest_of_file) is None


def test_the_newest_is_read_and_what_was_before_stays(whole: Kept) -> None:
    first = whole.files["recipe"].read_bytes()
    second = first + b"# a remark\n"
    for text in (second, first, second):  # going back to what was before is a change, too
        whole.attach(recipe=text)
        [found] = newest(whole.target, whole.digest, "recipe")
        assert read_file(whole.target, found, RECIPE) == text
    assert len(whole.target.referrers(whole.digest, RECIPE)) == 4


def test_two_that_were_attached_at_once_are_both_newest_until_the_next(whole: Kept, tmp_path: Path) -> None:
    subject = {"mediaType": names.MANIFEST, "digest": whole.digest, "size": whole.files["manifest"].stat().st_size}
    there = newest(whole.target, whole.digest, "sbom")
    for data in (b"one", b"two"):
        file = referrers.File(SBOM, "digits.cdx.json", data)
        (tmp_path / "blob").write_bytes(data)
        whole.target.add_blob(tmp_path / "blob", digest_of(data))
        manifest = referrers._manifest(subject, SBOM, [file], [there[0].digest])
        whole.target.add_manifest(json.dumps(manifest).encode(), names.MANIFEST)
    assert len(newest(whole.target, whole.digest, "sbom")) == 2
    whole.attach()
    [found] = newest(whole.target, whole.digest, "sbom")
    assert read_file(whole.target, found, SBOM) == whole.files["sbom"].read_bytes()


def test_a_lock_of_another_image_is_not_attached(kept: Kept) -> None:
    other = kept.another("another model")
    with pytest.raises(StepFailed, match=f"not of {kept.digest}"):
        kept.attach(lock=other.files["lock"].read_bytes())
    assert kept.target.referrers(kept.digest) == []


def test_nothing_is_attached_to_an_image_that_is_not_there(kept: Kept, emit: Emit, tmp_path: Path) -> None:
    elsewhere = {**kept.params, "to": f"oci:{tmp_path}/elsewhere:digits"}
    with pytest.raises(UsageError, match="has no image"):
        attach(kept.files, elsewhere, emit)


def test_a_key_in_the_environment_signs_image_and_attachments(
    kept: Kept, key_pair: KeyPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair()
    kept.attach()
    monkeypatch.setenv(signature.KEY, str(private))
    assert here(kept) is None  # there, but not signed
    values = kept.attach()
    assert (values["signed"], values["bytes_sent"]) == (4, 0)
    for digest in (kept.digest, *(str(values[kind]) for kind in KINDS)):
        assert signature.valid(kept.target, digest, signature.public_key(public))
    assert here(kept) is not None
    assert kept.attach()["signed"] == 0


def test_provenance_names_what_the_image_was_made_from(whole: Kept) -> None:
    [found] = newest(whole.target, whole.digest, "provenance")
    said = json.loads(read_file(whole.target, found, PROVENANCE))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert said["subject"] == [{"name": "digits", "digest": {"sha256": whole.digest.removeprefix("sha256:")}}]
    definition, details = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    recipe = whole.files["recipe"].read_bytes()
    assert definition["externalParameters"]["recipe"]["digest"] == {"sha256": digest_of(recipe)[7:]}
    named = {
        one["name"]: one.get("digest", {}).get("sha256") or one["uri"] for one in definition["resolvedDependencies"]
    }
    assert named == {
        "model.source": "1" * 64,
        "data.evaluate": "2" * 64,
        "package libc6": "a" * 64,
        "wheel tool": "b" * 64,
        "tool onnxruntime": "pkg:pypi/onnxruntime@1.32.0",
    }
    assert details["builder"]["version"] == {"workbench": "0.1.0"}


@pytest.mark.parametrize("to", ["layout"], indirect=True)
def test_a_layout_copied_elsewhere_takes_its_attachments_along(whole: Kept, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "layout", tmp_path / "copy")
    copied = {**whole.params, "to": f"oci:{tmp_path}/copy:digits"}
    assert in_place(whole.files, copied, Path(), digest_of_file) is not None
