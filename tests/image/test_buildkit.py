"""BuildKit: finding a command line that drives it, and reading what it says. The recordings are of Docker 20.10."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import doctor
from workbench.errors import MachineLacks
from workbench.image import buildkit
from workbench.image.buildkit import Cli, Progress, environment_for, find_cli, proxy_arguments, run_build

RECORDED = Path(__file__).parent / "recorded"


def fed(name: str) -> tuple[Progress, list[str]]:
    progress = Progress()
    said = [progress.feed(line) for line in (RECORDED / f"{name}.txt").read_text().splitlines(keepends=True)]
    return progress, [text for text in said if text]


def test_a_build_is_told_by_stage_and_step() -> None:
    progress, said = fed("build")
    assert [text.partition(": ")[0] for text in said] == [
        *("internal", "internal", "internal"),
        *("wheels 1/3", "wheels 2/3", "internal", "wheels 3/3"),
        *("runtime 2/5", "runtime 3/5", "runtime 4/5", "exporting to image"),
    ]
    assert said[6].startswith("wheels 3/3: RUN --mount=type=bind,source=build,target=/build --mount")
    assert max(map(len, said)) <= 120
    assert progress.done == progress.total == 11
    assert progress.failure() == ("", [])


def test_a_rebuild_says_what_came_from_the_cache() -> None:
    progress, said = fed("rebuild")
    cached = [text.split(":")[0] for text in said if text.endswith("(cached)")]
    assert cached == ["wheels 2/3", "wheels 3/3", "runtime 2/5", "runtime 3/5"]
    assert progress.done == progress.total


def test_a_failed_build_names_the_step_and_its_last_words() -> None:
    progress, said = fed("with-network")
    step, words = progress.failure()
    assert step.startswith("wheels 3/3: RUN")
    assert words[0].startswith("executor failed running")
    assert words[1:] == ["The build stage has a network (eth0), and needs none. Build with --network=none."]
    assert said[-1].endswith("(error)")


def test_the_count_never_exceeds_what_is_known() -> None:
    for recording in RECORDED.glob("*.txt"):
        progress = Progress()
        for line in recording.read_text().splitlines():
            progress.feed(line)
            assert 0 <= progress.done <= progress.total


def test_lines_that_are_no_progress_and_terminal_codes_are_nothing() -> None:
    progress = Progress()
    assert progress.feed("Sending build context\n") == progress.feed("") == progress.feed("#x [y] z") == ""
    assert progress.feed("#1 [a 1/2] RUN \x1b[31mred\x1b[0m\x07") == "a 1/2: RUN red"
    assert progress.feed("#9 DONE 0.1s") == ""
    assert progress.feed("#8 CACHED") == "step 8 (cached)"


# --- the command line


def docker(folder: Path, version: str, buildx: str = "") -> Path:
    """A stand-in for the command line of a release that is not on this machine: it tells its versions."""
    folder.mkdir()
    path = folder / "docker"
    told = f"echo 'github.com/docker/buildx {buildx} abc'" if buildx else "echo 'is not a docker command' >&2; exit 1"
    path.write_text(
        f"#!/bin/sh\nif [ \"$1\" = buildx ]; then {told}; else echo 'Docker version {version}, build abc'; fi\n"
    )
    path.chmod(0o755)
    return path


def test_doctor_tells_whether_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, buildx, state, found, cure in (
        ("cannot", "", "missing", "", "docker-buildx-plugin"),
        ("new", "v0.24.0", "ok", "buildx 0.24.0", ""),
    ):
        program = docker(tmp_path / name, "28.2.2", buildx)
        monkeypatch.setenv("PATH", str(program.parent))
        row = doctor._buildkit(tmp_path)
        assert (row["state"], row["needed"]) == (state, False)
        assert found in row["found"]
        assert cure in row["cure"]


def test_the_first_command_line_that_can_is_taken_wherever_it_lies_on_path(tmp_path: Path) -> None:
    docker(tmp_path / "cannot", "28.2.2")
    old = docker(tmp_path / "old", "20.10.24+dfsg1")
    new = docker(tmp_path / "new", "28.2.2", "v0.24.0")

    def path(*names: str) -> str:
        return ":".join(str(tmp_path / name) for name in names)

    assert find_cli(path("cannot", "old", "new")) == Cli((str(old), "build"), "docker 20.10.24")
    assert find_cli(path("none", "new", "old")) == Cli((str(new), "buildx", "build"), "buildx 0.24.0")
    with pytest.raises(MachineLacks, match="has no buildx") as caught:
        find_cli(path("cannot"))
    assert "Install" in caught.value.cure
    with pytest.raises(MachineLacks, match="no docker command"):
        find_cli(path("none"))


def test_proxies_reach_the_build_by_name_and_never_stand_in_a_command() -> None:
    environment = {"HTTPS_PROXY": "http://user:secret@proxy.example.com", "no_proxy": "localhost", "HTTP_PROXY": ""}
    assert proxy_arguments(environment) == ["--build-arg", "HTTPS_PROXY", "--build-arg", "no_proxy"]


def test_the_build_goes_to_the_engine_that_was_asked_whatever_the_user_has_chosen_elsewhere() -> None:
    env = environment_for("unix:///engine.sock", {"DOCKER_CONTEXT": "x", "BUILDX_BUILDER": "y", "A": "b"})
    assert env["DOCKER_HOST"] == "unix:///engine.sock"
    assert env["BUILDX_BUILDER"] == "default"
    assert "DOCKER_CONTEXT" not in env
    assert env["A"] == "b"


def slow_build(folder: Path) -> Cli:
    """A stand-in for a build that goes on and on."""
    path = folder / "docker"
    path.write_text("#!/bin/sh\necho '#1 [a 1/1] RUN sleep'\nexec sleep 1000\n")
    path.chmod(0o755)
    return Cli((str(path),), "")


def test_lines_are_told_as_they_come_and_the_build_ends_with_who_hears_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = []

    def tell(progress: Progress, text: str) -> None:
        heard.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_build(slow_build(tmp_path), [], os.environ, tell)
    assert heard == ["a 1/1: RUN sleep"]
    assert "#1 [a 1/1] RUN sleep" in capsys.readouterr().err


def test_a_build_dies_with_the_step(tmp_path: Path) -> None:
    slow_build(tmp_path)
    script = (
        "import os, sys; from workbench.image.buildkit import *;"
        "run_build(Cli((sys.argv[1],), ''), [], os.environ, lambda p, t: print('started', flush=True))"
    )
    step = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "docker")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert step.stdout is not None
    assert step.stdout.readline() == b"started\n"
    [child] = (int(pid) for pid in Path(f"/proc/{step.pid}/task/{step.pid}/children").read_text().split())
    descriptor = os.pidfd_open(child)
    os.kill(step.pid, signal.SIGKILL)
    step.communicate()
    assert select.select([descriptor], [], [], 30)[0]
    os.close(descriptor)


def test_every_predefined_proxy_is_known() -> None:
    assert {name.upper() for name in buildkit.PROXIES} == {
        *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    }
