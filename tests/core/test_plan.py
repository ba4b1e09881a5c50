"""From recipe to steps and keys: shared prefixes are made once; a key changes exactly with what decides the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import plan, recipe
from workbench.lookup import expanded
from workbench.plan import Pinned, Pins, Ref, Refs, Step
from workbench.store import Result

WHOLE = """\
image: {base: {debian: bookworm}}
benchmark: {alone: {scenario: single-stream}}
push: {to: "oci:.workbench/registry"}
"""


def loaded(project: Path, more: str = "") -> recipe.RecipeFile:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + more)
    return recipe.load(path)


def test_every_step_comes_after_what_it_reads(project: Path) -> None:
    steps = plan.plan(loaded(project, WHOLE), Pins())
    seen: set[str] = set()
    for step in steps:
        assert {source.step for source in step.inputs.values() if isinstance(source, Ref | Refs)} <= seen
        assert set(step.after) <= seen
        seen.add(step.id)
    assert {"model", "int8/quantize", "choose", "base", "image", "parity", "benchmark/alone", "push"} <= seen


def test_chains_that_begin_alike_share_the_steps_they_share(project: Path) -> None:
    file = loaded(project, "  same: [{quantize: {to: int8}}]\n  other: [{quantize: {to: int8, mode: dynamic}}]\n")
    assert plan.chains(file.recipe) == {
        "int8": ["int8/quantize"],
        "same": ["int8/quantize"],
        "other": ["other/quantize"],
    }
    assert [step.id for step in plan.plan(file, Pins())].count("int8/quantize") == 1


def test_pins_of_the_lock_take_the_place_of_resolving(project: Path) -> None:
    steps = {step.id: step for step in plan.plan(loaded(project, WHOLE), Pins(base=b"{}", wheels=b"{}"))}
    assert "base-resolve" not in steps
    assert "wheels-resolve" not in steps
    assert steps["base"].inputs["pins"] == Pinned(b"{}")


STEP = Step("int8/quantize", "quantize", {"model": Ref("model", "model")}, {"mode": "static"})


def key(inputs: dict[str, str] | None = None, isa: str = "v4", machine: str = "m", step: Step = STEP) -> str:
    return plan.key_of(step.kind, plan.ingredients(step, inputs or {"model": "sha256:1"}, isa, machine))


def test_the_key_changes_with_inputs_parameters_tools_source_and_instruction_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = key()
    assert key() == first
    assert key({"model": "sha256:2"}) != first
    assert key(isa="v3") != first
    assert key(step=Step("int8/quantize", "quantize", STEP.inputs, {"mode": "dynamic"})) != first
    monkeypatch.setattr(plan, "version", lambda _: "9.9")
    other_tool = key()
    assert other_tool != first
    monkeypatch.setattr(plan, "source_digest", lambda _: "sha256:0")
    assert key() not in (first, other_tool)


def test_the_machine_is_part_of_the_key_of_figures_only() -> None:
    assert key(machine="other") == key()
    measured = Step("latency/int8", "latency")
    assert key({}, machine="m", step=measured) != key({}, machine="other", step=measured)


def test_every_kind_of_step_names_a_function_and_packages_that_exist() -> None:
    import importlib

    from workbench.steps import KINDS

    for name, kind in KINDS.items():
        if kind.nature != "decision":
            module, function = kind.function.split(":")
            assert callable(getattr(importlib.import_module(module), function)), name
        for package in kind.packages:
            assert plan.source_digest(package).startswith("sha256:")
        for tool in kind.tools:
            assert plan.version(tool) != "not installed", tool


def test_a_step_may_take_every_file_of_a_kind_that_another_made() -> None:
    made = {"layer-01": {"digest": "b"}, "config": {"digest": "c"}, "layer-00": {"digest": "a"}}
    inputs = {"config": Ref("image", "config"), "all": Refs("image", "layer-")}
    found = expanded(inputs, {"image": Result(made, {}, {})})
    assert found == {name: Ref("image", name) for name in ("config", "layer-00", "layer-01")}
    assert list(found)[1:] == ["layer-00", "layer-01"]
