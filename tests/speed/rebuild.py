"""The image: rebuilt after only the model changed, and its size by layer."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from pathlib import Path

from ground import WORKBENCH, Ground, call, tell
from measure import Row, Section, reap
from models import write_model, write_samples

from workbench import runs
from workbench.events import AnyEvent, EventReader, StepFinished
from workbench.image.content import compresses
from workbench.image.layers import GZIP_LEVEL, PIECE
from workbench.store import Store

ROUNDS = 6
WIDTH, LAYERS = 1500, 10  # 90 MB of float32

RECIPE = """\
workbench: 1
name: {name}
model: {{source: assets/{name}/model.onnx}}
data: {{evaluate: assets/{name}/samples.npz, metric: fidelity}}
image: {{builder: {builder}}}
push: {{to: "oci:.workbench/bench-images:{name}"}}
"""


MB = 1e6
IMAGE_AIM, IMAGE_AIM_COMPRESSED = 200.0, 75.0


def new_model(ground: Ground) -> Section:
    """``workbench run --until image`` with a new 90 MB model each time: from choice to image, against hashing and
    compressing the same bytes alone."""
    project = ground.project
    source = project / "assets" / "rebuild" / "model.onnx"
    write_recipe(project, "rebuild", "oci", WIDTH)
    built, alone, beyond, level = [], [], [], 0
    for number in range(ROUNDS + 1):
        tell(f"Rebuilding the image with a new model: {number} of {ROUNDS}")
        write_model(source, WIDTH, LAYERS, seed=time.time_ns())
        call(WORKBENCH, "run", "recipes/rebuild.yaml", "--until", "image", folder=project)
        reap()
        events = events_of(project, "rebuild")
        level = 1 if compresses(_model(project, events)) else 0
        reference = _hash_and_compress(_model(project, events), level)
        if number:  # the first one also makes the layers that stay
            built.append(_seconds(events))
            alone.append(reference)
            beyond.append(built[-1] - reference)
    size = source.stat().st_size / MB
    source.unlink()
    call(WORKBENCH, "gc", folder=project)  # of all these models the store keeps the last
    rows = [
        Row("from the choice to the image", tuple(built), "s"),
        Row("hashing and compressing alone", tuple(alone), "s"),
        Row("beyond that", tuple(beyond), "s", aim=1.0),
    ]
    how = (
        f"Of workbench run --until image, from the end of the choice to the end of the image step; {size:.0f} MB model."
    )
    packed = f"Alone: SHA-256 of the bytes, zlib level {level} as the step chose, SHA-256 of what comes out."
    return Section("Image rebuilt with a new model", rows, [how, packed])


def write_recipe(project: Path, name: str, builder: str, width: int) -> None:
    """Writes the recipe ``name`` for the model ``assets/NAME/model.onnx``, and samples for a model so wide."""
    write_samples(project / "assets" / name / "samples.npz", width, 4)
    (project / "recipes" / f"{name}.yaml").write_text(RECIPE.format(name=name, builder=builder))


def events_of(project: Path, name: str) -> list[AnyEvent]:
    """What the last run of the recipe ``name`` said."""
    mine = (run for run in runs.all_runs(project) if Path(runs.load_request(run).recipe).stem == name)
    return list(EventReader(next(mine) / "events.jsonl").new())


def finished(events: list[AnyEvent], step: str) -> StepFinished:
    """The event with which a step ended."""
    return next(event for event in events if isinstance(event, StepFinished) and event.step == step)


def _model(project: Path, events: list[AnyEvent]) -> Path:
    return Store(project / ".workbench").path(str(finished(events, "choose").files["model"]["digest"]))


def _seconds(events: list[AnyEvent]) -> float:
    reused = [finished(events, step).reused for step in ("base", "wheels", "server-layer", "bytecode-layer")]
    made = [not finished(events, step).reused for step in ("model-layer", "image")]
    if not all(reused + made):
        raise SystemExit("More or less than the model's layer and the image were made.")
    return finished(events, "image").time - finished(events, "choose").time


def _hash_and_compress(path: Path, level: int) -> float:
    """Seconds for what no builder can do without: the digests of the layer's bytes and of its blob, and the blob."""
    content, carrier = hashlib.sha256(), hashlib.sha256()
    compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
    start = time.perf_counter()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            content.update(piece)
            carrier.update(compressor.compress(piece))
    carrier.update(compressor.flush())
    return time.perf_counter() - start


def size(ground: Ground) -> Section:
    """The shipped recipe's image by layer."""
    steps = ground.state.steps
    values = steps["image"].values
    rows = []
    for layer in values["layers"]:
        note = f"{layer['files']} files, {layer['omitted_bytes'] / MB:.1f} MB left out" if "files" in layer else ""
        rows.append(Row(f"layer {layer['name']}", (layer["uncompressed"] / MB,), "MB", note=note))
        rows.append(Row(f"layer {layer['name']}, compressed", (layer["size"] / MB,), "MB"))
    rows.append(Row("image", (values["uncompressed"] / MB,), "MB", IMAGE_AIM))
    rows.append(Row("image, compressed", (values["size"] / MB,), "MB", IMAGE_AIM_COMPRESSED))
    contents = json.loads(ground.artifact("wheels", "contents").read_bytes())
    largest = sorted(contents, key=lambda item: -int(item["size"]))[:3]
    named = ", ".join(f"{item['path']} {item['size'] / MB:.1f} MB" for item in largest)
    return Section("Image size", rows, [f"MB is 10^6 bytes; gzip level {GZIP_LEVEL}. Largest of the wheels: {named}."])
