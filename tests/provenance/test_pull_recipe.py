"""From an image alone back to its recipe and lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kept import Kept, KeyPairs
from support import workbench
from test_verify import replace_file

from workbench.errors import ArtifactDiffers, StepFailed, UsageError
from workbench.provenance.names import LOCK, RECIPE
from workbench.provenance.pull_recipe import pull, write


def test_recipe_and_lock_come_back_as_they_were(whole: Kept, tmp_path: Path) -> None:
    for reference in ("digits", whole.digest):
        paths = write(pull(whole.target, reference), tmp_path / reference[:6])
        assert [path.name for path in paths] == ["digits.yaml", "digits.lock.yaml"]
        assert [path.read_bytes() for path in paths] == [whole.files[name].read_bytes() for name in ("recipe", "lock")]


def test_nothing_of_others_is_overwritten(whole: Kept, tmp_path: Path) -> None:
    pulled = pull(whole.target, "digits")
    (tmp_path / "digits.lock.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"digits\.lock\.yaml would be overwritten"):
        write(pulled, tmp_path)
    assert not (tmp_path / "digits.yaml").exists()
    write(pulled, tmp_path, force=True)
    assert write(pulled, tmp_path) == [tmp_path / "digits.yaml", tmp_path / "digits.lock.yaml"]


def test_a_folder_by_the_recipes_name_is_in_the_way(whole: Kept, tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").mkdir()
    with pytest.raises(UsageError, match=r"digits\.yaml would be overwritten"):
        write(pull(whole.target, "digits"), tmp_path)


def test_an_image_without_a_recipe_says_so(kept: Kept) -> None:
    with pytest.raises(UsageError, match="Nothing is attached"):
        pull(kept.target, "digits")


def test_the_lock_of_another_image_is_refused(whole: Kept) -> None:
    replace_file(whole, "recipe", {LOCK: whole.another("another model").files["lock"].read_bytes()})
    with pytest.raises(ArtifactDiffers, match="is of the image sha256:"):
        pull(whole.target, "digits")


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a/b", ".hidden", "A", "", "[x]", "x" * 64])
def test_a_name_that_leads_elsewhere_is_refused(whole: Kept, name: str) -> None:
    recipe = whole.files["recipe"].read_text().replace("name: digits", f"name: {name}")
    replace_file(whole, "recipe", {RECIPE: recipe.encode()})
    with pytest.raises(StepFailed, match="no usable name"):
        pull(whole.target, "digits")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"name: &a digits\nother: *a\n", "anchors and aliases"),
        (b"name: !!python/name:os.system x\n", "tags"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"- a list\n", "must be a mapping"),
        (b"name: digits\n# " + b"x" * (5 << 20), "bytes; that is none"),
    ],
)
def test_what_is_no_recipe_is_refused(whole: Kept, text: bytes, error: str) -> None:
    replace_file(whole, "recipe", {RECIPE: text})
    with pytest.raises((UsageError, StepFailed), match=error):
        pull(whole.target, "digits")


def test_the_commands_pull_verify_and_sign(whole: Kept, key_pair: KeyPairs, tmp_path: Path) -> None:
    private, public = key_pair(password="secret")
    done = workbench(tmp_path, "pull-recipe", whole.to, "-o", "pulled")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pulled/digits.yaml", "pulled/digits.lock.yaml"]

    assert workbench(tmp_path, "verify", whole.to, "--key", str(public)).returncode == 4
    done = workbench(tmp_path, "sign", whole.to, "--key", str(private), COSIGN_PASSWORD="secret")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{whole.digest} signed"
    done = workbench(tmp_path, "verify", whole.to, "--deep", "--json", "--key", str(public))
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in json.loads(done.stdout)} == {"ok"}

    replace_file(whole, "recipe", {LOCK: whole.another("another model").files["lock"].read_bytes()})
    done = workbench(tmp_path, "verify", whole.to)
    assert done.returncode == 4
    assert "lock: image differs" in done.stderr
