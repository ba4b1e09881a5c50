"""The image's bytecode: the same bytes each time, of all that a server loads, and never that of another source."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digits_image import CREATED, Emit, Image

from workbench.assets import asset
from workbench.image import bytecode, compile_sources
from workbench.image.contents import read_layer
from workbench.image.sandbox import Container, Method, fenced, method_here
from workbench.image.v2 import Client
from workbench.server.session import open_session

PYTHON = "/usr/bin/python3.11"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_of(blob: Path) -> dict[str, str]:
    return {path: file.sha256 for path, file in read_layer("bytecode", blob).files.items()}


@pytest.mark.integration
@pytest.mark.parametrize("method", ["bubblewrap", "loader"])
def test_either_way_to_start_the_images_python_gives_the_same_bytes(
    image: Image, root: Path, tmp_path: Path, method: Method
) -> None:
    """In the image's own root, as BuildKit does it too, and by its loader, where the root has another name."""
    if method == "bubblewrap" != method_here():
        pytest.skip("bubblewrap does not work here")
    bytecode.compiled(root, PYTHON, tmp_path, CREATED, method)
    found = {f"/{path.relative_to(tmp_path)}": path for path in tmp_path.rglob("*.pyc")}
    assert {path: digest(file) for path, file in found.items()} == files_of(image.files["bytecode_blob"])
    assert {path.stat().st_mtime for path in (tmp_path / "bytecode").rglob("*")} == {CREATED}
    assert {path.stat().st_mode & 0o7777 for path in found.values()} == {0o644}


@pytest.mark.integration
def test_the_images_python_is_fenced_off(root: Path, tmp_path: Path) -> None:
    """It is somebody's program: it sees the image and what it is given, no network, and writes where it may."""
    if method_here() != "bubblewrap":
        pytest.skip("bubblewrap does not work here")
    (tmp_path / "secret").write_text("")
    (tmp_path / "out").mkdir()
    program = """if True:
        import os, socket, sys
        print(os.path.exists(sys.argv[1]), [name for _, name in socket.if_nameindex()], sorted(os.listdir("/tmp")))
        open("/tmp/out/made", "w").close()
        try:
            open("/made", "w")
        except OSError as error:
            print(error.strerror)
    """
    words = fenced(root, [PYTHON, "-c", program, str(tmp_path / "secret")], {}, {"/tmp/out": tmp_path / "out"})
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False ['lo'] ['out']", "Read-only file system"]
    assert (tmp_path / "out" / "made").exists()


@pytest.mark.integration
def test_the_layer_is_the_same_when_it_is_made_again(image: Image, emit: Emit) -> None:
    below = {f"{name}_blob": image.files[f"{name}_blob"] for name in bytecode.BELOW}
    below |= {name: image.folder / name / "descriptor" for name in bytecode.BELOW}
    again = bytecode.layer(below, {"created": CREATED}, emit)
    assert again.files["blob"].read_bytes() == image.files["bytecode_blob"].read_bytes()
    assert not (emit.scratch / "image").exists(), "what was unpacked for it is gone"


@pytest.mark.integration
def test_a_server_compiles_nothing_until_it_has_answered(
    image: Image, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python tells where it has the code of each module from: of a source that has no bytecode, the source."""
    if method_here() != "bubblewrap":
        pytest.skip("by the image's loader, sources lie elsewhere than where the bytecode says")
    session = open_session(asset("digits/digits.onnx"), 1)
    with np.load(asset("digits/test.npz")) as data:
        sample = {session.get_inputs()[0].name: data["x"][:1].astype(np.float32)}
    with Container(root, image.files["config"], env={"PYTHONVERBOSE": "1"}) as container:
        with Client(container.port, "digits") as client:
            client.infer(sample)
        container.stop()
    said = capfd.readouterr().err
    assert re.findall(r"code object from '/bytecode/app/workbench/server/(\w+)\.cpython-311\.pyc'", said)
    compiled = set(re.findall(r"code object from '?(/[^'\n]+\.py)\b", said))
    assert compiled == {"/usr/lib/python3.11/sitecustomize.py"}, "Debian's link to a file in /etc"


@pytest.mark.integration
def test_the_sources_are_there_and_each_is_what_its_bytecode_was_made_of(image: Image, root: Path) -> None:
    for path in files_of(image.files["bytecode_blob"]):
        source = root / re.sub(r"\.cpython-311\.pyc$", ".py", path.removeprefix("/bytecode/"))
        header = (root / path[1:]).read_bytes()[:16]
        assert header[4:8] == (0b11).to_bytes(4, "little"), "made from a hash, which is looked at"
        assert header[8:] == importlib.util.source_hash(source.read_bytes())


def test_a_source_that_was_replaced_is_compiled_anew_whatever_its_time_and_size(tmp_path: Path) -> None:
    source, cache = tmp_path / "sources" / "module.py", tmp_path / "cache"
    source.parent.mkdir()
    source.write_text("print('built')")
    time = source.stat().st_mtime_ns
    name = source.relative_to("/").with_suffix(f".{sys.implementation.cache_tag}.pyc")
    compile_sources.compile_apart(source, str(source), cache / name)
    assert (cache / name).is_file()

    def said() -> str:
        words = [sys.executable, "-B", "-X", f"pycache_prefix={cache}", "-c", "import module"]
        return subprocess.run(words, cwd=source.parent, capture_output=True, text=True, check=True).stdout

    assert said() == "built\n"
    source.write_text("print('other')")
    os.utime(source, ns=(time, time))
    assert said() == "other\n"


def test_a_source_for_another_python_has_no_bytecode(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("print 'Python 2'")
    compile_sources.compile_apart(tmp_path / "old.py", "/old.py", tmp_path / "old.pyc")
    assert not (tmp_path / "old.pyc").exists()


def test_no_bytecode_where_there_is_no_room_for_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"/new\.py cannot be compiled"):
        compile_sources.compile_apart(tmp_path / "new.py", "/new.py", tmp_path / "file" / "new.pyc")
