"""Settings changed by name: every other byte of the recipe stays, and an invalid one is never written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import ROOT, workbench

from workbench import document, edit
from workbench.errors import RecipeError, UsageError
from workbench.settings import edited, write

RECIPE = "recipes/digits.yaml"
SHIPPED = (ROOT / RECIPE).read_text()
AWKWARD = """\
a:   # about a
  # one
  b: 1   # x

# about c
c:
  - x: 1
    y: 2
  - z
d:   # none
e: 'q # no'      # c
f: |
  lines
  more
g: {}
v1.5: {x: 1}
h: 1"""


def data_of(text: str) -> dict[str, object]:
    return document.parse(text, Path("r.yaml")).data


def put(text: str, key: str, value: str) -> str:
    return edit.set_value(text, edit.where_of(data_of(text), key), value)


def cut(text: str, key: str) -> str:
    return edit.remove(text, edit.where_of(data_of(text), key))


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("gate.metric_drop", "0.02", "metric_drop: 0.015", "metric_drop: 0.02"),
        ("gate.p99.max", "100ms", "max: 50ms", "max: 100ms"),
        ("variants.int8.0.quantize.mode", "dynamic", "mode: static", "mode: dynamic"),
        ("gate.undecided", "pass", "max: 50ms}\n", "max: 50ms}\n  undecided: pass\n"),
        ("gate.p99.of", "busy", "of: variant", "of: busy"),
        ("model.preprocess.cast", "uint8", "0.0625} ", "0.0625, cast: uint8} "),
        ("model.preprocess", "{scale: 1}", "{scale: 0.0625}              #", "{scale: 1}                   #"),
        ("push.to", "oci:a, b", 'to: "oci:.workbench/registry"', 'to: "oci:a, b"'),
        ("parity.atol", "1e-3", "counts\n", "counts\nparity: {atol: 1e-3}\n"),
        ("image.limits.memory", "1GiB", "memory: 512MiB", "memory: 1GiB"),
    ],
)  # fmt: skip
def test_a_setting_is_changed_and_no_other_byte(key: str, value: str, old: str, new: str) -> None:
    assert SHIPPED.count(old) == 1
    assert put(SHIPPED, key, value) == SHIPPED.replace(old, new)


def test_a_new_part_stands_where_the_order_of_a_recipe_has_it(project: Path) -> None:
    path = project / RECIPE
    path.write_text(path.read_text() + "seed: 3\n")
    after = edited(path, ["gate.metric_drop=0.02"]).after
    assert after.splitlines()[-2:] == ["gate: {metric_drop: 0.02}", "seed: 3"]


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("a", "{b: 2}", "a:   # about a\n  # one\n  b: 1   # x\n", "a: {b: 2}   # about a   # x\n"),
        ("a.z", "[1, 2]", "b: 1   # x\n", "b: 1   # x\n  z: [1, 2]\n"),
        ("c.0.y", "3", "y: 2", "y: 3"),
        ("c.1", "zz", "- z\n", "- zz\n"),
        ("d", "4", "d:   # none", "d: 4   # none"),
        ("d.e.f", "4", "d:   # none", "d: {e: {f: 4}}   # none"),
        ("e", "longer", "'q # no'      # c", "longer        # c"),
        ("f", "x", "f: |\n  lines\n  more\n", "f: x\n"),
        ("g.x", "1", "g: {}", "g: {x: 1}"),
        ("v1.5.x", "2", "{x: 1}", "{x: 2}"),
        ("i", "5", "h: 1", "h: 1\ni: 5"),
    ],
)
def test_awkward_yaml_is_changed_in_place(key: str, value: str, old: str, new: str) -> None:
    assert AWKWARD.count(old) == 1
    assert put(AWKWARD, key, value) == AWKWARD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "key", "old", "new"),
    [
        (SHIPPED, "gate.metric_drop", "  metric_drop: 0.015\n", ""),
        (SHIPPED, "gate.p99.of", "{of: variant, max", "{max"),
        (SHIPPED, "gate.p99.max", "of: variant, max: 50ms", "of: variant"),
        (SHIPPED, "variants.dynamic", "  dynamic: [{quantize: {to: int8, mode: dynamic}}]\n", ""),
        (SHIPPED, "push.to", '{to: "oci:.workbench/registry"}', "{}"),
        (AWKWARD, "a", "a:   # about a\n  # one\n  b: 1   # x\n", ""),
        (AWKWARD, "c.1", "  - z\n", ""),
        (AWKWARD, "c.0", "  - x: 1\n    y: 2\n", ""),
    ],
)
def test_a_setting_is_removed_and_no_other_byte(text: str, key: str, old: str, new: str) -> None:
    assert text.count(old) == 1
    assert cut(text, key) == text.replace(old, new)


def test_the_last_of_a_block_leaves_an_empty_one() -> None:
    assert data_of(cut(AWKWARD, "a.b"))["a"] == {}


def test_what_cannot_be_cut_out_is_refused_and_not_mangled() -> None:
    with pytest.raises(UsageError, match=r"c.0.x cannot be cut out"):
        cut(AWKWARD, "c.0.x")


@pytest.mark.parametrize("key", ["h.x", "c.7", "a..b", "c.x"])
def test_a_way_that_leads_nowhere_is_refused(key: str) -> None:
    with pytest.raises(UsageError):
        put(AWKWARD, key, "1")


def test_several_changes_are_one_write_and_told(project: Path) -> None:
    found = edited(project / RECIPE, ["seed=7", "gate={metric_drop: 0.02}"], ["data.calibrate", "variants"])
    write(found)
    text = (project / RECIPE).read_text()
    assert data_of(text)["gate"] == {"metric_drop": 0.02}
    assert "calibrate" not in text
    assert "# as trained" in text
    assert [(each["key"], each["now"]) for each in found.changed] == [
        ("data.calibrate", None),
        ("variants", None),
        ("seed", 7),
        ("gate", {"metric_drop": 0.02}),
    ]


def test_what_would_not_be_valid_is_not_written(project: Path) -> None:
    before = (project / RECIPE).read_bytes()
    with pytest.raises(RecipeError, match=r"line \d+: gate.metric_dorp: unknown key"):
        edited(project / RECIPE, ["seed=7", "gate.metric_dorp=0.02"])
    done = workbench(project, "edit", RECIPE, "seed=7", "--remove", "data.calibrate")
    assert done.returncode == 2
    assert "static quantization needs data.calibrate" in done.stderr
    assert (project / RECIPE).read_bytes() == before


def test_somebody_elses_change_is_not_overwritten(project: Path) -> None:
    path = project / RECIPE
    found = edited(path, ["seed=7"])
    path.write_text(path.read_text() + "tolerance: {latency: 1}\n")
    with pytest.raises(UsageError, match="changed meanwhile"):
        write(found)
    assert "tolerance" in path.read_text()


def test_the_command_tells_what_changed_and_can_only_show_it(project: Path) -> None:
    before = (project / RECIPE).read_text()
    shown = workbench(project, "edit", RECIPE, "model.preprocess.scale=0.5", "--dry-run")
    assert shown.returncode == 0
    assert "-  preprocess: {scale: 0.0625}\n+  preprocess: {scale: 0.5}\n" in shown.stdout
    assert (project / RECIPE).read_text() == before
    done = workbench(project, "edit", RECIPE, "model.preprocess.scale=0.5", "--json")
    told = json.loads(done.stdout)
    assert told["changed"] == [{"key": "model.preprocess.scale", "before": 0.0625, "now": 0.5}]
    assert told["written"] is True
    assert told["diff"] == shown.stdout
    assert (project / RECIPE).read_text() == before.replace("0.0625", "0.5")


@pytest.mark.parametrize("words", [(), ("seed",), ("=1",), ("--remove", "seed")])
def test_an_edit_that_says_nothing_is_refused(project: Path, words: tuple[str, ...]) -> None:
    assert workbench(project, "edit", RECIPE, *words).returncode == 2
