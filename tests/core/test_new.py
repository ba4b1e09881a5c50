"""A first recipe for a model: what it says follows from the model and the data beside it, and validation accepts it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import workbench

from workbench import advise, document, recipe
from workbench.errors import UsageError
from workbench.fitting import Fitting
from workbench.new import Draft, draft, write
from workbench.validate import validated

DIGITS = "assets/digits/digits.onnx"


def dense(path: Path, outputs: int = 3, axes: Sequence[Any] = ("batch", 4), op: str = "Gemm") -> Path:
    """A model of one product: x[batch,4] -> scores[batch,outputs]."""
    weights = np.ones((int(axes[-1]), outputs), np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["scores"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(axes))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [*axes[:-1], outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def samples(path: Path, count: int = 500, axes: Sequence[int] = (4,), **others: Any) -> Path:
    """Samples for x, and whatever else."""
    np.savez(path, x=np.linspace(0, 1, count * int(np.prod(axes)), dtype=np.float32).reshape(count, *axes), **others)
    return path


def made(model: Path, **options: Any) -> dict[str, str]:
    """The settings of a draft, which validation accepts, by name."""
    found = draft(model, **options)
    assert validated(found.path, found.text.encode())["problems"] == []
    return values(found)


def values(found: Draft) -> dict[str, str]:
    return {choice.what: choice.value for choice in found.choices}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the working folder; no container engine answers."""
    (tmp_path / ".workbench").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    return tmp_path


def test_the_shipped_digits_get_a_whole_recipe(in_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{in_project}/none.sock")
    found = made(Path(DIGITS), name="first")

    assert found == {
        "name": "first",
        "model.source": DIGITS,
        "data.evaluate": "assets/digits/test.npz",
        "data.calibrate": "assets/digits/calibrate.npz",
        "data.metric": "accuracy",
        "variants.int8": "[{quantize: {to: int8, mode: static}}]",
        "variants.int8-dynamic": "[{quantize: {to: int8, mode: dynamic}}]",
        "variants.int8-weights": "[{quantize: {to: int8, mode: weight-only}}]",
        "gate.metric_drop": "0.015",
        "choose": "{minimize: p50}",
        "image.builder": "oci",
        "image.base": "{debian: bookworm}",
        "image.limits": "{cpus: 1, memory: 512MiB}",
        "benchmark.alone": "{scenario: single-stream, duration: 10s}",
        "benchmark.busy": "{scenario: server, rate: 200/s, p99: 50ms, duration: 10s}",
        "push": '{to: "oci:.workbench/registry"}',
    }


def test_the_command_writes_the_recipe_and_says_what_comes_next(in_project: Path) -> None:
    done = workbench(in_project, "new", DIGITS, "--name", "first")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "recipes/first.yaml\n"
    assert "workbench run recipes/first.yaml" in done.stderr
    loaded = recipe.load(in_project / "recipes/first.yaml").recipe
    assert loaded.name == "first"
    assert set(loaded.variants) == {"int8", "int8-dynamic", "int8-weights"}


def test_a_dry_run_prints_the_text_and_writes_nothing(in_project: Path) -> None:
    done = workbench(in_project, "new", DIGITS, "--name", "first", "--dry-run")
    told = json.loads(workbench(in_project, "new", DIGITS, "--name", "first", "--dry-run", "--json").stdout)

    assert done.stdout == told["text"]
    assert told["written"] is False
    assert told["recipe"] == "recipes/first.yaml"
    assert not (in_project / "recipes/first.yaml").exists()


def test_each_setting_has_its_reason_as_a_comment_above_it(in_project: Path) -> None:
    found = draft(Path(DIGITS), name="first")
    lines = found.text.splitlines()

    for choice in found.choices:
        key = choice.what.rpartition(".")[2]
        at = next(number for number, line in enumerate(lines) if line.strip() == f"{key}: {choice.value}")
        assert choice.why == "" or lines[at - 1].strip().removeprefix("# ") in choice.why, choice
        assert bool(choice.why) or choice.what == "name"
    assert max(map(len, lines)) <= 80


def test_a_recipe_that_is_there_stays_but_for_force(in_project: Path) -> None:
    before = (in_project / "recipes/digits.yaml").read_text()
    with pytest.raises(UsageError, match=r"recipes/digits\.yaml is there already.*--name digits-2.*--force"):
        draft(Path(DIGITS))

    write(draft(Path(DIGITS), force=True), force=True)
    assert (in_project / "recipes/digits.yaml").read_text() != before


def test_one_that_came_to_be_there_meanwhile_stays_too(here: Path) -> None:
    found = draft(dense(here / "m.onnx"))
    found.path.parent.mkdir()
    found.path.write_text("mine")

    with pytest.raises(UsageError, match="is there already"):
        write(found)
    assert found.path.read_text() == "mine"


def test_a_model_outside_the_project_is_refused_with_the_words_that_copy_it_in(here: Path) -> None:
    project = here / "inner"
    (project / ".workbench").mkdir(parents=True)
    model = dense(here / "my models" / "m.onnx")

    done = workbench(project, "new", str(model))
    assert done.returncode == 2
    assert f"mkdir -p models && cp '{model}' models/" in done.stderr


def test_a_folder_inside_the_project_is_the_same_project(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense(here / "models" / "m.onnx")
    monkeypatch.chdir(here / "models")
    found = draft(Path("m.onnx"))

    assert found.path == here / "recipes" / "m.yaml"
    assert found.shown == "../recipes/m.yaml"
    assert "workbench run recipes/m.yaml" in found.text
    assert values(found)["model.source"] == "models/m.onnx"


def test_the_name_is_made_of_the_files_and_a_wrong_one_is_corrected(here: Path) -> None:
    model = dense(here / "Ünet (v2) FINAL.onnx")

    assert values(draft(model))["name"] == "net-v2-final"
    assert values(draft(dense(here / "1e3.onnx")))["name"] == '"1e3"', "a name is text, and not a number"
    with pytest.raises(UsageError, match="--name my-net"):
        draft(model, name="My Net")
    with pytest.raises(UsageError, match=r"must end in \.yaml"):
        draft(model, output=here / "recipes" / "x.lock.yaml")


@pytest.mark.parametrize(
    ("labels", "outputs", "metric"),
    [
        (np.arange(500) % 3, 3, "accuracy"),
        ((np.arange(500) % 3).astype(np.float64), 3, "accuracy"),
        (np.arange(500) % 2, 1, "accuracy"),
        (np.arange(500) % 7, 1, "mse"),
        (np.linspace(0, 1, 1500).reshape(500, 3), 3, "mse"),
        (np.arange(500) % 4, 3, "fidelity"),  # more classes than the model tells apart
        (np.zeros((500, 2)), 3, "fidelity"),
        (None, 3, "fidelity"),
    ],
)
def test_the_metric_follows_from_labels_and_outputs(here: Path, labels: Any, outputs: int, metric: str) -> None:
    model = dense(here / "m.onnx", outputs)
    samples(here / "test.npz", **({} if labels is None else {"y": labels}))

    assert made(model)["data.metric"] == metric


def test_a_chosen_metric_is_one_that_the_data_step_takes(here: Path) -> None:
    """Labels that no metric takes make a file that does not fit."""
    model = dense(here / "m.onnx")
    samples(here / "test.npz", y=np.array(["a"] * 500))

    found = draft(model)
    assert found.lacks == "evaluate.npz"
    assert "the labels y are not all numbers" in found.text


@pytest.mark.parametrize(
    ("count", "limit"), [(10_000, "0.01"), (500, "0.01"), (360, "0.015"), (100, "0.045"), (3, "0.835")]
)
def test_the_gate_is_one_that_so_many_samples_can_decide(here: Path, count: int, limit: str) -> None:
    model = dense(here / "m.onnx")
    samples(here / "test.npz", count, y=np.arange(count) % 3)
    found = made(model)

    assert found["gate.metric_drop"] == limit
    assert 1.96 * np.sqrt(2) / (count + 2) <= float(limit), "holds where nothing changed"


def test_the_gate_of_an_error_is_a_share_of_the_labels_variance(here: Path) -> None:
    model = dense(here / "m.onnx", 1)
    samples(here / "test.npz", y=np.tile([0.0, 20.0], 250))
    assert made(model)["gate.metric_drop"] == "1"

    samples(here / "test.npz", y=np.full(500, 7.5))
    assert "gate.metric_drop" not in made(model), "labels that are all the same have no scale"


def test_data_is_told_by_labels_and_by_name(here: Path) -> None:
    model = dense(here / "m.onnx")
    samples(here / "a.npz", 50)
    labels = {"y": np.arange(60) % 3}
    samples(here / "b.npz", 60, **labels)
    samples(here / "train.npz", 60, **labels)
    np.savez(here / "c.npz", x=np.zeros((5, 9), np.float32))
    (here / "d.npz").write_bytes(b"no zip")
    found = made(model)
    assert (found["data.evaluate"], found["data.calibrate"]) == ("b.npz", "a.npz")

    samples(here / "my-calibration.npz", 50)
    samples(here / "test.npz", 60, **labels)
    found = made(model)
    assert (found["data.evaluate"], found["data.calibrate"]) == ("test.npz", "my-calibration.npz")


def test_named_data_goes_before_what_is_found_and_must_fit(here: Path) -> None:
    model = dense(here / "m.onnx")
    samples(here / "test.npz", y=np.arange(500) % 3)
    (here / "other").mkdir()
    other = samples(here / "other" / "mine.npz", 70, y=np.arange(70) % 3)
    found = made(model, evaluate=other)
    assert (found["data.evaluate"], found["data.calibrate"]) == ("other/mine.npz", "test.npz")

    assert made(model, calibrate=other)["data.calibrate"] == "other/mine.npz"
    with pytest.raises(UsageError, match=r"wide\.npz: the array for 'x' has the shape \[\d, 5\].*float32\[batch,4\]"):
        draft(model, evaluate=samples(here / "wide.npz", 2, (5,)))
    with pytest.raises(UsageError, match=r"no file nowhere\.npz"):
        draft(model, evaluate=Path("nowhere.npz"))


def test_what_is_scored_is_never_calibrated_with(here: Path) -> None:
    model = dense(here / "m.onnx")
    samples(here / "test.npz", y=np.arange(500) % 3)
    found = made(model)

    assert "data.calibrate" not in found
    assert set(variants(found)) == {"int8-dynamic", "int8-weights"}, "static int8 needs calibration data"


def variants(found: Mapping[str, str]) -> list[str]:
    return [name.removeprefix("variants.") for name in found if name.startswith("variants.")]


def test_a_fixed_batch_takes_whole_batches_only(here: Path) -> None:
    model = dense(here / "m.onnx", axes=(8, 4))
    samples(here / "test.npz", 160, y=np.arange(160) % 3)
    assert made(model)["data.evaluate"] == "test.npz"

    samples(here / "test.npz", 161, y=np.arange(161) % 3)
    assert draft(model).lacks == "evaluate.npz"


def test_without_data_the_recipe_says_how_to_make_it_and_nothing_else_is_wrong(here: Path) -> None:
    model = dense(here / "models" / "m.onnx")
    np.savez(here / "models" / "other.npz", z=np.zeros(3))
    done = workbench(here, "new", "models/m.onnx")

    assert done.returncode == 0, done.stderr
    assert "make models/evaluate.npz" in done.stderr
    text = (here / "recipes" / "m.yaml").read_text()
    assert "numpy.savez('models/evaluate.npz', x=..., y=...)" in text
    assert "other.npz lacks the input 'x'" in text
    problems = validated(here / "recipes" / "m.yaml")["problems"]
    assert [each["where"] for each in problems] == ["data.evaluate"]

    samples(here / "models" / "evaluate.npz", y=np.arange(500) % 3)
    assert validated(here / "recipes" / "m.yaml")["valid"]
    assert made(model, force=True)["data.metric"] == "accuracy"


def layers(**operators: int) -> dict[str, Any]:
    """A summary with a layer of so many float32 weights for each operator."""
    found = [{"op": name, "parameters": size, "bytes": 4 * size} for name, size in operators.items()]
    return {"layers": found, "operators": dict.fromkeys(operators, 1), "size": 1, "flops": 1}


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ({"Conv": 1000}, ["int8", "int8-weights"]),
        ({"Conv": 1000, "Gemm": 50}, ["int8", "int8-weights"]),
        ({"Conv": 1000, "Gemm": 500}, ["int8", "int8-dynamic", "int8-weights"]),
        ({"MatMul": 1000, "LayerNormalization": 9}, ["int8", "int8-dynamic", "int8-weights"]),
        ({"Gather": 100, "MatMul": 10}, ["int8", "int8-dynamic", "int8-weights"]),
        ({"Gather": 100}, []),
        ({"Gather": 5000}, ["int8-dynamic", "int8-weights"]),
        ({"LSTM": 1000}, ["int8-dynamic", "int8-weights"]),
        ({"TreeEnsembleClassifier": 1000}, []),
    ],
)
def test_variants_follow_from_the_operators(here: Path, operators: dict[str, int], expected: list[str]) -> None:
    data = Fitting("c.npz", 100, None, 0.0, 1.0)
    assert [each.what.removeprefix("variants.") for each in advise.variants(layers(**operators), data)] == expected


def test_weights_that_are_not_float32_are_left_alone() -> None:
    half = layers(MatMul=1000)
    half["layers"][0]["bytes"] = 2000

    assert advise.variants(half, None) == []


def test_loads_and_limits_grow_with_the_model() -> None:
    small, large, unknown = ({"size": 1 << 20, "flops": 10**7}, {"size": 1 << 30, "flops": 10**10}, {"flops": None})

    assert "rate: 200/s, p99: 50ms" in advise.benchmarks(small)[1].value
    assert "rate: 1/s, p99: 1s" in advise.benchmarks(large)[1].value
    assert "rate: 5/s, p99: 1s" in advise.benchmarks(unknown)[1].value
    assert advise.limits(small).value == "{cpus: 1, memory: 512MiB}"
    assert advise.limits(large).value == "{cpus: 1, memory: 4352MiB}"


def test_inputs_that_look_unscaled_are_pointed_out(here: Path) -> None:
    model = dense(here / "m.onnx")
    np.savez(here / "test.npz", x=np.full((50, 4), 250, np.float32), y=np.arange(50) % 3)
    text = draft(model).text

    assert "Inputs here are up to 250." in text
    assert "# preprocess: {scale: 0.00392157}" in text


def test_names_from_files_and_models_cannot_leave_their_comment_or_value(here: Path) -> None:
    """A file name with what means something in YAML is a quoted value; a model's names stay in their line."""
    (here / "a: b #c").mkdir()
    model = dense(here / "a: b #c" / "m.onnx")
    hostile = onnx.load(model)
    hostile.graph.input[0].name = hostile.graph.node[0].input[0] = "x\nchoose: {variant: y}\x1b[31m"
    onnx.save(hostile, model)
    samples(here / "a: b #c" / "test.npz", y=np.arange(500) % 3)

    found = draft(model)
    loaded = recipe.check(document.parse(found.text, found.path), found.path).recipe
    assert loaded.model.source == "a: b #c/m.onnx"
    assert loaded.choose.variant is None
    assert "\x1b" not in found.text


@pytest.mark.integration
def test_where_an_engine_answers_it_builds_the_image(here: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command")
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    samples(here / "test.npz", y=np.arange(500) % 3)

    assert made(dense(here / "m.onnx"))["image.builder"] == "docker"
