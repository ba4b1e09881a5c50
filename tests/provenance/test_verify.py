"""Whatever is changed of an image or of what travels with it is told by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kept import Kept, KeyPairs
from small_image import digest_of

from workbench.errors import ArtifactDiffers, MachineLacks, UsageError
from workbench.image.layers import canonical
from workbench.provenance import referrers
from workbench.provenance.names import LOCK, MANIFEST, PROVENANCE, RECIPE, SBOM
from workbench.provenance.referrers import File
from workbench.provenance.sign import sign_all
from workbench.provenance.verify import failure, verify


def states(kept: Kept, reference: str = "", **options: Any) -> dict[str, str]:
    """The state of every check, by name."""
    return {check.name: check.state for check in verify(kept.target, reference or kept.digest, **options)}


def wrong(kept: Kept, **options: Any) -> list[str]:
    return [name for name, state in states(kept, **options).items() if state in ("differs", "missing")]


def replace_file(kept: Kept, kind: str, changed: Mapping[str, bytes]) -> None:
    """Attaches other files, as anyone may who can push: recipe and lock, of which one or both are ``changed``."""
    original = {
        RECIPE: ("recipe", kept.files["recipe"].read_bytes()),
        LOCK: ("recipe", kept.files["lock"].read_bytes()),
        SBOM: ("sbom", kept.files["sbom"].read_bytes()),
        PROVENANCE: ("provenance", b""),
    }
    files = [File(each, each[-9:], changed.get(each, data)) for each, (of, data) in original.items() if of == kind]
    subject = {"mediaType": MANIFEST, "digest": kept.digest, "size": kept.files["manifest"].stat().st_size}
    referrers.attach(kept.target, subject, kind, files, kept.scratch.scratch)


def test_what_belongs_together_passes_every_check(whole: Kept) -> None:
    found = verify(whole.target, "digits")
    assert failure(found) is None
    assert {check.state for check in found if not check.name.startswith("signature")} == {"ok"}
    assert [check.name for check in found][:4] == ["image", "config", "layers", "recipe and lock"]


def test_a_deep_look_hashes_the_layers_and_finds_packages_and_model(whole: Kept, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    found = states(whole, deep=tmp_path / "deep")
    named = ("layers: blobs", "layers: content", "layers: model", "layers: packages")
    assert [found[name] for name in named] == ["ok"] * 4


@pytest.mark.parametrize("to", ["layout"], indirect=True)
def test_layers_that_say_they_are_larger_than_the_disk_are_not_downloaded(whole: Kept, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    data, descriptor = whole.target.manifest(whole.digest)
    manifest = json.loads(data)
    for layer in manifest["layers"]:
        layer["size"] = 1 << 60
    other = whole.target.add_manifest(json.dumps(manifest).encode(), str(descriptor["mediaType"]), "other")
    with pytest.raises(MachineLacks, match="has room for") as caught:
        verify(whole.target, other, deep=tmp_path / "deep")
    assert "TMPDIR" in caught.value.cure
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("to", ["layout"], indirect=True)
def test_an_image_with_layers_without_number_is_refused(kept: Kept) -> None:
    data, descriptor = kept.target.manifest(kept.digest)
    manifest = json.loads(data)
    manifest["layers"] *= 400
    other = kept.target.add_manifest(json.dumps(manifest).encode(), str(descriptor["mediaType"]), "other")
    with pytest.raises(UsageError, match="1200 layers, and no engine takes as many"):
        verify(kept.target, other)


@pytest.mark.parametrize("to", ["layout"], indirect=True)
def test_layers_that_swell_are_read_no_further_than_to_a_limit(
    whole: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.provenance.deep.LARGEST", 25_000)
    (tmp_path / "deep").mkdir()
    found = {check.name: check for check in verify(whole.target, whole.digest, deep=tmp_path / "deep")}
    assert found["layers: content"].state == "differs"
    assert "swell to more than" in found["layers: content"].detail
    assert "layers: model" not in found


def test_an_image_with_nothing_attached_says_so(kept: Kept) -> None:
    assert wrong(kept) == ["recipe and lock", "SBOM", "provenance"]
    error = failure(verify(kept.target, kept.digest))
    assert isinstance(error, ArtifactDiffers)
    assert error.exit_code == 4
    assert error.message.startswith("recipe and lock is missing")


def test_an_image_that_is_not_there_is_a_usage_error(kept: Kept) -> None:
    with pytest.raises(UsageError, match="has no image"):
        verify(kept.target, "sha256:" + "0" * 64)


@pytest.mark.parametrize("to", ["layout"], indirect=True)
@pytest.mark.parametrize("size", [None, "9", -1])
def test_a_manifest_that_does_not_say_how_large_its_layers_are_is_a_usage_error(kept: Kept, size: object) -> None:
    data, descriptor = kept.target.manifest(kept.digest)
    manifest = json.loads(data)
    manifest["layers"][0]["size"] = size
    other = kept.target.add_manifest(json.dumps(manifest).encode(), str(descriptor["mediaType"]), "other")
    with pytest.raises(UsageError, match="does not say how large"):
        verify(kept.target, other)


def test_a_changed_recipe_is_told_with_the_section(whole: Kept) -> None:
    recipe = whole.files["recipe"].read_bytes()
    replace_file(whole, "recipe", {RECIPE: recipe.replace(b"metric: accuracy", b"metric: fidelity")})
    assert wrong(whole) == ["recipe", "provenance: recipe"]
    error = failure(verify(whole.target, whole.digest))
    assert error is not None
    assert "not what the lock was made from: data" in error.message


def test_a_remark_in_the_recipe_is_no_other_recipe_but_other_bytes(whole: Kept) -> None:
    replace_file(whole, "recipe", {RECIPE: whole.files["recipe"].read_bytes() + b"# a remark\n"})
    assert wrong(whole) == ["provenance: recipe"]


def changed_lock(kept: Kept, change: Callable[[dict[str, Any]], None]) -> bytes:
    from workbench.document import parse, render

    data = parse(kept.files["lock"].read_text(), Path("lock")).data
    change(data)
    return render(data).encode()


OTHER = f"sha256:{'9' * 64}"


def at(*way: str | int) -> Callable[[dict[str, Any]], Any]:
    """What stands at ``way`` in a lock's artifacts."""

    def found(data: dict[str, Any]) -> Any:
        node: Any = data["artifacts"]
        for part in way:
            node = node[part]
        return node

    return found


wheel, image = at("wheels", "pins", "wheels", 0), at("image")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lock: at("made")(lock).update({"int8/quantize": OTHER}), ["lock: model"]),
        (lambda lock: lock["artifacts"].update(choice="int4"), ["lock: model"]),
        (lambda lock: wheel(lock).update(version="2.1"), ["SBOM: packages", "provenance: sources"]),
        (lambda lock: wheel(lock).update(sha256="9" * 64), ["SBOM: packages", "provenance: sources"]),
        (lambda lock: image(lock)["layers"].update(model=OTHER), ["lock: layers"]),
        (lambda lock: image(lock)["layers"].pop("model"), ["lock: layers"]),
        (lambda lock: image(lock).update(config=OTHER), ["lock: config"]),
        (lambda lock: image(lock).update(sbom=OTHER), ["SBOM: lock"]),
        (lambda lock: at("sources")(lock).update({"model.source": OTHER}), ["provenance: sources"]),
        (lambda lock: at("wheels", "pins")(lock).update(wheels=["x"]), ["lock"]),
        (lambda lock: lock.update(more=1), ["lock"]),
    ],
)
def test_a_changed_lock_is_told_by_what_was_changed(whole: Kept, change: Any, told: list[str]) -> None:
    replace_file(whole, "recipe", {LOCK: changed_lock(whole, change)})
    assert set(wrong(whole)) == {*told, "provenance: lock"}


def test_the_lock_of_another_image_is_told(whole: Kept) -> None:
    other = whole.another("another model")
    replace_file(whole, "recipe", {LOCK: other.files["lock"].read_bytes()})
    assert wrong(whole) == ["lock: image", "lock: config", "lock: layers", "lock: model", "provenance: lock"]


def test_a_changed_parts_list_is_told(whole: Kept) -> None:
    document = json.loads(whole.files["sbom"].read_bytes())
    document["components"] = [each for each in document["components"] if each["name"] != "libc6"]
    replace_file(whole, "sbom", {SBOM: canonical(document)})
    assert wrong(whole) == ["SBOM: packages", "provenance: SBOM"]
    error = failure(verify(whole.target, whole.digest))
    assert error is not None
    assert "libc6 2.36-9 is not listed" in error.message


def test_a_parts_list_with_more_than_is_there_is_told(whole: Kept, tmp_path: Path) -> None:
    document = json.loads(whole.files["sbom"].read_bytes())
    document["components"].append(
        {"type": "library", "name": "left-pad", "version": "1", "purl": "pkg:pypi/left-pad@1"}
    )
    replace_file(whole, "sbom", {SBOM: canonical(document)})
    (tmp_path / "deep").mkdir()
    assert wrong(whole, deep=tmp_path / "deep") == ["SBOM: packages", "provenance: SBOM", "layers: packages"]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"components": 1, "metadata": []}', b"\xff"])
def test_what_is_no_parts_list_and_no_statement_is_told(whole: Kept, data: bytes) -> None:
    replace_file(whole, "sbom", {SBOM: data})
    replace_file(whole, "provenance", {PROVENANCE: data})
    assert {"SBOM: image", "SBOM: packages", "provenance: image", "provenance: sources"} <= set(wrong(whole))


def test_the_provenance_of_another_image_is_told(whole: Kept) -> None:
    other = whole.another("another model")
    other.attach()
    [theirs] = referrers.newest(other.target, other.digest, "provenance")
    replace_file(whole, "provenance", {PROVENANCE: referrers.read_file(other.target, theirs, PROVENANCE)})
    assert wrong(whole) == ["provenance: image", "provenance: lock", "provenance: SBOM"]


@pytest.mark.parametrize("to", ["layout"], indirect=True)
@pytest.mark.parametrize("what", ["layer-01", "config", "manifest"])
def test_a_blob_that_is_gone_or_damaged_is_told(whole: Kept, tmp_path: Path, what: str) -> None:
    """In a layout folder, where it can be done by hand."""
    blob = tmp_path / "layout" / "blobs" / "sha256" / digest_of(whole.files[what].read_bytes())[7:]
    blob.write_bytes(b"another")
    name = {"layer-01": "layers", "manifest": "image"}.get(what, what)
    assert wrong(whole)[0] == name
    blob.unlink()
    if what != "manifest":  # then there is no such image
        assert wrong(whole)[0] == name


# --- signatures


def signature_states(kept: Kept, key: Path | None) -> set[str]:
    return {state for name, state in states(kept, key=key).items() if name.startswith("signature")}


def test_without_a_key_a_signature_is_mentioned_and_with_one_it_counts(whole: Kept, key_pair: KeyPairs) -> None:
    private, public = key_pair()
    _, of_another = key_pair("another")
    assert signature_states(whole, None) == {"not checked"}
    assert failure(verify(whole.target, whole.digest)) is None
    assert signature_states(whole, public) == {"missing"}

    assert [signed for _, signed in sign_all(whole.target, "digits", private)] == [True] * 4
    assert failure(verify(whole.target, whole.digest, key=public)) is None
    assert signature_states(whole, public) == {"ok"}
    assert signature_states(whole, of_another) == {"differs"}
    details = {check.detail for check in verify(whole.target, whole.digest) if check.name.startswith("signature")}
    assert details == {"signed, not checked (no key)"}


def test_what_is_attached_after_the_signing_is_not_signed(whole: Kept, key_pair: KeyPairs) -> None:
    private, public = key_pair()
    list(sign_all(whole.target, "digits", private))
    whole.attach(recipe=whole.files["recipe"].read_bytes() + b"# a remark\n")
    assert wrong(whole, key=public) == ["signature of recipe and lock", "signature of provenance"]
