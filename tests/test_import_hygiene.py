"""The border of the engine: it never loads what paints, and its light modules load nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench

ENGINE = Path(workbench.__file__).parent
FACES = ("screens", "textual", "rich")
HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "docker", *FACES)
MAY_PAINT = ("workbench.cli", "workbench.commands", "workbench.__main__")
"""The command line imports a face inside a command; ``__main__`` is the command line."""


def engine_modules() -> list[str]:
    paths = (path.relative_to(ENGINE.parent).with_suffix("") for path in ENGINE.rglob("*.py"))
    names = (".".join(path.parts).removesuffix(".__init__") for path in paths if "_assets" not in path.parts)
    return sorted(name for name in names if not name.startswith(MAY_PAINT))


def loaded_after(modules: list[str], watched: tuple[str, ...]) -> dict[str, list[str]]:
    """Which of ``watched`` a fresh interpreter has loaded after importing each of ``modules``, one after the other."""
    script = (
        "import importlib, json, sys\n"
        "found, watched = {}, json.loads(sys.argv[2])\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    found[name] = [each for each in watched if each in sys.modules]\n"
        "print(json.dumps(found))\n"
    )
    words = [sys.executable, "-c", script, json.dumps(modules), json.dumps(watched)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_engine_module_loads_what_paints() -> None:
    modules = engine_modules()
    assert {"workbench.run", "workbench.bench.latency", "workbench.image.oci"} <= set(modules)

    # One interpreter for all of them: what the first to blame loads stays loaded, and it is named.
    assert {name: found for name, found in loaded_after(modules, FACES).items() if found} == {}


def test_no_engine_module_imports_what_paints_inside_a_function() -> None:
    found = {}
    for path in ENGINE.rglob("*.py"):
        name = path.relative_to(ENGINE).as_posix()
        # The command line may, inside a command only.
        command_line = name in ("cli.py", "__main__.py") or name.startswith("commands/")
        faces = set(FACES) & set(imports_of(path, top_only=command_line))
        if faces:
            found[name] = faces
    assert found == {}


def imports_of(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """The top-level packages that a source file imports, inside functions too unless ``top_only``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize(
    "module",
    ["workbench", "workbench.recipe", "workbench.events", "workbench.runs", "workbench.plan", "workbench.run"],
)
def test_what_stays_in_process_loads_nothing_heavy(module: str) -> None:
    assert loaded_after([module], HEAVY) == {module: []}


def test_the_command_line_starts_without_a_face() -> None:
    assert loaded_after(["workbench.cli"], ("screens", "textual", "rich.console", "onnxruntime", "docker", "git")) == {
        "workbench.cli": []
    }


def test_a_report_in_a_pipe_needs_no_rich() -> None:
    faces = ["screens.console", "screens.tables", "screens.report", "screens.report_html", "screens.inspect"]
    assert loaded_after(faces, ("rich", "textual", "numpy", "onnx")) == {name: [] for name in faces}


def test_the_app_loads_nothing_heavy() -> None:
    heavy = ("torch", "onnxruntime", "onnx", "numpy", "scipy", "docker", "git")
    assert loaded_after(["screens.app"], heavy) == {"screens.app": []}
