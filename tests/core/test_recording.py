"""Recordings: what they hold of a run, what they must not hold, and what is said of files that are none."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import ROOT, workbench

from workbench import events, recorder, recording, runs, scrub
from workbench.errors import MachineLacks, UsageError
from workbench.events import EventLog
from workbench.recording import Recording, unpack

RUN = "20261124-100000.000-digits-aaaa"
TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5"


def leave_run(project: Path, *, end: bool = True) -> Path:
    """The run folder of a run of the digits recipe, as far as its model step; at its end unless ``end`` is false."""
    run = runs.runs_folder(project) / RUN
    (run / "logs").mkdir(parents=True)
    recipe = str(project / "recipes/digits.yaml")
    asked = runs.Request(project=str(project), recipe=recipe, command=["workbench", "demo"])
    (run / "request.json").write_text(json.dumps(asdict(asked)))
    (run / "lock").touch()
    log = EventLog(run / "events.jsonl")
    log.write(
        events.RunStarted(
            run=RUN,
            recipe="recipes/digits.yaml",
            name="digits",
            mode="run",
            command=["workbench", "demo", str(project)],
            pid=1,
            machine={"class": {"cpu": "Example CPU", "cores": 2}},
            workbench="0.1.0",
        )
    )
    log.write(events.Planned(steps=[("model", "model"), ("image", "image")]))
    log.write(events.StepStarted(step="model", key="k", ingredients={}))
    log.write(events.StepNote(step="model", text=f"read {project}/assets/digits/digits.onnx on atlas-7 for mona"))
    log.write(
        events.StepFinished(step="model", key="k", reused=False, files={}, values={"token": TOKEN}, ingredients={})
    )
    if end:
        log.write(events.RunFinished(status="done", exit_code=0))
    log.close()
    sample = {"time": 1.0, "step": "model", "kind": "sensors", "values": {"cpu": 12.5}}
    (run / "samples.jsonl").write_text(json.dumps(sample) + '\n{"time": 2')
    (run / "logs/model.txt").write_text(f"in {Path.home()}/.cache, user mona\nGITHUB_TOKEN={TOKEN}\ndone\n")
    return run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a run on a machine called atlas-7, of a user called mona; in its project folder."""
    folder = tmp_path_factory.mktemp("recorded")
    for name in ("digits.onnx", "test.npz", "calibrate.npz"):
        (folder / "assets/digits").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "assets/digits" / name, folder / "assets/digits" / name)
    (folder / "recipes").mkdir()
    shutil.copyfile(ROOT / "recipes/digits.yaml", folder / "recipes/digits.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "atlas-7.example.net")
        patch.setenv("USER", "mona")
        recorder.write(leave_run(folder), folder / "digits.workbench-run")
    return folder


@pytest.fixture
def opened(recorded: Path, tmp_path: Path) -> Recording:
    return unpack(recorded / "digits.workbench-run", tmp_path / "opened")


def test_a_recording_has_the_run_as_it_was(recorded: Path, opened: Recording) -> None:
    state, was = runs.state_of(opened.run), runs.state_of(runs.runs_folder(recorded) / RUN)

    assert {name: step.status for name, step in state.steps.items()} == {"model": "done", "image": "skipped"}
    assert (state.status, state.started, state.ended) == ("done", was.started, was.ended)
    assert state.machine == was.machine
    assert (opened.folder / "recipes/digits.yaml").read_text() == (ROOT / "recipes/digits.yaml").read_text()
    assert (opened.run / "logs/model.txt").read_text().endswith("done\n")


def test_of_the_samples_of_a_run_that_was_killed_the_whole_lines_are_kept(opened: Recording) -> None:
    lines = (opened.run / "samples.jsonl").read_text().splitlines()

    assert [json.loads(line)["values"] for line in lines] == [{"cpu": 12.5}]


def test_a_recording_has_what_the_commands_answered_that_the_app_asks(opened: Recording) -> None:
    answers = {each.words: each for each in opened.manifest.answers}

    model = answers["inspect", "assets/digits/digits.onnx", "--json"]
    assert model.exit_code == 0
    assert json.loads(model.stdout)["parameters"] > 100_000
    checked = answers["validate", "recipes/digits.yaml", "--stdin", "--json"]
    assert json.loads(checked.stdout)[0]["valid"]


def test_what_a_command_could_not_tell_any_more_is_left_out(opened: Recording) -> None:
    """No image is in the store: this run has made none."""
    assert not any("image" in each.words for each in opened.manifest.answers)


def test_a_recording_tells_nothing_of_the_machine_the_user_or_where_things_lie(recorded: Path) -> None:
    with zipfile.ZipFile(recorded / "digits.workbench-run") as archive:
        whole = b"\n".join(archive.read(name) for name in archive.namelist()).decode()

    for private in (str(recorded), str(Path.home()) + "/", "atlas", "mona", TOKEN):
        assert private not in whole
    assert "read /project/assets/digits/digits.onnx on host for user" in whole
    assert "in ~/.cache, user user" in whole
    assert "[GitHub token removed]" in whole


def test_what_was_taken_out_is_counted(project: Path, tmp_path: Path) -> None:
    written = recorder.write(leave_run(project), tmp_path / "x.workbench-run")

    assert written.removed["secret"] == 2
    assert written.size == (tmp_path / "x.workbench-run").stat().st_size
    assert written.notes == ()


def test_a_user_who_is_called_like_a_step_changes_no_step(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "sensors")
    scrubber = scrub.Scrubber(project, "name: digits")
    sample = {"kind": "sensors", "step": "sensors", "values": {"who": "sensors"}}

    assert scrubber.value(sample) == {**sample, "values": {"who": "user"}}
    monkeypatch.setenv("USER", "digits")
    assert scrub.Scrubber(project, "name: digits").text("digits") == "digits"


def test_folders_are_found_where_they_end_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    scrubber = scrub.Scrubber(Path("/srv/team/net"))

    assert scrubber.text("cp /srv/team/net/a -I/srv/team/net.") == "cp /project/a -I/project."
    assert scrubber.text("/srv/team/network /srv/team/net-2") == "/srv/team/network /srv/team/net-2"
    assert scrubber.text('"/root/.netrc" /x/root') == '"~/.netrc" /x/root'
    assert scrubber.text("see /home/lisa/notes") == "see ~/notes"


def test_a_run_at_work_is_not_recorded(project: Path, tmp_path: Path) -> None:
    run = leave_run(project, end=False)
    with (run / "lock").open("ab") as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is at work"):
            recorder.write(run, tmp_path / "x.workbench-run")

    assert not list(tmp_path.glob("*workbench-run*"))


def test_of_a_recipe_that_was_changed_since_nothing_is_told_that_was_not_so_then(project: Path, tmp_path: Path) -> None:
    run = leave_run(project)
    (project / "recipes/digits.yaml").write_text((project / "recipes/digits.yaml").read_text() + "seed: 7\n")
    written = recorder.write(run, tmp_path / "x.workbench-run")
    manifest = unpack(tmp_path / "x.workbench-run", tmp_path / "opened").manifest

    assert "was changed after this run" in written.notes[0]
    assert manifest.notes == written.notes
    assert manifest.answers == ()


def test_of_a_run_that_others_followed_it_is_not_told_what_commands_say_after_those(
    project: Path, tmp_path: Path
) -> None:
    run = leave_run(project)
    shutil.copytree(run, run.with_name("20261124-110000.000-digits-bbbb"))
    written = recorder.write(run, tmp_path / "x.workbench-run")

    assert "not the newest run" in written.notes[0]
    assert unpack(tmp_path / "x.workbench-run", tmp_path / "opened").manifest.answers == ()


def test_of_a_long_log_the_end_is_kept_and_that_is_said(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LOG_BYTES", 4000)
    run = leave_run(project)
    (run / "logs/model.txt").write_text("".join(f"line {number}\n" for number in range(10_000)))
    recorder.write(run, tmp_path / "x.workbench-run")
    log = (unpack(tmp_path / "x.workbench-run", tmp_path / "opened").run / "logs/model.txt").read_text()

    assert "before this are not in the recording" in log.splitlines()[0]
    assert log.splitlines()[-1] == "line 9999"
    assert len(log) < 4000


def test_a_run_that_is_too_large_is_told_and_leaves_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recording.LIMITS, "events.jsonl", 100)

    with pytest.raises(UsageError, match=r"events\.jsonl of this run is larger"):
        recorder.write(leave_run(project), tmp_path / "x.workbench-run")
    assert not list(tmp_path.glob("*workbench-run*"))


def test_a_recording_that_cannot_be_written_is_told_and_its_folder_is_made(project: Path, tmp_path: Path) -> None:
    run = leave_run(project)
    with pytest.raises(MachineLacks, match="cannot be written: File name too long"):
        recorder.write(run, tmp_path / f"{'x' * 300}.workbench-run")  # taking half of it away fails as well
    with pytest.raises(MachineLacks, match="cannot be written: Is a directory") as caught:
        recorder.write(run, tmp_path)
    assert caught.value.cure == "Name a file in a folder that is there."
    with pytest.raises(MachineLacks, match=r"^\. cannot be written"):
        recorder.write(run, Path())
    recorder.write(run, tmp_path / "new" / "x.workbench-run")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.workbench-run"]


def test_the_command_writes_the_newest_run_and_tells_it(project: Path) -> None:
    leave_run(project)
    done = workbench(project, "record", "-o", "digits.workbench-run", "--json")

    assert json.loads(done.stdout)["removed"]["secret"] == 2
    assert unpack(project / "digits.workbench-run", project / "opened").manifest.run == RUN


def rewritten(file: Path, to: Path, change: Callable[[dict[str, bytes]], Any]) -> Path:
    """The recording with its parts changed."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return to


def manifest(**other: Any) -> Callable[[dict[str, bytes]], None]:
    """A change of the manifest."""

    def change(parts: dict[str, bytes]) -> None:
        parts["recording.json"] = msgspec.json.encode({**msgspec.json.decode(parts["recording.json"]), **other})

    return change


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "a way out": (lambda parts: parts.update({"../evil.txt": b"x"}), r"it holds '\.\./evil\.txt'"),
    "a way out of the logs": (lambda parts: parts.update({"logs/../../evil.txt": b"x"}), "it holds"),
    "an absolute path": (lambda parts: parts.update({"/tmp/evil.txt": b"x"}), "it holds"),
    "another file": (lambda parts: parts.update({"logs/run.sh": b"x"}), "it holds"),
    "a recipe elsewhere": (manifest(recipe="../../home/x.yaml"), "it is of"),
    "a recipe at the root": (manifest(recipe="/etc/x.yaml"), "it is of"),
    "a recipe that is none": (manifest(recipe="recipes/digits.sh"), "it is of"),
    "a run elsewhere": (manifest(run="../x"), "it is of"),
    "a newer one": (manifest(recording=2), "a newer workbench"),
    "an odd one": (manifest(answers=[{"words": 3}]), "recording.json says"),
    "no manifest": (lambda parts: parts.pop("recording.json"), "it has no recording.json"),
    "no events": (lambda parts: parts.pop("events.jsonl"), "it has no events.jsonl"),
    "nested without end": (lambda parts: parts.update({"recording.json": b"[" * 100_000}), "recording.json says"),
    "no JSON": (lambda parts: parts.update({"recording.json": b"\xff\xfe"}), "recording.json says"),
    "too large": (lambda parts: parts.update({"recipe.yaml": b" " * (2 << 20)}), "recipe.yaml in .* has 2097152 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_no_recorder_wrote_is_told_and_puts_nothing_elsewhere(
    recorded: Path, tmp_path: Path, name: str
) -> None:
    change, told = HOSTILE[name]
    file = rewritten(recorded / "digits.workbench-run", tmp_path / "odd.workbench-run", change)

    with pytest.raises(UsageError, match=told) as error:
        unpack(file, tmp_path / "inside" / "opened")
    assert "odd.workbench-run" in error.value.message
    assert {path.name for path in tmp_path.iterdir()} <= {"odd.workbench-run", "inside"}


def test_a_torn_file_and_one_that_is_no_recording_are_told(recorded: Path, tmp_path: Path) -> None:
    whole = (recorded / "digits.workbench-run").read_bytes()
    file = tmp_path / "torn.workbench-run"
    for data in (whole[: len(whole) // 2], b"", b"PK\x03\x04", whole[:200] + b"\0" * 20 + whole[220:]):
        file.write_bytes(data)
        with pytest.raises(UsageError, match=r"torn\.workbench-run is no recording"):
            unpack(file, tmp_path / f"opened-{len(data)}-{data[:1]!r}")
    with pytest.raises(UsageError, match="There is no file"):
        unpack(tmp_path / "none", tmp_path / "opened")


def test_a_part_twice_is_told(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "twice.workbench-run"
    shutil.copyfile(recorded / "digits.workbench-run", file)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("recipe.yaml", "x")

    with pytest.raises(UsageError, match=r"it holds 'recipe\.yaml'"):
        unpack(file, tmp_path / "opened")
