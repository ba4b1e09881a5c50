from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterable
from pathlib import Path

import example_run
import pytest

from screens import console
from workbench import runs
from workbench.events import AnyEvent, EventLog

WATCH = (
    "import sys, pathlib; from screens.console import watch; watch(pathlib.Path(sys.argv[1]), json=len(sys.argv) > 2)"
)


def folder(tmp_path: Path, found: Iterable[AnyEvent]) -> Path:
    return example_run.record(found, tmp_path / "20260101-120000-digits-beef")


def on_a_terminal(run: Path, *, stdout_too: bool, **environment: str) -> tuple[str, str]:
    """What ``watch`` writes to a terminal of 80 by 24 on stderr (and stdout), and to a pipe on stdout."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(run)],
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout_too else subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    piped, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n"), (piped or b"").decode()


def test_in_a_pipe_each_step_is_a_line_when_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = console.watch(folder(tmp_path, example_run.run_events()))
    out, err = capsys.readouterr()

    lines = err.splitlines()
    assert lines[:2] == ["done    model  1.2 s", "done    data  1.2 s"]
    assert "reused  base" in lines
    assert "note    parity: The image took requests 0.41 s after its start." in lines
    assert "note    Recipe and lock were committed." in lines
    assert len(lines) == len(example_run.VALUES) + 2
    assert out.startswith("digits: done")
    assert state.exit_code == 0
    assert "\x1b" not in out + err


def test_a_row_of_the_report_is_one_line_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.watch(folder(tmp_path, example_run.run_events()))
    out = capsys.readouterr().out

    why = "the whole interval of the drop in accuracy is within the limit; 2 of 360 decisions changed"
    assert any("metric_drop" in line and line.endswith(why) for line in out.splitlines())
    assert f"config {example_run.CONFIG}" in out
    assert "…" not in out


def test_a_terminal_sees_the_steps_move_and_the_pipe_beside_it_stays_plain(tmp_path: Path) -> None:
    shown, piped = on_a_terminal(folder(tmp_path, example_run.run_events()), stdout_too=False)

    assert "\x1b[" in shown
    assert "✓ done" in shown
    assert "↻ reused" in shown
    assert "note    Recipe and lock were committed." in shown
    assert "Variants" not in shown
    assert piped.startswith("digits: done")
    assert "\x1b" not in piped


@pytest.mark.parametrize("quieten", [{"NO_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_gets_quiet_lines_and_no_ansi(tmp_path: Path, quieten: dict[str, str]) -> None:
    shown, _ = on_a_terminal(folder(tmp_path, example_run.run_events()), stdout_too=True, **quieten)

    assert "\x1b" not in shown
    assert "done    model  1.2 s\n" in shown
    assert "Chosen: int8" in shown


def test_the_report_at_a_terminal_of_80_columns_fits(tmp_path: Path) -> None:
    shown, _ = on_a_terminal(folder(tmp_path, example_run.run_events()), stdout_too=True, NO_COLOR="1")

    report = shown[shown.index("digits: done") :]
    assert max(map(len, report.splitlines())) <= 80
    assert "significantly" in report


def test_json_is_one_object_on_stdout_with_stable_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.watch(folder(tmp_path, example_run.run_events()), json=True)
    out = capsys.readouterr().out

    assert out.count("\n") == 1
    found = json.loads(out)
    assert list(found) == [
        "run",
        "recipe",
        "name",
        "mode",
        "command",
        "status",
        "exit_code",
        "error",
        "started",
        "seconds",
        "machine",
        "steps",
        "variants",
        "choice",
        "image",
        "parity",
        "benchmarks",
        "pushed",
        "lock",
        "verdict",
        "notes",
    ]
    assert found["choice"]["choice"] == "int8"
    assert [each["name"] for each in found["variants"]] == ["original", "int8", "int8-dynamic"]
    assert found["variants"][1]["latency"]["verdict"] == "faster"
    assert found["variants"][1]["chosen"] is True
    assert found["image"]["config"] == example_run.CONFIG
    assert found["lock"]["commit"] == example_run.COMMIT
    assert found["benchmarks"]["alone"]["process"]["p50_ns"] == 150_000


def test_json_has_no_number_of_an_invalid_benchmark_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.watch(folder(tmp_path, example_run.run_events()), json=True)
    image = json.loads(capsys.readouterr().out)["benchmarks"]["busy"]["image"]

    assert image["valid"] is False
    assert image["reasons"] == ["3 of 2000 requests failed (the first: HTTP 503)."]
    assert not {"p50_ns", "p50_interval_ns", "throughput_qps"} & set(image)


def test_json_of_a_run_that_failed_at_once_has_the_same_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = console.as_json(example_run.state(example_run.run_events()))
    console.watch(folder(tmp_path, example_run.failed_events("model", "Broken.")), json=True)
    found = json.loads(capsys.readouterr().out)

    assert list(found) == list(whole)
    assert found["image"] is found["choice"] is found["lock"] is found["verdict"] is None


def test_json_of_a_replay_has_the_verdict() -> None:
    verdict = console.as_json(example_run.state(example_run.replay_events()))["verdict"]
    assert (verdict["reproduced"], verdict["reused"], verdict["level"]) == (7, 0, "exact")
    assert len(verdict["same"]) == 7


def test_an_error_is_a_sentence_and_its_cure_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example_run.failed_events("parity", "The image does not answer as the model does.", "Widen parity: here.")
    state = console.watch(folder(tmp_path, found))
    out, err = capsys.readouterr()

    assert "failed  parity\n" in err
    assert err.count("does not answer") == 1
    assert err.endswith("The image does not answer as the model does.\nWiden parity: here.\n")
    assert "does not answer" not in out
    assert "Variants" in out, "what was found out before stays visible"
    assert "Measured on" in out
    assert state.exit_code == 7


def test_a_run_whose_process_is_gone_says_so_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = console.watch(folder(tmp_path, example_run.run_events()[:20]))

    assert state.status == "died"
    told, cure = capsys.readouterr().err.splitlines()[-2:]
    assert told.startswith("Run 20260101-120000-digits-beef is gone without a last word: its process was killed")
    assert cure == "Finished steps are kept; go on with: workbench run recipes/digits.yaml"


def test_a_run_is_followed_until_its_end_while_it_is_alive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path, [])
    (run / "events.jsonl").unlink()
    log = EventLog(run / "events.jsonl")
    coming = iter(example_run.run_events())
    follow = runs.follow

    def come(lock: int) -> None:
        """The next event; after the last one, the process that held the lock is gone."""
        if (event := next(coming, None)) is not None:
            log.write(event)
        else:
            fcntl.flock(lock, fcntl.LOCK_UN)

    with (run / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(runs, "follow", lambda run: follow(run, lambda _: come(lock.fileno())))
        state = console.watch(run)
        assert not runs.is_alive(run)
    log.close()

    assert state.status == "done"
    assert next(coming, None) is None
    assert capsys.readouterr().err.count("\n") == len(example_run.VALUES) + 2


def test_a_reader_that_went_away_is_no_error(tmp_path: Path) -> None:
    run = folder(tmp_path, example_run.run_events())
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run([sys.executable, "-c", WATCH, str(run)], stdout=writable, stderr=subprocess.PIPE, timeout=60)
    os.close(writable)

    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Broken pipe" not in done.stderr


def test_an_encoding_without_the_letters_is_no_error(tmp_path: Path) -> None:
    run = folder(tmp_path, example_run.run_events())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", WATCH, str(run)], capture_output=True, timeout=60, env=environment)

    assert done.returncode == 0
    assert b"150.0 ?s [147.0, 153.0]" in done.stdout
