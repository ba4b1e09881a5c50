"""The build stage's own program: what it makes is what the OCI builder packs, and it wants no network."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from image_helpers import wheel

from workbench.errors import MachineLacks, StepFailed
from workbench.image import context, unpack_wheels
from workbench.image.layers import write_layer
from workbench.image.omit import Omitted
from workbench.image.tree import Node, tree_entries
from workbench.image.unwheel import Unpacked

OMIT = "opt/wheels/**/*.pyi\n"
FILES = {"pkg/__init__.py": b"one", "pkg/lib.so": b"elf", "pkg/x.pyi": b"types", "pkg/sub/deep.py": b"two"}


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The list of locked wheels, their folder, the list of what to leave out."""
    (tmp_path / "wheels").mkdir()
    made = wheel(tmp_path / "wheels", "pkg", FILES)
    locked = tmp_path / "wheels.json"
    locked.write_text(json.dumps([{"filename": made.name, "sha256": hashlib.sha256(made.read_bytes()).hexdigest()}]))
    (tmp_path / "omit.txt").write_text(OMIT)
    return locked, tmp_path / "wheels", tmp_path / "omit.txt"


def on_disk(out: Path) -> dict[str, Node]:
    found = {}
    for path in out.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(out))] = Node("file" if path.is_file() else "folder", mode, 0, 0, content)
    return found


def test_it_makes_the_tree_that_the_oci_builder_packs(parts: tuple[Path, Path, Path], tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert unpack_wheels.unpack(*parts, tmp_path / "out", 1234) == 6
    finally:
        os.umask(before)
    with Unpacked(Omitted.parse(OMIT)) as unpacked:
        unpacked.add("pkg-1.0-py3-none-any.whl", parts[1] / "pkg-1.0-py3-none-any.whl")
        layer = write_layer("wheels", unpacked.entries(), tmp_path, created=0)
    assert on_disk(tmp_path / "out") == tree_entries([layer.files["blob"]])
    assert {path.stat().st_mtime for path in (tmp_path / "out").rglob("*")} == {1234}


def test_a_wheel_that_is_not_the_locked_one_is_refused(parts: tuple[Path, Path, Path], tmp_path: Path) -> None:
    [path] = parts[1].iterdir()
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(StepFailed, match="is locked"):
        unpack_wheels.unpack(*parts, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def proc(folder: Path, route: str, route6: str) -> Path:
    folder.mkdir()
    (folder / "route").write_text("Iface\tDestination\tGateway\n" + route)
    (folder / "ipv6_route").write_text(route6)
    return folder


def test_a_stage_with_a_route_to_others_is_refused(tmp_path: Path) -> None:
    own = "00000000000000000000000000000001 80 0 00 0 0 0 0       lo\n"
    unpack_wheels.refuse_network(proc(tmp_path / "none", "", own))
    for number, (route, route6) in enumerate(
        (("eth0\t00000000\t010011AC\n", own), ("", own + own.replace("lo", "eth1")))
    ):
        with pytest.raises(MachineLacks, match=r"has a network \(eth"):
            unpack_wheels.refuse_network(proc(tmp_path / f"{number}", route, route6))


def test_it_runs_from_the_context_on_a_python_that_has_nothing_else(
    parts: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """As in the build stage: its modules copied, no site-packages, the context as the working folder."""
    for module in context.UNPACKING:
        source = context.source_of(module)
        target = tmp_path / "build" / "workbench" / f"{module.replace('.', '/', 1)}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    script = (
        "import sys; sys.path.insert(0, '.'); from workbench.image import unpack_wheels as u;"
        "u.refuse_network = lambda: None; code = u.main(sys.argv[1:]);"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names)); sys.exit(code)"
    )
    words = [sys.executable, "-I", "-S", "-B", "-c", script, *map(str, parts), str(tmp_path / "out"), "0"]
    done = subprocess.run(words, cwd=tmp_path / "build", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["6 files unpacked", "['__main__', 'workbench']"]


def test_the_context_brings_all_modules_that_these_modules_import() -> None:
    named = {f"workbench.{module}".removesuffix(".__init__") for module in context.UNPACKING}
    for module in context.UNPACKING:
        for node in ast.walk(ast.parse(context.source_of(module).read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("workbench"):
                one_of = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert named & one_of, f"{module} imports {node.module}"


def test_what_is_wrong_is_said_in_a_sentence(
    parts: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack_wheels, "refuse_network", lambda: None)
    [path] = parts[1].iterdir()
    path.write_bytes(b"no archive")
    assert unpack_wheels.main([*map(str, parts), str(tmp_path / "out"), "0"]) == 7
    assert "is locked" in capsys.readouterr().err
