"""Runs: reuse, dry runs, resume, cancel, detach, and what bad input and a bad machine come to. With the real steps."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import git, run, workbench

from workbench import runs
from workbench.events import RunState

UNTIL = "evaluate/int8"


def until(folder: Path, happened: Callable[[RunState], bool]) -> RunState:
    """Follows a run until something has happened in it."""
    for state, _ in runs.follow(folder):
        if happened(state):
            return state
    raise AssertionError(f"the run ended before: {runs.state_of(folder)}")


def start(project: Path, *words: str) -> Path:
    done = workbench(project, "run", "recipes/digits.yaml", "--detach", *words)
    assert done.returncode == 0, done.stderr
    return runs.runs_folder(project) / done.stdout.strip()


def statuses(state: RunState) -> dict[str, str]:
    return {name: step.status for name, step in state.steps.items()}


@pytest.fixture
def edit(project: Path) -> Callable[[str, str], None]:
    def replace(old: str, new: str) -> None:
        path = project / "recipes" / "digits.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return replace


def test_what_did_not_change_is_reused_and_what_changed_is_made_again(
    project: Path, edit: Callable[[str, str], None]
) -> None:
    first = run(project, "--until", UNTIL)
    assert first.status == "done", first.error
    assert set(statuses(first).values()) == {"done"}
    second = run(project, "--until", UNTIL)
    assert set(statuses(second).values()) == {"reused"}
    assert [step.files for step in second.steps.values()] == [step.files for step in first.steps.values()]
    edit("mode: static", "mode: dynamic")
    third = statuses(run(project, "--until", UNTIL))
    assert third["model"] == third["data"] == third["evaluate/original"] == "reused"
    assert third["int8/quantize"] == "done"


def test_fresh_makes_everything_again_with_the_same_bytes(project: Path) -> None:
    first = run(project, "--until", UNTIL)
    again = run(project, "--until", UNTIL, "--fresh")
    assert set(statuses(again).values()) == {"done"}
    assert [step.files for step in again.steps.values()] == [step.files for step in first.steps.values()]


def test_a_dry_run_says_what_would_run_and_which_input_changed(project: Path, edit: Callable[[str, str], None]) -> None:
    def foreseen() -> dict[str, dict[str, Any]]:
        done = workbench(project, "run", "recipes/digits.yaml", "--dry-run", "--until", UNTIL, "--json")
        assert done.returncode == 0, done.stderr
        return {row["step"]: row for row in json.loads(done.stdout)}

    assert foreseen()["model"]["because"] == "never run"
    assert not (project / ".workbench").exists()
    run(project, "--until", UNTIL)
    assert {row["will"] for row in foreseen().values()} == {"reuse"}
    edit("scale: 0.0625", "scale: 0.125")
    rows = foreseen()
    assert rows["model"]["will"] == "run"
    assert "setting preprocess" in rows["model"]["because"]
    assert "0.0625" in rows["model"]["because"]
    assert rows["int8/quantize"]["will"] == "depends"


def test_neither_set_nor_until_writes_the_lock(project: Path) -> None:
    state = run(project, "--until", UNTIL, "--set", "seed=5")
    assert state.status == "done"
    assert any("lock is not written" in note for note in state.notes)
    assert git(project, "status", "--porcelain") == ""


def test_a_detached_run_goes_on_and_can_be_watched_listed_and_its_logs_read(project: Path) -> None:
    folder = start(project, "--until", UNTIL)
    watched = workbench(project, "watch", folder.name[:20])
    assert watched.returncode == 0, watched.stderr
    listed = json.loads(workbench(project, "runs", "--json").stdout)
    assert [(row["run"], row["status"]) for row in listed] == [(folder.name, "done")]
    assert workbench(project, "logs", folder.name, "int8/quantize").returncode == 0
    assert workbench(project, "logs", folder.name, "nothing").returncode == 2


def test_a_recipe_or_step_that_is_none_is_told_with_what_to_do(project: Path) -> None:
    folder = workbench(project, "run", "recipes")
    assert folder.returncode == 2
    assert folder.stderr == "workbench: recipes cannot be read: Is a directory.\nName a recipe that you may read.\n"
    for step, said in (("int8", "digits.yaml; did you mean"), ("xyz", "digits.yaml.\nIts steps: model, ")):
        done = workbench(project, "run", "recipes/digits.yaml", "--until", step)
        assert done.returncode == 2
        assert f"There is no step {step} in {said}" in done.stderr


def test_cancelling_ends_the_run_and_keeps_what_was_finished(project: Path) -> None:
    folder = start(project)
    until(folder, lambda state: state.steps.get("model") is not None and state.steps["model"].status == "done")
    assert workbench(project, "cancel", folder.name).returncode == 0
    state = runs.state_of(folder)
    assert (state.status, state.exit_code) == ("cancelled", 130)
    assert "failed" not in statuses(state).values()
    assert list((project / ".workbench" / "tmp").iterdir()) == []
    assert statuses(run(project, "--until", "model")) == {"model": "reused"}


def test_an_interrupt_at_the_watching_command_cancels_the_run(project: Path) -> None:
    command = [sys.executable, "-m", "workbench", "run", "recipes/digits.yaml"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline()  # it has something to tell, so it watches
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert runs.state_of(runs.all_runs(project)[0]).status == "cancelled"


def test_an_interrupt_while_the_command_loads_says_nothing_and_is_130() -> None:
    program = (
        "from workbench import __main__\ndef stop(): raise KeyboardInterrupt\n__main__._command = stop\n__main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_hangup_of_the_terminal_leaves_the_run_running(project: Path) -> None:
    command = [sys.executable, "-m", "workbench", "run", "recipes/digits.yaml", "--until", UNTIL]
    with subprocess.Popen(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Below nohup the test run itself ignores hangups, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode != 0
    assert until(runs.all_runs(project)[0], lambda state: state.status == "done").exit_code == 0


def test_a_run_whose_process_was_killed_has_died_and_the_next_one_goes_on(project: Path) -> None:
    folder = start(project, "--until", UNTIL)
    until(folder, lambda state: "model" in state.steps and state.steps["model"].status == "done")
    os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
    assert until(folder, lambda state: state.status == "died").exit_code is None
    state = run(project, "--until", UNTIL)
    assert state.status == "done"
    assert state.steps["model"].status == "reused"
    assert list((project / ".workbench" / "tmp").iterdir()) == []


def test_a_worker_that_the_kernel_kills_is_a_failed_step_and_nothing_is_lost(project: Path) -> None:
    import psutil

    folder = start(project, "--until", UNTIL)
    state = until(folder, lambda state: any(step.status == "running" for step in state.steps.values()))
    running = next(name for name, step in state.steps.items() if step.status == "running")
    process = psutil.Process(state.pid)
    while not (workers := process.children()):
        assert runs.is_alive(folder)
    for worker in workers:
        worker.kill()
    ended = until(folder, lambda state: state.status in ("failed", "done"))
    assert ended.exit_code == 7, ended
    assert ended.error is not None
    assert "killed by the system" in ended.error["message"]
    assert running in ended.error["message"] or ended.steps[running].status == "done"
    last = run(project, "--until", UNTIL)
    assert last.status == "done", (last.run, last.error)


def test_eight_runs_at_once_share_one_store(project: Path) -> None:
    folders = [start(project, "--until", UNTIL) for _ in range(8)]
    states = [until(folder, lambda state: state.status != "running") for folder in folders]
    assert [state.status for state in states] == ["done"] * 8
    assert len({json.dumps([dict(step.files) for step in state.steps.values()]) for state in states}) == 1
    made = [step.id for state in states for step in state.steps.values() if step.status == "done"]
    assert sorted(made) == sorted(set(made)), "each thing was made once"
    assert list((project / ".workbench" / "tmp").iterdir()) == []


def npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, allow_pickle=True, **arrays)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d: (d / "digits.onnx").write_bytes((d / "digits.onnx").read_bytes()[:5000]), "digits.onnx"),
        (lambda d: (d / "digits.onnx").write_bytes(b"\x08\x07" + os.urandom(4000)), "digits.onnx"),
        (lambda d: npz(d / "test.npz", x=np.zeros((4, 3), np.float32), y=np.zeros(4, np.int64)), "test.npz"),
        (lambda d: npz(d / "test.npz", x=np.zeros((0, 1, 8, 8), np.float32), y=np.zeros(0, np.int64)), "test.npz"),
        (lambda d: npz(d / "test.npz", x=np.array([{}, []], dtype=object)), "test.npz"),
        (
            lambda d: npz(d / "test.npz", x=np.full((4, 1, 8, 8), np.nan, np.float32), y=np.zeros(4, np.int64)),
            "test.npz",
        ),
        (lambda d: (d / "calibrate.npz").write_bytes(b"PK\x03\x04 no zip at all"), "calibrate.npz"),
    ],
    ids=["truncated", "corrupt", "wrong shape", "zero samples", "objects", "nan", "no npz"],
)
def test_bad_input_is_one_sentence_naming_the_file_and_exit_2(
    project: Path, break_it: Callable[[Path], object], words: str
) -> None:
    break_it(project / "assets" / "digits")
    done = workbench(project, "run", "recipes/digits.yaml", "--until", UNTIL)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "recipes" / "digits.lock.yaml").exists()
    assert list((project / ".workbench" / "tmp").iterdir()) == []


def test_an_npz_that_unpacks_to_a_thousand_times_its_size_is_not_a_way_to_fill_the_memory(project: Path) -> None:
    bomb = project / "assets" / "digits" / "test.npz"
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 1, 8, 8), }"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.ljust(127) + b"\n" + bytes(1 << 20))
    done = workbench(project, "run", "recipes/digits.yaml", "--until", "data")
    assert done.returncode == 2, done.stderr
    assert "test.npz" in done.stderr


def test_a_typo_in_the_recipe_starts_no_run_and_writes_nothing(project: Path) -> None:
    done = workbench(project, "run", "recipes/digits.yaml", "--set", "gate.metric_dorp=1")
    assert done.returncode == 2
    assert "did you mean 'metric_drop'" in done.stderr
    assert not (project / ".workbench").exists()


def test_a_store_that_cannot_be_written_is_told_and_exit_6(project: Path) -> None:
    (project / ".workbench").write_text("a file in the way")
    done = workbench(project, "run", "recipes/digits.yaml")
    assert done.returncode == 6
    assert ".workbench" in done.stderr
    assert "Traceback" not in done.stderr


def test_results_go_to_stdout_and_everything_else_to_stderr_without_colour(project: Path) -> None:
    done = workbench(project, "run", "recipes/digits.yaml", "--until", UNTIL)
    assert "int8/quantize" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_where_no_variant_keeps_the_gates_it_is_exit_3_and_nothing_is_locked(project: Path) -> None:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + "gate: {model_size: 1kB}\n")
    done = workbench(project, "run", "recipes/digits.yaml")
    assert done.returncode == 3, done.stderr
    assert "The closest is int8" in done.stderr
    assert "int8" in done.stdout
    assert not (project / "recipes" / "digits.lock.yaml").exists()


def test_a_port_that_is_taken_is_one_sentence(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = workbench(project, "serve", "assets/digits/digits.onnx", "--port", str(port))
    assert done.returncode == 2, done.stderr
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_engine_for_the_image_nothing_is_made_and_the_dry_run_says_so_too(
    project: Path, edit: Callable[[str, str], None]
) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{project}/none.sock"}
    edit("variants:", "image: {builder: docker}\nvariants:")
    dry = workbench(project, "run", "recipes/digits.yaml", "--dry-run", **nowhere)
    assert dry.returncode == 6
    assert "No container engine answers" in dry.stderr
    assert "model" in dry.stdout
    done = workbench(project, "run", "recipes/digits.yaml", **nowhere)
    assert done.returncode == 6, done.stderr
    found = statuses(runs.state_of(runs.all_runs(project)[0]))
    assert found["image"] == "failed"
    assert set(found.values()) == {"failed", "skipped"}
    # What needs no engine is made without one.
    assert workbench(project, "run", "recipes/digits.yaml", "--until", "model", **nowhere).returncode == 0
