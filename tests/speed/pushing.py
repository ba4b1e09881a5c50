"""Pushing to a real registry on this machine: against skopeo, and when everything is there already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from engine import registry
from ground import ROOT, WORKBENCH, Ground, call, tell
from measure import Row, Section, reap
from models import write_model
from rebuild import LAYERS, MB, WIDTH, write_recipe

sys.path.append(str(ROOT / "tests" / "registry"))
import proxy

ROUNDS = 12
_NAME = "pushed"
_PUSH = Path(__file__).with_name("push_once.py")
_AIM = 1 / 0.9
"""A throughput of at least 0.9 of skopeo's, as the most of its time."""


def to_registry(ground: Ground) -> Section:
    """An image with a 90 MB model, pushed to an empty registry in turns with skopeo, and again when it is there."""
    title = "Push to a registry"
    if shutil.which("docker-registry") is None or shutil.which("skopeo") is None:
        return Section(title, [], ["Not measured: needs docker-registry and skopeo (apt-get install them)."])
    layout = _image(ground)
    parts = _parts(ground.folder / "push", layout)
    size = sum(part.stat().st_size for part in parts.iterdir()) / MB
    ours: list[float] = []
    within: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS + 1):
        tell(f"Pushing to an empty registry: {number} of {ROUNDS}")
        for who in ("workbench", "skopeo") if number % 2 else ("skopeo", "workbench"):
            with registry(ground.folder, f"bench-{who}-{number}") as service:
                if who == "skopeo":
                    taken = _skopeo(ground, layout, service.address)
                    theirs += [taken] if number else []
                else:
                    taken, inside = _workbench(parts, service.address)
                    ours += [taken] if number else []
                    within += [inside] if number else []
    rows = [
        Row("workbench, a process that pushes", tuple(size / each for each in ours), "MB/s"),
        Row("workbench, the step in it", tuple(size / each for each in within), "MB/s"),
        Row("skopeo copy", tuple(size / each for each in theirs), "MB/s"),
        Row("time, workbench : skopeo", tuple(a / b for a, b in zip(ours, theirs, strict=True)), "x", round(_AIM, 3)),
    ]
    asked, skopeo_asked = _unchanged(ground, layout, parts)
    other = sum(count for method, count in asked.items() if method != "HEAD")
    rows.append(Row("requests other than HEAD, image unchanged", (float(other),), "", aim=0.0, note=_said(asked)))
    rows.append(Row("all requests, image unchanged", (float(asked.total()),), ""))
    rows.append(Row("all requests of skopeo, unchanged", (float(skopeo_asked.total()),), "", note=_said(skopeo_asked)))
    how = (
        f"{size:.0f} MB of blobs in {len(json.loads((parts / 'manifest').read_bytes())['layers'])} layers, over plain "
        "HTTP, to a registry started anew for each push, so that neither side knows of an earlier copy."
    )
    return Section(title, rows, [how])


def _said(asked: Counter[str]) -> str:
    return ", ".join(f"{count} {method}" for method, count in sorted(asked.items()))


def _image(ground: Ground) -> Path:
    """An image layout that has the image under its name; the model is the same each time."""
    project = ground.project
    write_recipe(project, _NAME, "oci", WIDTH)
    source = project / "assets" / _NAME / "model.onnx"
    write_model(source, WIDTH, LAYERS, seed=0)
    call(WORKBENCH, "run", f"recipes/{_NAME}.yaml", folder=project)
    reap()
    source.unlink()
    return project / ".workbench" / "bench-images"


def _parts(folder: Path, layout: Path) -> Path:
    """What the push step takes, by its names, linked from the layout."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    blobs = layout / "blobs" / "sha256"
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    # What is attached to an image stands in the index without a name.
    named = {
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name"): entry["digest"] for entry in entries
    }
    os.link(blobs / named[_NAME].removeprefix("sha256:"), folder / "manifest")
    manifest = json.loads((folder / "manifest").read_bytes())
    os.link(blobs / manifest["config"]["digest"].removeprefix("sha256:"), folder / "config")
    for place, layer in enumerate(manifest["layers"]):
        os.link(blobs / layer["digest"].removeprefix("sha256:"), folder / f"layer-{place:02d}")
    return folder


def _workbench(parts: Path, address: str) -> tuple[float, float]:
    """Seconds of a process that pushes, and of the step in it."""
    start = time.perf_counter()
    inside = call(sys.executable, _PUSH, parts, f"{address}/team/{_NAME}:1", folder=parts)
    return time.perf_counter() - start, float(inside)


def _skopeo(ground: Ground, layout: Path, address: str) -> float:
    # Its memory of which registry has which blob lies in the ground's folder, and not among the user's own files.
    source = f"oci:{layout}:{_NAME}"
    own = {"_CONTAINERS_ROOTLESS_UID": "1", "XDG_DATA_HOME": str(ground.folder / "skopeo")}
    start = time.perf_counter()
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, f"docker://{address}/team/{_NAME}:1"],
        env={**os.environ, **own},
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def _unchanged(ground: Ground, layout: Path, parts: Path) -> tuple[Counter[str], Counter[str]]:
    """The requests of each for an image that it has pushed already, counted by a proxy before the registry."""
    with registry(ground.folder, "bench-unchanged") as service, proxy.running(service.address) as between:
        _workbench(parts, between.address)
        between.seen.clear()
        _workbench(parts, between.address)
        ours = Counter(between.methods())
        between.seen.clear()
        _skopeo(ground, layout, between.address)
    return ours, Counter(between.methods())
