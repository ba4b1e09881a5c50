"""The command as it is installed: what the wheel holds, that it does the demo by itself, and that it starts light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support import ROOT, git, workbench

from workbench import runs

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a packager does it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("workbench-*.whl"))


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The command in a fresh environment. What workbench is built on comes from this one, by a path file: an editable
    install in it does not count there."""
    folder = tmp_path / "fresh"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, text=True)
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # A program among the dependencies: pip would have put it there.
    (folder / "bin" / "uv").symlink_to(Path(sysconfig.get_path("scripts")) / "uv")
    return folder / "bin" / "workbench"


def test_the_wheel_has_everything_that_the_clone_has_at_run_time_no_tests_and_no_pictures(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"workbench", "screens"}
    assert not [name for name in names if "test" in Path(name).name and name.endswith(".py")]
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".lock"))]
    shipped = git(ROOT, "ls-files", "workbench", "screens", "assets", "recipes").splitlines()
    pictures = [path for path in shipped if path.startswith("assets/screens/")]  # the README's
    inside = {_inside(path) for path in shipped if (ROOT / path).exists() and path not in pictures}
    assert {"workbench/py.typed", "workbench/_assets/digits/digits.onnx", "workbench/_recipes/digits.yaml"} <= inside
    assert inside - names == set()
    assert pictures
    assert {_inside(path) for path in pictures} & names == set()


def _inside(path: str) -> str:
    """Where a file of the clone lies in the wheel."""
    top = path.partition("/")[0]
    return f"workbench/_{path}" if top in ("assets", "recipes") else path


@pytest.mark.timeout(900)
def test_installed_outside_the_clone_it_does_the_whole_demo_and_then_reuses_it(installed: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"HOME": str(home)}
    env.setdefault("WORKBENCH_CACHE", str(tmp_path / "cache"))
    ask = "import screens, workbench, workbench.assets; print(workbench.__file__, screens.__file__)"
    where = subprocess.run(
        [str(installed.with_name("python")), "-c", ask], capture_output=True, text=True, cwd=tmp_path
    )
    assert where.returncode == 0, where.stderr
    assert all(path.startswith(str(installed.parent.parent)) for path in where.stdout.split())

    def demo() -> tuple[str, runs.RunState]:
        command = [str(installed), "demo", "the-demo"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, runs.state_of(runs.all_runs(tmp_path / "the-demo")[0])

    said, first = demo()
    assert {step.status for step in first.steps.values()} == {"done"}
    for shown in ("int8", "accuracy", "Image sha256:", "Benchmark", "Pushed to", "committed as"):
        assert shown in said
    assert git(tmp_path / "the-demo", "status", "--porcelain") == ""
    assert git(tmp_path / "the-demo", "show", "--name-only", "--format=").split() == ["recipes/digits.lock.yaml"]
    _, second = demo()
    made = {step.id for step in second.steps.values() if step.status != "reused"}
    assert made == {"choose", "gates"}, "only decisions are made again; the image is in place"
    assert {name: step.files for name, step in second.steps.items()} == {
        name: step.files for name, step in first.steps.items() if name in second.steps
    }
    # pip asks rustc for its version, and where that is rustup's stand-in, it makes a folder of its own.
    assert [path for path in home.iterdir() if path.name != ".rustup"] == []


HELP = """\
import json, sys
from workbench.__main__ import main
sys.argv = ["workbench", "--help"]
try:
    main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "replay" in done.stdout
    heavy = {
        "pydantic",
        "rich",
        "textual",
        "numpy",
        "onnx",
        "onnxruntime",
        "torch",
        "docker",
        "git",
        "psutil",
        "screens",
    }
    assert heavy & set(json.loads(done.stderr)) == set()


def test_help_says_each_command_in_a_whole_sentence_of_one_line(tmp_path: Path) -> None:
    done = workbench(tmp_path, "--help", COLUMNS="80")
    lines = done.stdout.splitlines()
    assert lines[0] == "Usage: workbench [OPTIONS] COMMAND [ARGS]..."
    commands = lines[lines.index("Commands:") + 1 :]
    assert len(commands) >= 20
    assert [line for line in commands if not line.endswith(".") or line.endswith("...")] == []
    assert workbench(tmp_path, "run", "--help").stdout.startswith("Usage: workbench run ")
