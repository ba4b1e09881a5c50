"""The same bytes wherever, by whomever and under whatever circumstances an image is made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from image_helpers import Image

from workbench import runs
from workbench.events import RunState
from workbench.image import downloads, index

MORE = """\
gate: {model_size: 1MiB}   # only int8 keeps it, however fast the machine finds which of the two
image: {base: {debian: bookworm}}
"""
COMMAND = [sys.executable, "-m", "workbench", "run", "recipes/digits.yaml", "--until", "image"]
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
# Where Python or the checkout lies in root's own home: nobody, who may read there and no more.
READING_ALL = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
AS_ONE_OF_A_NAMESPACE = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "4711", "--gid", "4711"]
STARTS_ITSELF = "import subprocess, sys, workbench.cli; subprocess.run([sys.executable, '-c', ''], check=True)"


@dataclass(frozen=True)
class Elsewhere:
    """A folder of another user, with a project, a home and a download cache in it; ``user`` goes before a command."""

    folder: Path
    user: list[str]

    @property
    def is_nobody(self) -> bool:
        return self.user[0] == "setpriv"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        # What may stand in this user's own configuration: where packages come from.
        return {
            **(kept | index.of_this_machine().for_pip()),
            "HOME": str(self.folder / "home"),
            "WORKBENCH_CACHE": str(self.folder / "cache"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "TZ": "Pacific/Chatham",
            "LC_ALL": "C",
            "PYTHONHASHSEED": "7",
        }


def another_user() -> list[str]:
    """A real one where this is root, else one of a user namespace: the first that can start workbench."""
    for user in (AS_NOBODY, AS_NOBODY + READING_ALL, AS_ONE_OF_A_NAMESPACE):
        command = [*user, "--", sys.executable, "-c", STARTS_ITSELF]
        if subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0:
            return [*user, "--"]
    raise AssertionError("no other user can start workbench here")


@pytest.fixture
def elsewhere(project: Path, image: Image) -> Iterator[Elsewhere]:
    """Not below pytest's folders, which are for this user's eyes only."""
    recipe = project / "recipes" / "digits.yaml"
    recipe.write_text(recipe.read_text() + MORE)
    folder = Path(tempfile.mkdtemp(prefix="another place ü "))
    shutil.copytree(project, folder / "project")
    (folder / "home").mkdir()
    for name, kind in (("base_pins", "packages"), ("wheels_pins", "wheels")):
        for one in json.loads(image.files[name].read_bytes())[kind]:
            source = downloads.take(one["sha256"])
            assert source is not None
            target = folder / "cache" / source.relative_to(downloads.cache_folder())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    other = Elsewhere(folder, another_user())
    if other.is_nobody:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    yield other
    shutil.rmtree(folder)


def on_one_cpu() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def made(project: Path) -> RunState:
    return runs.state_of(runs.all_runs(project)[0])


def artifacts(state: RunState) -> dict[str, dict[str, object]]:
    """All files of all steps but those that measure."""
    return {name: dict(step.files) for name, step in state.steps.items() if not name.startswith("latency/")}


@pytest.mark.integration
def test_another_folder_user_umask_zone_language_and_number_of_cpus_give_the_same_image(
    project: Path, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    with (tmp_path / "here").open("wb") as log, (tmp_path / "there").open("wb") as other_log:
        here = subprocess.Popen(COMMAND, cwd=project, stdout=log, stderr=log)
        there = subprocess.Popen(
            [*elsewhere.user, *COMMAND],
            cwd=elsewhere.project,
            env=elsewhere.environment,
            stdout=other_log,
            stderr=other_log,
            umask=0o077,
            preexec_fn=on_one_cpu,
        )
    assert here.wait() == 0, (tmp_path / "here").read_text()
    assert there.wait() == 0, (tmp_path / "there").read_text()
    one, two = made(project), made(elsewhere.project)

    # It was another user, mask and number of CPUs.
    store = (elsewhere.project / ".workbench").stat()
    assert store.st_mode & 0o777 == 0o700
    assert store.st_uid == (NOBODY if elsewhere.is_nobody else os.getuid())
    assert len(two.steps["latency/int8"].values["conditions"]["cpus"]) == 1
    # Nothing was there before.
    assert {step.status for state in (one, two) for step in state.steps.values()} == {"done"}

    assert artifacts(one) == artifacts(two)
    assert one.steps["image"].values == two.steps["image"].values
    assert one.steps["image"].values["config"].startswith("sha256:")
    assert {
        "model",
        "int8/quantize",
        "base",
        "wheels",
        "server-layer",
        "bytecode-layer",
        "model-layer",
        "image",
    } <= set(one.steps)
