"""What this machine has, and how to get what it lacks."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def examine(project: Path) -> list[Row]:
    """A row for each thing a run may need: ``what``, ``state`` (ok, missing), ``found``, ``cure``, ``needed``.

    ``needed`` says that the main job cannot do without it.
    """
    return [*(check(project) for check in _CHECKS), *_engine(), *_registries(project)]


def _row(what: str, found: str, cure: str, *, needed: bool) -> Row:
    return {
        "what": what,
        "state": "ok" if found else "missing",
        "found": found,
        "cure": "" if found else cure,
        "needed": needed,
    }


def _program(what: str, program: str, version: list[str], package: str, *, needed: bool) -> Row:
    path = shutil.which(program)
    found = ""
    if path is not None:
        done = subprocess.run([path, *version], capture_output=True, text=True, timeout=20, check=False)
        found = (done.stdout or done.stderr).strip().splitlines()[0] if done.returncode == 0 else ""
    return _row(what, found, f"apt-get install {package}", needed=needed)


def _git(_project: Path) -> Row:
    return _program("git", "git", ["--version"], "git", needed=True)


def _apt(_project: Path) -> Row:
    return _program("apt (for the Debian base)", "apt-get", ["--version"], "apt", needed=True)


def _dpkg(_project: Path) -> Row:
    return _program("dpkg-deb (for the Debian base)", "dpkg-deb", ["--version"], "dpkg", needed=True)


def _bubblewrap(_project: Path) -> Row:
    return _program("bubblewrap (runs images without an engine)", "bwrap", ["--version"], "bubblewrap", needed=False)


def _engine() -> list[Row]:
    """The container engine, how it gives out GPUs, and what killed runs have left in it, which is removed."""
    from workbench.engine import leftovers, load
    from workbench.engine.connect import connect, engine_facts
    from workbench.errors import WorkbenchError
    from workbench.units import format_size

    toolkit = (
        "not needed with device: cpu; install nvidia-container-toolkit, then: "
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    )
    try:
        with connect() as client:
            facts = engine_facts(client)
            left = leftovers.find(client)
            leftovers.remove(client, left)
            images = load.loaded_images(client)
    except WorkbenchError as error:
        cure = f"{error} To get one: apt-get install docker.io"
        return [_row("container engine", "", cure, needed=False), _row(_TOOLKIT, "", toolkit, needed=False)]
    found = f"{facts.name} {facts.version}, {facts.storage_driver}, cgroup v{facts.cgroup_version}"
    removed = f"removed {', '.join(f'{each.kind} {each.name}' for each in left)}" if left else "none"
    kept = f"{len(images)} ({format_size(sum(images.values()))})" if images else "none"
    return [
        _row("container engine", found, "", needed=False),
        _row(_TOOLKIT, f"{facts.nvidia} of {facts.name}" if facts.nvidia else "", toolkit, needed=False),
        _row("leftovers of killed runs", removed, "", needed=False),
        _row("images of workbench in the engine", kept, "", needed=False),
    ]


def _registries(project: Path) -> list[Row]:
    """A row for each place where the recipes push to: whether it answers, and lets this account in."""
    places = _pushed_to(project)
    if not places:
        cure = "no recipe pushes yet; push: {to: registry.example.com/team/name:tag} in a recipe names one"
        return [_row("registry", "", cure, needed=False)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(places)) as pool:  # those that do not answer are waited for at once
        return list(pool.map(lambda place: _registry(place, places[place], project), places))


def _pushed_to(project: Path) -> dict[str, str]:
    """A destination of each registry and layout folder that a recipe names, by the host or folder."""
    from workbench import recipe
    from workbench.errors import WorkbenchError
    from workbench.registry.reference import OCI, parse, parse_layout
    from workbench.status import recipes_of

    places: dict[str, str] = {}
    for path in recipes_of(project):
        with contextlib.suppress(WorkbenchError):  # what is wrong with a recipe is told where recipes are shown
            if push := recipe.load(path).recipe.push:
                layout = push.to.startswith(OCI)
                place = f"{OCI}{parse_layout(push.to).folder}" if layout else parse(push.to).host
                places.setdefault(place, push.to)
    return places


def _registry(place: str, to: str, project: Path) -> Row:
    from workbench.errors import WorkbenchError
    from workbench.registry.layout import Layout
    from workbench.registry.reference import OCI, parse_layout
    from workbench.registry.where import hurry, open_target

    what = f"registry {place}"
    try:
        if to.startswith(OCI):
            tags = Layout(project / parse_layout(to).folder).tags()
            found = f"a folder with {len(tags)} image{'s' if len(tags) > 1 else ''}" if tags else "a folder, empty yet"
            return _row(what, found, "", needed=False)
        target, reference = open_target(to, project, hurry(to))
        held = target.resolve(reference)
    except WorkbenchError as error:
        return _row(what, "", str(error), needed=False)
    return _row(what, f"answers; {'holds' if held else 'nothing yet as'} {to}", "", needed=False)


def _buildkit(_project: Path) -> Row:
    """The command line that builds images with ``builder: docker``: buildx, or a ``docker`` that has BuildKit."""
    from workbench.errors import MachineLacks
    from workbench.image.buildkit import find_cli

    what = "BuildKit (for builder: docker)"
    try:
        cli = find_cli()
    except MachineLacks as error:
        return _row(what, "", str(error), needed=False)
    return _row(what, f"{cli.version} ({cli.words[0]})", "", needed=False)


def _gpu(_project: Path) -> Row:
    from workbench.host.nvidia import gpu_names

    return _row("NVIDIA GPU", ", ".join(gpu_names()), "not needed with device: cpu", needed=False)


def _repository(project: Path) -> Row:
    from workbench.history import head_of

    found = f"{project} at {head_of(project)}" if head_of(project) else ""
    return _row("git repository", found, "git init; without it the lock is written and not committed", needed=False)


def _disk(project: Path) -> Row:
    from workbench.units import format_size

    free = shutil.disk_usage(project).free
    found = f"{format_size(free)} free" if free > 2 << 30 else ""
    return _row("disk space", found, f"only {format_size(free)} free: workbench gc, or another disk", needed=False)


def _cpu(_project: Path) -> Row:
    from workbench.host.fingerprint import host_class, isa_class

    found = host_class()
    return _row(
        "CPU", f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, {isa_class()}", "", needed=True
    )


_CHECKS: tuple[Callable[[Path], Row], ...] = (
    _cpu,
    _disk,
    _git,
    _repository,
    _apt,
    _dpkg,
    _bubblewrap,
    _buildkit,
    _gpu,
)

_TOOLKIT = "NVIDIA toolkit (GPUs in containers)"
