"""Reading recipes: every problem at once, each at its line, and nothing dangerous gets in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import document, recipe
from workbench.errors import RecipeError, UsageError
from workbench.lock import recipe_digests
from workbench.project import project_of
from workbench.schema import Recipe, json_schema
from workbench.store import canonical, digest_of_bytes


def problems(project: Path, old: str, new: str) -> str:
    path = project / "recipes" / "digits.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    return str(caught.value)


def test_a_valid_recipe_knows_its_project_and_lock(project: Path) -> None:
    file = recipe.load(project / "recipes" / "digits.yaml")
    assert file.project == project
    assert file.lock_path == project / "recipes" / "digits.lock.yaml"
    assert file.recipe.model.preprocess is not None
    assert file.recipe.model.preprocess.scale == 0.0625


@pytest.mark.parametrize(
    ("mark", "path", "expected"),
    [
        ("", "recipes/digits.yaml", "."),
        ("", "recipes/here", "."),
        ("", "here", "."),
        ("", "elsewhere/digits.yaml", "elsewhere"),
        (".workbench", "recipes/deep/digits.yaml", "."),
        ("recipes/.git", "recipes/digits.yaml", "recipes"),
    ],
)
def test_recipes_and_the_folder_they_lie_in_are_of_one_project(
    tmp_path: Path, mark: str, path: str, expected: str
) -> None:
    """Outside a repository, too: what runs from ``recipes`` is found in the folder beside it."""
    if mark:
        (tmp_path / mark).mkdir(parents=True)
    assert project_of(tmp_path / path) == (tmp_path / expected).resolve()


def test_units_become_bytes_and_seconds(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + "gate: {model_size: 1.5MiB, p99: {max: 5ms}}\n")
    gate = recipe.load(path).recipe.gate
    assert gate.model_size == 1572864
    assert gate.p99 is not None
    assert gate.p99.max == pytest.approx(0.005)


def test_all_problems_are_told_at_once_with_lines_and_cures(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(
        "workbench: 1\n"
        "name: digits\n"
        "model:\n"
        "  source: assets/digits/digit.onnx\n"
        "  preproces: {scale: 0.0625}\n"
        "data: {evaluate: assets/digits/test.npz, metric: acuracy}\n"
        "variants:\n"
        "  int8: [{quantize: {to: int8, mode: statik}}]\n"
        "gate:\n"
        "  model_size: 1Mib\n"
        "  p99: {of: busi, max: 5ms}\n"
        "benchmark:\n"
        "  busy: {scenario: server, rate: 200/s}\n"
    )
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    said = str(caught.value).splitlines()
    assert "9 problems" in said[0]
    for line, words in (
        (4, "there is no file assets/digits/digit.onnx"),
        (5, "did you mean 'preprocess'?"),
        (6, "did you mean 'accuracy'?"),
        (8, "did you mean 'static'?"),
        (10, "write a number with a unit"),
        (11, "did you mean 'busy'?"),
        (13, "the server scenario needs rate"),
        (12, "add an image section"),
    ):
        assert any(item.startswith(f"  line {line}:") and words in item for item in said), (line, words, said)


def test_a_static_variant_needs_calibration_data(project: Path) -> None:
    said = problems(project, "  calibrate: assets/digits/calibrate.npz\n", "")
    assert "static quantization needs data.calibrate" in said
    assert "line 10: variants.int8.0" in said


def test_a_variant_is_chosen_by_hand_instead_of_by_a_figure(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + "choose: {variant: int8}\n")
    assert recipe.load(path).recipe.choose.variant == "int8"
    said = problems(project, "{variant: int8}", "{variant: int9}")
    assert "line 12: choose.variant: there is no variant 'int9'; did you mean 'int8'?" in said
    said = problems(project, "{variant: int9}", "{variant: int8, minimize: size}")
    assert "choose: must have either minimize: or variant:" in said


def test_the_digest_of_a_choice_by_a_figure_is_the_one_of_older_locks(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    by_figure = recipe_digests(recipe.load(path).recipe)["choose"]
    assert by_figure == digest_of_bytes(canonical({"minimize": "p50"}))
    path.write_text(path.read_text() + "choose: {variant: int8}\n")
    assert recipe_digests(recipe.load(path).recipe)["choose"] != by_figure


@pytest.mark.parametrize(
    "to", ["oci:.workbench/registry", "oci:a:1.4", "r.example:5000/team/digits:1.4", "localhost/x"]
)
def test_an_image_goes_to_a_layout_or_a_registry(project: Path, to: str) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + f'image: {{}}\npush: {{to: "{to}"}}\n')
    pushed = recipe.load(path).recipe.push
    assert pushed is not None
    assert pushed.to == to


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("team/digits:1", "does not say which registry. Write docker.io/NAME:TAG, or oci:team/digits:1"),
        ("r.example/Team/digits", "cannot be a repository. Use lower-case letters"),
        ("https://r.example/digits", "is an address, not the name of an image"),
        ("oci:", "has no folder. Write oci:FOLDER"),
        (f"r.example/a@sha256:{'0' * 64}", "that is what a push comes to"),
    ],
)
def test_a_destination_that_is_none_is_refused_at_its_line(project: Path, to: str, words: str) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + f'image: {{}}\npush: {{to: "{to}"}}\n')
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    assert words in str(caught.value)
    assert "line 13: push.to" in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.onnx", "assets/../../x.onnx"])
def test_files_outside_the_project_are_refused(project: Path, path: str) -> None:
    said = problems(project, "source: assets/digits/digits.onnx", f"source: {path}")
    assert "must be a path inside the project" in said


def test_duplicate_keys_are_refused_at_their_line(project: Path) -> None:
    said = problems(project, "name: digits\n", "name: digits\nname: other\n")
    assert "line 3" in said
    assert "duplicate key" in said
    assert "line 2" in said


def test_a_yaml_bomb_is_refused_before_anything_is_built(project: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    said = problems(project, "workbench: 1\n", bomb)
    assert "anchors and aliases" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "nested more than"),
        ("x: !!python/object:os.system [ls]\n", "tags"),
        ("- a\n- b\n", "must be a mapping"),
        ("a: [1\nb: 2\n", "line"),
        ("", "must be a mapping"),
        ("a: 1\n---\nb: 2\n", "only one document"),
        ("? [a]\n: b\n", "line 1: a key must be a plain word"),
        ("<<: {a: 1}\n", "<<: unknown key"),
    ],
)
def test_hostile_or_broken_yaml_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        recipe.load(path)


def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        recipe.load(path)
    path.write_bytes(b"#" * (document.MAX_BYTES + 1))
    with pytest.raises(UsageError, match="larger than"):
        recipe.load(path)
    with pytest.raises(UsageError, match="no file"):
        recipe.load(tmp_path / "none.yaml")


def test_set_overrides_and_is_validated_like_the_rest(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    assert recipe.load(path, ["gate.metric_drop=0.5", "seed=7"]).recipe.gate.metric_drop == 0.5
    with pytest.raises(RecipeError, match="unknown key"):
        recipe.load(path, ["gate.metric_dorp=0.5"])
    with pytest.raises(UsageError, match="key=value"):
        recipe.load(path, ["seed"])


def test_the_normal_form_has_defaults_written_out_and_means_the_same(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    one = recipe.load(path).recipe.normal_form()
    path.write_text(path.read_text().replace("{to: int8, mode: static}", "{mode: static, to: int8, per_channel: true}"))
    assert recipe.load(path).recipe.normal_form() == one
    assert Recipe.model_validate(json.loads(json.dumps(one))).normal_form() == one


def test_the_schema_describes_every_section() -> None:
    found = json_schema()
    assert set(found["properties"]) == set(Recipe.model_fields)
    assert found["additionalProperties"] is False


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("{base: {image: 'python:3.11-slim'}}", "image.base: needs an engine; write builder: docker"),
        ("{device: cuda}", "image.device: needs an engine"),
        ("{limits: {gpus: 1}}", "image.limits: needs an engine"),
        ("{builder: docker, limits: {gpus: some}}", "must be all, a number of GPUs, or a list of UUIDs"),
        ("{base: {debian: bookworm, image: python}}", "must have either debian: or image:"),
        ("{builder: docker, base: {image: '../x y'}}", "must name an image"),
    ],
)
def test_what_an_image_may_not_ask_for_is_told(project: Path, image: str, words: str) -> None:
    assert words in problems(project, "variants:", f"image: {image}\nvariants:")


def test_an_engine_may_be_asked_for_all_of_it(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    image = "image: {builder: docker, base: {image: 'python:3.11-slim'}, limits: {gpus: [GPU-1a], pids: 64}}"
    path.write_text(f"{path.read_text()}{image}\n")
    found = recipe.load(path).recipe.image
    assert found is not None
    assert found.limits.gpus == ["GPU-1a"]
