"""What every test has: a project folder with a real git repository, and no trace of the machine's own configuration."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import services
from support import RECIPE, ROOT, git


@pytest.fixture(autouse=True)
def _quiet_git(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Git reads no configuration but the repository's own, and has an author."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A User")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "user@example.com")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with the shipped digits and a recipe for them, all committed."""
    folder = tmp_path / "project"
    (folder / "assets" / "digits").mkdir(parents=True)
    (folder / "recipes").mkdir()
    for name in ("digits.onnx", "test.npz", "calibrate.npz"):
        shutil.copyfile(ROOT / "assets" / "digits" / name, folder / "assets" / "digits" / name)
    (folder / "recipes" / "digits.yaml").write_text(RECIPE)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    return folder


@dataclass
class Listener:
    """An ``Emit`` that keeps the notes."""

    scratch: Path
    notes: list[str] = field(default_factory=list)

    def progress(self, done: float, total: float, text: str = "") -> None:
        assert 0 <= done <= total, text

    def note(self, text: str) -> None:
        self.notes.append(text)

    def sample(self, kind: str, values: Mapping[str, Any]) -> None: ...


@pytest.fixture
def emit(tmp_path: Path) -> Listener:
    """What a step is given: a scratch folder of its own, and a listener for what it says."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Listener(scratch)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a named folder once for all workers of a test run; the tests copy it."""
    shared = (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    )

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder = shared / f"once-{name}"
        with (shared / f"once-{name}.lock").open("ab") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def services_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the services of this test run are written down, for all its workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def _controller() -> int:
    """The process that a service must not outlive: the one that runs the workers, or this one where there are none."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


@pytest.fixture(scope="session")
def engine(services_folder: Path) -> services.Service:
    """A real Docker engine; ``address`` is what DOCKER_HOST takes."""
    if os.geteuid() != 0 or shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("a Docker engine of its own needs root and dockerd (apt-get install docker.io iproute2)")
    found = services.shared(services_folder, "engine", _controller(), services.engine_command)
    services.wait_for_engine(found)
    return found


@pytest.fixture(scope="session")
def registry(services_folder: Path) -> services.Service:
    """A real image registry; ``address`` is host and port, plain HTTP."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry (apt-get install docker-registry)")
    found = services.shared(services_folder, "registry", _controller(), services.registry_command)
    services.wait_for_registry(found)
    return found


@pytest.fixture
def in_project(project: Path) -> Iterator[Path]:
    """The project, as the working folder."""
    before = Path.cwd()
    os.chdir(project)
    yield project
    os.chdir(before)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Ends the services. In CI an integration test that was skipped has shown nothing: it counts as a failure."""
    if not hasattr(session.config, "workerinput"):
        factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        services.stop_all(factory.getbasetemp())
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = [report for report in reporter.stats.get("skipped", []) if "integration" in report.keywords]
    if skipped and exitstatus == 0:
        reporter.write_line(f"{len(skipped)} integration tests were skipped; in CI that is a failure.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
