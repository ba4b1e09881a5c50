"""What a whole run touches: no host but this one, no file outside the project's folders and the download cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from strace_log import Contact, Seen, Write, traced
from support import ROOT, git

from workbench import runs
from workbench.image.sandbox import method_here

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

MORE = """\
image: {base: {debian: bookworm}}
push: {to: "oci:.workbench/registry"}
"""
BENCHMARK = "benchmark: {alone: {scenario: single-stream, duration: 1s}}\n"

INSTALLED = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix, ROOT / "workbench", ROOT / "screens")}
"""Where Python keeps modules, each with its compiled form in the ``__pycache__`` beside it."""


def workbench() -> str:
    return str(Path(sysconfig.get_path("scripts")) / "workbench")


@dataclass(frozen=True)
class Place:
    """A project with a lock and an empty store, an empty home, and a download cache that has all of the image."""

    project: Path
    home: Path
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing that would hide a defect: what a user's shell has not set is not set here either."""
        # pip asks rustc for its version when it downloads; where that is rustup's, it makes a folder in HOME.
        path = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "rustc").exists()]
        own = {"HOME": str(self.home), "WORKBENCH_CACHE": str(self.cache), "PATH": ":".join(path)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "PYTHON"))}
        return kept | own

    def trace(self, *words: str) -> Seen:
        number = len(list(self.home.parent.glob("*.strace")))
        return traced([workbench(), *words], self.project, self.environment, self.home.parent / f"{number}.strace")


@pytest.fixture
def bare(project: Path, tmp_path: Path) -> Place:
    """The project as it is, and the rest empty."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (tmp_path / "home").mkdir()
    return Place(project, tmp_path / "home", Path(os.environ.get("WORKBENCH_CACHE") or tmp_path / "cache"))


@pytest.fixture
def place(bare: Place, tmp_path: Path) -> Place:
    """Made by an untraced run elsewhere, which resolves the packages. The recipe then gets a benchmark: so there is
    something new to lock and commit, and the base and the wheels stay pinned."""
    project, place = bare.project, replace(bare, project=tmp_path / "traced")
    recipe = project / "recipes" / "digits.yaml"
    recipe.write_text(recipe.read_text() + MORE)
    command = [workbench(), "run", "recipes/digits.yaml"]
    done = subprocess.run(command, cwd=project, env=bare.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    git(tmp_path, "clone", "--quiet", str(project), str(place.project))
    recipe = place.project / "recipes" / "digits.yaml"
    recipe.write_text(recipe.read_text() + BENCHMARK)
    return place


def test_a_whole_run_and_the_commands_around_it_stay_on_this_machine_and_in_their_folders(place: Place) -> None:
    seen = place.trace("run", "recipes/digits.yaml")
    assert seen.exit_code == 0, seen.output
    state = runs.state_of(runs.all_runs(place.project)[0])
    assert {step.status for step in state.steps.values()} == {"done"}
    assert {"parity", "benchmark/alone", "push"} <= set(state.steps)
    assert not any(name.endswith("-resolve") for name in state.steps)
    assert "benchmark:" in git(place.project, "show", "HEAD"), "the run has committed"
    # The worker, the load and the server in the image were all looked at.
    if method_here() == "bubblewrap":
        assert any(write.by.program.endswith("/bwrap") and write.by.fenced for write in seen.writes)
        assert "/usr/bin/python3.11" in seen.programs
    assert any(contact.call == "connect" and contact.address == "127.0.0.1" for contact in seen.contacts)

    assert outside(seen, place) == []
    assert sorted(map(str, strangers(seen))) == []
    assert list(place.home.iterdir()) == []

    for words in commands(place):
        seen = place.trace(*words)
        assert seen.exit_code == 0, (words, seen.output)
        assert outside(seen, place) == [], words
        assert strangers(seen) == set(), words
    assert list(place.home.iterdir()) == []


def commands(place: Place) -> Iterator[list[str]]:
    """Every command that ends by itself and is no run that makes something."""
    recipe = "recipes/digits.yaml"
    yield from (
        ["--help"],
        ["status"],
        ["runs"],
        ["watch"],
        ["logs"],
        ["schema"],
        ["validate", recipe],
        ["diff", recipe],
    )
    yield ["run", recipe, "--dry-run"]
    yield ["run", recipe]
    yield ["inspect", "assets/digits/digits.onnx"]
    yield ["export", recipe, "int8", "-o", ".workbench/int8.onnx"]
    yield ["doctor"]
    yield ["gc"]


def outside(seen: Seen, place: Place) -> list[str]:
    """The writes that were not where they belong."""
    return sorted(
        {f"{write.call} {write.path} by {write.by.program}" for write in seen.writes if not _ours(write, place)}
    )


def _ours(write: Write, place: Place) -> bool:
    path = Path(write.path)
    if write.by.fenced:
        return _in_the_fence(write)
    inside = any(
        path.is_relative_to(folder) for folder in (place.project / ".workbench", place.project / ".git", place.cache)
    )
    lock = path.parent == place.project / "recipes" and path.name.removeprefix(".").startswith("digits.lock.yaml")
    compiled = path.parent.name == "__pycache__" or path.name == "__pycache__"
    beside = compiled and any(path.is_relative_to(folder) for folder in INSTALLED)
    # What bubblewrap tells the kernel of the users in its namespace.
    users = write.by.program.endswith("/bwrap") and path.parent.parent == Path("/proc")
    return inside or lock or beside or users or write.path == "/dev/null"


def _in_the_fence(write: Write) -> bool:
    """bubblewrap builds its root on a tmpfs that only its own processes see; the image's server then has /tmp."""
    if not write.by.program.endswith("/bwrap"):
        return write.path == "/dev/null" or Path(write.path).is_relative_to("/tmp")
    tops = ("/newroot", "/oldroot", "/proc")
    return write.call in ("mount", "umount2", "pivot_root") or any(
        Path(write.path).is_relative_to(top) or Path(write.path).name in ("newroot", "oldroot") for top in tops
    )


def strangers(seen: Seen) -> set[Contact]:
    """Whom the run talked to that is not itself. The Docker command, asked for its version, looks for its engine."""
    known = (_is_loopback, _is_dockers_own, _is_in_the_fence)
    return {contact for contact in seen.contacts if not any(each(contact) for each in known)}


def _is_dockers_own(contact: Contact) -> bool:
    return contact.by.program.endswith("/docker") and contact.family == "AF_UNIX"


def _is_in_the_fence(contact: Contact) -> bool:
    """bubblewrap asks the kernel for a loopback in the network of its own, which reaches nobody."""
    return contact.by.program.endswith("/bwrap") and contact.by.fenced and contact.family == "AF_NETLINK"


def _is_loopback(contact: Contact) -> bool:
    return contact.family in ("AF_INET", "AF_INET6") and (
        contact.address.startswith("127.") or contact.address == "::1"
    )


def test_no_form_of_int8_needs_more(bare: Place) -> None:
    """onnxruntime's quantizers would, for the name of a temporary file: they ask uuidd and write below /var/lib."""
    recipe = bare.project / "recipes" / "digits.yaml"
    more = "".join(f"  {mode}: [{{quantize: {{to: int8, mode: {mode}}}}}]\n" for mode in ("dynamic", "weight-only"))
    recipe.write_text(recipe.read_text() + more)
    seen = bare.trace("run", "recipes/digits.yaml", "--until", "weight-only/quantize")
    assert seen.exit_code == 0, seen.output
    assert {"int8/quantize", "dynamic/quantize"} <= set(runs.state_of(runs.all_runs(bare.project)[0]).steps)
    assert outside(seen, bare) == []
    assert seen.contacts == set()
    assert list(bare.home.iterdir()) == []


SERVE = """\
import http.client, re, signal, subprocess, sys

words = [sys.argv[1], "serve", "assets/digits/digits.onnx", "--port", "0"]
with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
    ready = next(line for line in server.stderr if "serving" in line)
    connection = http.client.HTTPConnection("127.0.0.1", int(re.search(r":(\\d+)$", ready)[1]))
    connection.request("GET", "/v2/models/digits")
    assert connection.getresponse().status == 200
    connection.close()
    server.send_signal(signal.SIGTERM)
    server.stderr.read()
sys.exit(server.returncode)
"""


def test_the_server_writes_nothing_and_talks_to_its_clients_only(bare: Place) -> None:
    seen = traced([sys.executable, "-c", SERVE, workbench()], bare.project, bare.environment, bare.home.parent / "log")
    assert seen.exit_code == 0, seen.output
    assert {(one.call, one.address) for one in seen.contacts} == {("bind", "127.0.0.1"), ("connect", "127.0.0.1")}
    assert outside(seen, bare) == []
    assert not (bare.project / ".workbench").exists()
    assert list(bare.home.iterdir()) == []


def test_a_file_of_the_project_never_stands_in_for_a_module(bare: Place) -> None:
    """Code that a recipe does not name must not run, and a user's ``onnx.py`` must not break a run."""
    for name in ("onnx", "numpy", "json", "fractions", "workbench"):
        (bare.project / f"{name}.py").write_text("raise SystemExit('imported from the project')\n")
    command = [workbench(), "run", "recipes/digits.yaml", "--until", "int8/quantize"]
    done = subprocess.run(command, cwd=bare.project, env=bare.environment, capture_output=True, text=True, check=False)
    said = "".join(path.read_text() for path in bare.project.glob(".workbench/runs/*/logs/*"))
    assert "imported from the project" not in said
    assert done.returncode == 0, done.stderr
