"""workbench batch goes on where it was killed, and takes no more memory for a larger file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_files import FORMATS, write
from server_models import affine
from support import workbench

from workbench.batch import score as scoring
from workbench.batch.score import Job, Progress, score
from workbench.errors import Cancelled, UsageError

ROWS = 20_000

KILLED_IN = """
import os, signal, sys
from pathlib import Path
from workbench.batch import score
score.CHECKPOINT_SECONDS = 0
def progress(now):
    if now.rows >= {rows}:
        os.kill(os.getpid(), signal.SIGKILL)
score.score(score.Job(Path("m.onnx"), Path(sys.argv[1]), Path(sys.argv[2]), skip=True), progress)
"""
"""Killed once so many rows are read, before that is written down."""

KILLED_AT_THE_END = """
import os, signal, sys
from pathlib import Path
from workbench.batch import journal, score
replace, publish, left = os.replace, journal.Journal.publish, [{step}]
def counted(*words, **more):
    left[0] -= 1
    if left[0] == 0 and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*words, **more)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def publishing(*words):
    os.replace = counted
    return publish(*words)
journal.Journal.publish = publishing
score.score(score.Job(Path("m.onnx"), Path(sys.argv[1]), Path(sys.argv[2]), skip=True))
"""
"""Killed before or after a rename among those that put the finished files in their places."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and rows in every format, one of them bad."""
    affine(tmp_path / "m.onnx")
    values = np.random.default_rng(3).standard_normal((ROWS, 3))
    values[15_000, 1] = 1e300
    for form in FORMATS:
        write(tmp_path / f"in.{form}", {"x": values})
    return tmp_path


def run(folder: Path, program: str, *words: str) -> int:
    return subprocess.run([sys.executable, "-c", program, *words], cwd=folder, check=False).returncode


def files(folder: Path, name: str) -> dict[str, bytes]:
    """What stands there under a name at the end."""
    found = {path.name.replace(name, "out", 1): path for path in folder.glob(f"{name}*")}
    record = json.loads(found.pop(next(key for key in found if key.endswith(".batch.json"))).read_bytes())
    assert record["rows"] == ROWS
    return {key: path.read_bytes() for key, path in found.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_killed_in_the_middle_it_goes_on_and_writes_the_same_bytes(folder: Path, form: str) -> None:
    whole = score(Job(folder / "m.onnx", folder / f"in.{form}", folder / f"whole.{form}", skip=True))
    assert (whole.rows, whole.rejected) == (ROWS, 1)
    for rows in (5000, 13_000, ROWS):  # killed again and again
        assert run(folder, KILLED_IN.format(rows=rows), f"in.{form}", f"out.{form}") == -signal.SIGKILL
        assert not (folder / f"out.{form}").exists()
    done = workbench(folder, "batch", "m.onnx", f"in.{form}", f"out.{form}", "--bad-rows", "skip", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] == 4 * 4096
    assert files(folder, "out") == files(folder, "whole")
    assert set(files(folder, "out")) == {f"out.{form}", f"out.{form}.rejected.jsonl"}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_killed_while_the_files_get_their_places_it_ends_the_same(folder: Path, step: int, after: bool) -> None:
    score(Job(folder / "m.onnx", folder / "in.npz", folder / "whole.npz", skip=True))
    program = KILLED_AT_THE_END.format(step=step, after=after)
    assert run(folder, program, "in.npz", "out.npz") == -signal.SIGKILL
    summary = score(Job(folder / "m.onnx", folder / "in.npz", folder / "out.npz", skip=True))
    assert (summary.rows, summary.rejected) == (ROWS, 1)
    assert files(folder, "out") == files(folder, "whole")


def test_what_is_finished_is_said_and_not_done_again(folder: Path) -> None:
    words = ("batch", "m.onnx", "in.npz", "out.csv", "--bad-rows", "skip")
    assert workbench(folder, *words).returncode == 0
    before = (folder / "out.csv").stat()
    done = workbench(folder, *words)
    assert done.returncode == 0
    assert done.stdout == "out.csv is finished already: 19,999 of 20,000 rows\n"
    assert (folder / "out.csv").stat().st_mtime_ns == before.st_mtime_ns


def stopped(folder: Path, **more: Any) -> Job:
    """A scoring that was stopped after its first chunk."""
    job = Job(folder / "m.onnx", folder / "in.csv", folder / "out.csv", **more)

    def stop(now: Progress) -> None:
        raise Cancelled(f"{now.rows}")

    with pytest.raises(Cancelled, match="4096"):
        score(job, stop)
    return job


def test_another_model_input_or_option_is_refused_until_told_to_begin_again(folder: Path) -> None:
    job = stopped(folder)
    with pytest.raises(UsageError, match="--outputs is another now"):
        score(Job(job.model, job.input, job.output, ("total",)))
    write(folder / "in.csv", {"x": np.ones((10, 3))})
    with pytest.raises(UsageError, match="the input is another now") as caught:
        score(job)
    assert "--fresh" in caught.value.cure
    summary = score(Job(job.model, job.input, job.output, fresh=True))
    assert (summary.rows, summary.resumed) == (10, 0)
    affine(folder / "m.onnx", 3.0)
    with pytest.raises(UsageError, match="is finished, but the model is another now"):
        score(job)


def test_bad_rows_may_be_left_out_from_the_one_on_that_ended_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "CHECKPOINT_SECONDS", 0)
    job = Job(folder / "m.onnx", folder / "in.jsonl", folder / "out.jsonl")
    with pytest.raises(UsageError, match=r"in.jsonl, line 15001: input 'x': a value is none of FP32"):
        score(job)
    summary = score(Job(job.model, job.input, job.output, skip=True))
    assert (summary.rows, summary.rejected, summary.resumed) == (ROWS, 1, 3 * 4096)


def test_a_file_of_somebody_else_is_not_overwritten(folder: Path) -> None:
    (folder / "out.csv").write_text("mine")
    job = Job(folder / "m.onnx", folder / "in.npz", folder / "out.csv", skip=True)
    with pytest.raises(UsageError, match="not what this command wrote"):
        score(job)
    assert (folder / "out.csv").read_text() == "mine"
    assert sorted(path.name for path in folder.glob("out*")) == ["out.csv"]


def test_two_commands_do_not_write_the_same_output(folder: Path) -> None:
    job = Job(folder / "m.onnx", folder / "in.npz", folder / "out.csv", skip=True)

    def meanwhile(_: Progress) -> None:
        with pytest.raises(UsageError, match="being written by another command"):
            score(job)

    score(job, meanwhile)


def test_sigterm_keeps_what_is_done(folder: Path) -> None:
    """The process stops itself in the middle, so nothing depends on how quick it is."""
    program = (
        "import os, signal, sys\n"
        "from workbench.batch import score\n"
        "add = score.CsvTarget.add\n"
        "score.CsvTarget.add = lambda *words: (add(*words), os.kill(os.getpid(), signal.SIGTERM))\n"
        "from workbench.__main__ import main\n"
        "sys.argv[1:] = ['batch', 'm.onnx', 'in.npz', 'out.csv', '--bad-rows', 'skip']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Stopped after 4,096 rows." in done.stderr
    assert score(Job(folder / "m.onnx", folder / "in.npz", folder / "out.csv", skip=True)).resumed == 4096


PEAK = """
import sys
from pathlib import Path
from workbench.batch.score import Job, score
score(Job(Path("m.onnx"), Path(sys.argv[1]), Path(sys.argv[2])))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""The peak of this program alone: what getrusage tells begins with that of the process which started it."""


@pytest.mark.parametrize(
    ("of", "into", "small", "large"),
    [
        ("npz", "npz", 40_000, 8_000_000),
        ("csv", "csv", 40_000, 1_000_000),
        ("jsonl", "npz", 40_000, 1_000_000),
        ("parquet", "parquet", 2_000_000, 16_000_000),  # a row group is held, so there must be one to compare with
    ],
)
def test_a_larger_file_takes_no_more_memory(tmp_path: Path, of: str, into: str, small: int, large: int) -> None:
    affine(tmp_path / "m.onnx")
    peaks, sizes = [], []
    for name, rows in (("small", small), ("large", large)):
        values = np.ones((rows, 3), np.float32)
        path = tmp_path / f"{name}.{of}"
        if of in ("npz", "parquet"):
            write(path, {"x": values})
        else:
            line = "0.12345678,0.12345678,0.12345678\n"
            path.write_text(line * rows if of == "csv" else ("[" + line[:-1] + "]\n") * rows)
        sizes.append(values.nbytes if of == "parquet" else path.stat().st_size)
        words = [sys.executable, "-c", PEAK, path.name, f"{name}-out.{into}"]
        peaks.append(int(subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout) * 1024)
    assert sizes[1] - sizes[0] > 15 << 20
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) // 2


@pytest.mark.integration
def test_a_full_disk_is_exit_6_and_the_same_command_goes_on(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "workbench-test", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    words = ("batch", "m.onnx", "in.npz", "disk/out.csv", "--bad-rows", "skip")
    try:
        done = workbench(folder, *words)
        assert done.returncode == 6, done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        assert workbench(folder, *words).returncode == 0
        score(Job(folder / "m.onnx", folder / "in.npz", folder / "whole.csv", skip=True))
        assert (disk / "out.csv").read_bytes() == (folder / "whole.csv").read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
