"""Replay: makes everything again from the lock, and says what differs and why, with its exit code."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from support import git, workbench

pytestmark = pytest.mark.timeout(900)


def replay(project: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code of a replay and what it found."""
    done = workbench(project, "replay", "recipes/digits.yaml", "--json", *words)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


@pytest.fixture
def locked(project: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The project after a run, with its lock committed. What others do on this machine must not decide a test."""

    def make(folder: Path) -> None:
        shutil.copytree(project, folder)
        path = folder / "recipes" / "digits.yaml"
        path.write_text(path.read_text() + "tolerance: {latency: 1000}\n")
        done = workbench(folder, "run", "recipes/digits.yaml")
        assert done.returncode == 0, done.stderr
        assert git(folder, "log", "--format=%s", "-1") == "digits: first lock\n"

    made = made_once("locked", make)
    shutil.rmtree(project)
    return Path(shutil.copytree(made, project))


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_everything_is_made_again_in_an_empty_store_and_nothing_is_written(locked: Path) -> None:
    before = (locked / "recipes" / "digits.lock.yaml").read_bytes()
    objects = sorted((locked / ".workbench" / "store").rglob("*"))
    head = git(locked, "rev-parse", "HEAD")
    code, found = replay(locked, "--junit", "j.xml", "--summary", "s.md")
    assert code == 0, found
    assert found["verdict"]["reused"] == 0
    assert found["verdict"]["reproduced"] == 5
    assert (locked / "recipes" / "digits.lock.yaml").read_bytes() == before
    assert sorted((locked / ".workbench" / "store").rglob("*")) == objects
    assert list((locked / ".workbench" / "replays").iterdir()) == []
    assert git(locked, "rev-parse", "HEAD") == head
    assert ET.parse(locked / "j.xml").getroot().tag in ("testsuite", "testsuites")
    assert "digits" in (locked / "s.md").read_text()


def test_one_changed_weight_is_exit_4_and_names_the_model_source(locked: Path) -> None:
    path = locked / "assets" / "digits" / "digits.onnx"
    model = onnx.load(path)
    weight = next(item for item in model.graph.initializer if len(item.raw_data) > 1000)
    raw = bytearray(weight.raw_data)
    raw[1] ^= 1
    weight.raw_data = bytes(raw)
    onnx.save(model, path)
    code, found = replay(locked, "--cached")
    assert code == 4, found
    assert found["verdict"]["cause"].startswith("model.source")
    assert found["error"]["kind"] == "ArtifactDiffers"


def test_at_the_level_of_figures_other_bytes_are_told_and_pass(locked: Path) -> None:
    edit(locked / "recipes" / "digits.lock.yaml", "instruction_set: x86-64", "instruction_set: other")
    lock = locked / "recipes" / "digits.lock.yaml"
    made = next(line for line in lock.read_text().splitlines() if "int8/quantize:" in line)
    edit(lock, made, f"{made[:-4]}0000")
    code, found = replay(locked, "--cached", "--level", "figures")
    assert code == 0, found
    assert found["verdict"]["cause"].startswith("instruction set")
    assert replay(locked, "--cached")[0] == 4


def test_a_gate_that_cannot_hold_is_exit_3(locked: Path) -> None:
    edit(locked / "recipes" / "digits.yaml", "tolerance:", "gate: {model_size: 1kB}\ntolerance:")
    code, found = replay(locked, "--cached")
    assert code == 3, found
    assert "model_size" in found["error"]["message"]


def test_a_figure_that_is_worse_than_locked_is_exit_5(locked: Path) -> None:
    lock = locked / "recipes" / "digits.lock.yaml"
    size = next(line for line in lock.read_text().splitlines() if "int8.size:" in line)
    after = lock.read_text().split(size)[1].splitlines()[1]
    edit(lock, f"{size}\n{after}", f"{size}\n        value: 1000.0")
    code, found = replay(locked, "--cached")
    assert code == 5, found
    assert "int8.size" in found["error"]["message"]


def test_a_typo_is_exit_2(locked: Path) -> None:
    edit(locked / "recipes" / "digits.yaml", "metric: accuracy", "metric: acuracy")
    assert replay(locked)[0] == 2


@pytest.mark.parametrize("command", ["replay", "run"])
def test_another_onnxruntime_is_exit_6_before_any_step_and_is_named(locked: Path, command: str) -> None:
    lock = locked / "recipes" / "digits.lock.yaml"
    line = next(line for line in lock.read_text().splitlines() if line.strip().startswith("onnxruntime:"))
    edit(lock, line, f"{line.split(':')[0]}: 1.31.0")
    done = workbench(locked, command, "recipes/digits.yaml", "--json")
    assert done.returncode == 6
    assert "onnxruntime 1.31.0 → " in done.stderr
    assert "pip install 'onnxruntime==1.31.0'" in done.stderr


def test_without_a_lock_it_is_exit_2_with_the_command_that_makes_one(project: Path) -> None:
    done = workbench(project, "replay", "recipes/digits.yaml")
    assert done.returncode == 2
    assert "workbench run" in done.stderr


def test_figures_of_another_machine_are_not_compared_and_it_says_so(locked: Path) -> None:
    lock = locked / "recipes" / "digits.lock.yaml"
    host = next(line for line in lock.read_text().splitlines() if line.startswith("  ") and " cores, " in line)
    edit(lock, host, "  Another CPU, 64 cores, 512 GiB:")
    code, found = replay(locked, "--cached")
    assert code == 0, found
    assert any("Another CPU" in remark for remark in found["verdict"]["remarks"])


def test_the_worst_exit_code_of_several_recipes_is_the_one_given(locked: Path) -> None:
    path = locked / "recipes" / "digits.yaml"
    other = locked / "recipes" / "other.yaml"
    other.write_text(path.read_text())
    done = workbench(locked, "replay", "recipes/digits.yaml", "recipes/other.yaml", "--cached")
    assert done.returncode == 2


def unchanged(project: Path, act: Callable[[], object]) -> None:
    lock = project / "recipes" / "digits.lock.yaml"
    before = lock.read_bytes()
    act()
    assert lock.read_bytes() == before


def test_a_run_with_nothing_changed_leaves_the_lock_and_makes_no_commit(locked: Path) -> None:
    head = git(locked, "rev-parse", "HEAD")
    unchanged(locked, lambda: workbench(locked, "run", "recipes/digits.yaml"))
    assert git(locked, "rev-parse", "HEAD") == head


def test_diff_shows_what_changed_in_recipe_and_lock(locked: Path) -> None:
    edit(locked / "recipes" / "digits.yaml", "scale: 0.0625", "scale: 0.125")
    done = workbench(locked, "diff", "recipes/digits.yaml", "--json")
    assert json.loads(done.stdout) == [
        {"where": "recipe", "what": "model.preprocess.scale", "before": "0.0625", "now": "0.125"}
    ]
    rows = json.loads(workbench(locked, "diff", "recipes/digits.yaml", "HEAD~1", "--json").stdout)
    assert any(row["where"] == "lock" and row["before"] == "—" for row in rows)


def test_export_gives_the_chosen_model_out(locked: Path, tmp_path: Path) -> None:
    done = workbench(locked, "export", "recipes/digits.yaml", "int8", "-o", str(tmp_path / "new" / "m.onnx"))
    assert done.returncode == 0, done.stderr
    onnx.checker.check_model(onnx.load(tmp_path / "new" / "m.onnx"))
    assert workbench(locked, "export", "recipes/digits.yaml", "none", "-o", str(tmp_path / "n.onnx")).returncode == 2
    assert not (tmp_path / "n.onnx").exists()


def test_a_store_that_gc_may_not_write_is_told(project: Path) -> None:
    (project / ".workbench/store/locks/scratch").mkdir(parents=True)
    done = workbench(project, "gc")
    assert done.returncode == 6
    assert "locks/scratch cannot be written: Is a directory." in done.stderr


def test_status_and_gc(locked: Path) -> None:
    def status() -> str:
        return str(json.loads(workbench(locked, "status", "--json").stdout)[0]["status"])

    assert status() == "as locked"
    (locked / ".workbench" / "store" / "objects" / "00").mkdir(exist_ok=True)
    (locked / ".workbench" / "store" / "objects" / "00" / ("00" * 32)).write_bytes(b"nobody's")
    rows = {row["removed"]: row for row in json.loads(workbench(locked, "gc", "--json").stdout)}
    assert rows["objects"]["files"] == 1
    again = workbench(locked, "run", "recipes/digits.yaml", "--dry-run", "--json")
    assert {row["will"] for row in json.loads(again.stdout)} == {"reuse", "decide"}
    edit(locked / "recipes" / "digits.yaml", "scale: 0.0625", "scale: 0.125")
    assert status() == "changed since"
