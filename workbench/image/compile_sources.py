"""The bytecode of an image: ``python compile_sources.py ROOT OUT CREATED``, run by the Python of the image in ``ROOT``.

A container's root is read-only, so without it every start compiles the server and all it imports. It lies in a tree of
its own (``PYTHONPYCACHEPREFIX``) and names each source as it lies in the image. It holds its source's hash, which
Python checks: a source that a user replaces is compiled, never taken for the old one (PEP 552; at a start it costs
1 ms).

What ``marshal`` writes depends on which strings the interpreter shares at that moment: of 788 modules, one differed
by what had been compiled before. So each source is compiled in a process forked from one that has compiled nothing:
its bytecode depends on the interpreter, the source and its path in the image. The standard library is all that this
needs, and none of workbench.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = "bytecode"
_OURS = ("opt/wheels", "app")
_LOADED = frozenset(
    """
    __future__ _compat_pickle _weakrefset ast asyncio base64 bisect collections concurrent contextlib contextvars copy
    copyreg ctypes dataclasses datetime decimal dis encodings/__init__ encodings/aliases encodings/idna encodings/utf_8
    enum fnmatch functools heapq http importlib inspect ipaddress json keyword linecache locale logging numbers opcode
    operator pathlib pickle platform queue random re reprlib selectors signal socket ssl string stringprep struct
    subprocess textwrap threading token tokenize traceback types typing urllib uuid warnings weakref
    """.split()  # noqa: SIM905 - seventy lines else
)
"""What a server has loaded of the standard library when it answers. All of it would add 6 % to the digits image."""


def command(interpreter: str, script: str, root: str, out: str, created: int) -> list[str]:
    """What runs this file, which lies at ``script``, so that Python loads the same each time, and nothing beside it."""
    return [interpreter, "-S", "-B", "-P", "-W", "ignore", script, root, out, str(created)]


def sources(root: Path) -> Iterator[Path]:
    """The sources of wheels, server and what they load of the standard library; links are left out, for they may lead
    out of the image."""
    library = Path(os.__file__).parent
    for top in (library, *(root / name for name in _OURS)):
        for folder, _, names in os.walk(top):
            for path in (Path(folder, name) for name in names if name.endswith(".py")):
                inside = path.relative_to(top).with_suffix("").as_posix()
                wanted = top != library or inside in _LOADED or inside.partition("/")[0] in _LOADED
                if wanted and not path.is_symlink():
                    yield path


def compile_apart(source: Path, name: str, target: Path) -> None:
    """Compiles the source that is called ``name`` in the image. Nothing is written where it is not for this Python."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            check = py_compile.PycInvalidationMode.CHECKED_HASH
            py_compile.compile(str(source), str(target), name, doraise=True, optimize=0, invalidation_mode=check)
            code = 0
        except py_compile.PyCompileError:
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{name} cannot be compiled.")


def main(root: Path, out: Path, created: int) -> None:
    """Writes the tree below ``out``, all of it with the time ``created``."""
    sys.pycache_prefix = f"/{FOLDER}"
    for source in sources(root):
        name = f"/{source.relative_to(root).as_posix()}"
        compile_apart(source, name, out / importlib.util.cache_from_source(name, optimization="").lstrip("/"))
    for folder, _, names in os.walk(out / FOLDER, topdown=False):
        for path in (*(Path(folder, name) for name in names), Path(folder)):
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (created, created))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
