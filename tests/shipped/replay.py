"""Replays the shipped recipes; ``make replay`` and CI run it. Exit code: that of the replays.

Debian serves only the newest versions of its packages, so one day those that the lock pins are gone and the code is
not to blame. Then the recipe is locked anew in a scratch copy, this says so, and the replay is of that copy.
Recipes that an engine builds get one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import services

ROOT = Path(__file__).resolve().parent.parent.parent
GONE = "no longer serve"


def workbench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in ``folder``; what it says is shown as well."""
    command = [sys.executable, "-m", "workbench", *words]
    done = subprocess.run(command, cwd=folder, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    print(done.stderr, done.stdout, sep="\n", flush=True)
    return done


def replay_of_a_new_lock(recipe: Path) -> int:
    """Locks ``recipe`` anew in a scratch copy and replays that."""
    print(f"Debian no longer serves what {recipe.name} pins: locking it anew in a scratch copy, and replaying that.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("recipes", "assets"):
            shutil.copytree(ROOT / part, copy / part)
        (copy / ".workbench").mkdir()
        name = str(recipe.relative_to(ROOT))
        code = workbench(copy, "run", name, "--update", "base", "--no-commit").returncode
        return code or workbench(copy, "replay", name).returncode


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """An engine of its own, for the recipes that want one."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            service = services.shared(Path(folder), "engine", os.getpid(), services.engine_command)
            services.wait_for_engine(service)
            os.environ["DOCKER_HOST"] = service.address
            yield
        finally:
            services.stop_all(Path(folder))


def main() -> int:
    with engine():
        return replay_all()


def replay_all() -> int:
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        if recipe.name.endswith(".lock.yaml"):
            continue
        done = workbench(ROOT, "replay", str(recipe.relative_to(ROOT)))
        code = done.returncode
        if code == 6 and GONE in done.stderr:
            code = replay_of_a_new_lock(recipe)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
