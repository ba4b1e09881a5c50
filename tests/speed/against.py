"""Images against those that BentoML and MLflow make of the same model: size, rebuilding, start to first answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers
from engine import BASE, Engine
from ground import WORKBENCH, Ground, call, tell
from measure import Row, Section, reap
from models import write_model
from rebuild import LAYERS, MB, WIDTH, events_of, finished, write_recipe

from workbench.events import StepStarted

SMALL_WIDTH, SMALL_LAYERS = 64, 2
BUILD_ROUNDS = 6
START_ROUNDS = 12
QUERIES = 200
# Without a way out, the count of users that BentoML reports holds its start up for 10 s: nobody here is counted.
_UNCOUNTED = ("--env=BENTOML_DO_NOT_TRACK=True", "--env=MLFLOW_DISABLE_TELEMETRY=true", "--env=DO_NOT_TRACK=true")
_POLL_S = 0.005
_ANSWER_WITHIN_S = 120.0
NO_ENGINE = "Not measured: needs root and a Docker engine (apt-get install docker.io iptables)."


def others(ground: Ground) -> Section:
    """The same models packed by each: first a small one, for size and start; then 90 MB, new ones, for rebuilding."""
    title = "Images against BentoML's and MLflow's"
    engine = ground.engine
    if engine is None:
        return Section(title, [], [NO_ENGINE])
    rivals = [peers.bentoml(ground.folder / "bentoml"), peers.mlflow(ground.folder / "mlflow")]
    small = _small_images(ground, engine, rivals)
    rows = [*_sizes(ground, engine, small), *_starts(engine, rivals, small)]
    rebuilt, remarks = _rebuilding(ground, engine, rivals)
    versions = ", ".join(f"{peer.name} {peer.version}" for peer in rivals)
    how = [
        f"{versions}, each by its own commands and its Dockerfile as generated, with BuildKit and warm caches.",
        "Their base is a stand-in for python:3.11-slim, made of Debian's packages: no registry could be reached.",
        "MB is 10^6 bytes; compressed: gzip level 6 of what docker save writes, ours as it would be pushed.",
        f"Start: from docker run to the first answer, {SMALL_WIDTH} features; then {QUERIES} queries in turn.",
        "Rebuilt with a new 90 MB model each time. Commands: all that a user runs, from the model's file to an image.",
        "But for measuring: without the steps in which ours scores the model and times its answers; theirs do neither.",
        "Build: docker build alone, ours from the choice to the image. Theirs ends in the engine, ours in the store.",
    ]
    return Section(title, [*rows, *rebuilt], [*how, *remarks])


# --- the images


@dataclass(frozen=True)
class _Image:
    """An image in the engine that can be asked."""

    name: str
    tag: str
    port: int
    path: str
    request: str


def _small_images(ground: Ground, engine: Engine, rivals: Sequence[peers.Peer]) -> list[_Image]:
    """The small model's images, ours first; the peers' are built once for each of their versions."""
    model = ground.folder / "small.onnx"
    write_model(model, SMALL_WIDTH, SMALL_LAYERS, seed=0)
    rows = json.dumps([[0.5] * SMALL_WIDTH])
    images = [_our_small(ground, engine, model)]
    for peer in rivals:
        tag = f"bench/{peer.name.lower()}-{peer.version}:small"
        if not engine.has(tag):
            tell(f"Building {peer.name}'s image once.")
            peer.pack(model)
            peer.build(engine, tag)
        images.append(_Image(peer.name, tag, peer.port, peer.path, peer.request.replace("{rows}", rows)))
    return images


def _our_small(ground: Ground, engine: Engine, model: Path) -> _Image:
    project, tag = ground.project, "bench/workbench:small"
    write_recipe(project, "small", "oci", SMALL_WIDTH)
    (project / "assets" / "small" / "model.onnx").write_bytes(model.read_bytes())
    call(WORKBENCH, "run", "recipes/small.yaml", folder=project)
    reap()
    source = f"oci:{project / '.workbench' / 'bench-images'}:small"
    call("skopeo", "copy", "--dest-daemon-host", engine.address, source, f"docker-daemon:{tag}", folder=project)
    tensor = {"name": "x", "shape": [1, SMALL_WIDTH], "datatype": "FP32", "data": [0.5] * SMALL_WIDTH}
    return _Image("workbench", tag, 8000, "/v2/models/small/infer", json.dumps({"inputs": [tensor]}))


# --- size


def _sizes(ground: Ground, engine: Engine, images: Sequence[_Image]) -> Iterator[Row]:
    ours, *others = images
    values = finished(events_of(ground.project, "small"), "image").values
    base = next(layer for layer in values["layers"] if layer["name"] == "base")
    below = {ours.name: base["uncompressed"], **dict.fromkeys((each.name for each in others), engine.size(BASE))}
    whole = {each.name: engine.size(each.tag) for each in others} | {ours.name: values["uncompressed"]}
    packed = {each.name: _compressed(ground, engine, each) for each in others} | {ours.name: values["size"]}
    for name in (each.name for each in images):
        note = f"{(whole[name] - below[name]) / MB:.0f} MB on a base of {below[name] / MB:.0f} MB"
        yield Row(f"size, {name}", (whole[name] / MB,), "MB", note=note)
        yield Row(f"size compressed, {name}", (packed[name] / MB,), "MB")
    for what, sizes in (("size", whole), ("size compressed", packed)):
        least = min((each.name for each in others), key=sizes.__getitem__)
        yield Row(f"{what}, {ours.name} : {least}", (sizes[ours.name] / sizes[least],), "x", aim=0.5)
    own = {name: whole[name] - below[name] for name in whole}
    least = min((each.name for each in others), key=own.__getitem__)
    yield Row(f"size without the bases, {ours.name} : {least}", (own[ours.name] / own[least],), "x")


def _compressed(ground: Ground, engine: Engine, image: _Image) -> int:
    """What :meth:`Engine.compressed` says, kept by the image's id: packing takes a minute."""
    kept = ground.folder / "compressed.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    digest = engine.docker("image", "inspect", "--format", "{{.Id}}", image.tag).strip()
    if digest not in known:
        tell(f"Compressing {image.name}'s image once.")
        known[digest] = engine.compressed(image.tag)
        kept.write_text(json.dumps(known))
    return int(known[digest])


# --- start to first answer


def _starts(engine: Engine, rivals: Sequence[peers.Peer], images: Sequence[_Image]) -> Iterator[Row]:
    first: dict[str, list[float]] = {each.name: [] for each in images}
    later: dict[str, list[float]] = {each.name: [] for each in images}
    for number in range(START_ROUNDS + 1):
        tell(f"Starting each image: {number} of {START_ROUNDS}")
        for image in images if number % 2 else reversed(images):
            answer, query = _start(engine, image)
            if number:  # the first round fills the caches of files
                first[image.name].append(answer)
                later[image.name].append(query * 1e3)
    for name in first:
        yield Row(f"start to first answer, {name}", tuple(first[name]), "s")
    yield _against_best("start to first answer", first, aim=0.5)
    for name in later:
        yield Row(f"median query, {name}", tuple(later[name]), "ms")
    yield _against_best("median query", later)


def _start(engine: Engine, image: _Image) -> tuple[float, float]:
    """Seconds from ``docker run`` to the first answer, and of the median query after it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = time.perf_counter()
    words = ("run", "--detach", *_UNCOUNTED, "--publish", f"127.0.0.1:{port}:{image.port}", image.tag)
    container = engine.docker(*words).strip()
    try:
        connection = _first_answer(image, port, start + _ANSWER_WITHIN_S)
        answered = time.perf_counter() - start
        queries = [_query(image, connection) for _ in range(QUERIES)]
        connection.close()
    except TimeoutError as error:
        raise SystemExit(f"{error}\n{engine.docker('logs', container)}") from None
    finally:
        engine.docker("rm", "--force", "--volumes", container)
    return answered, statistics.median(queries)


def _first_answer(image: _Image, port: int, until: float) -> http.client.HTTPConnection:
    """Asks until there is an answer; the connection it came by."""
    while time.perf_counter() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_WITHIN_S)
        with contextlib.suppress(OSError, http.client.HTTPException):
            _query(image, connection)
            return connection
        connection.close()
        time.sleep(_POLL_S)
    raise TimeoutError(f"{image.tag} gave no answer within {_ANSWER_WITHIN_S:.0f} s.")


def _query(image: _Image, connection: http.client.HTTPConnection) -> float:
    start = time.perf_counter()
    connection.request("POST", image.path, image.request, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise http.client.HTTPException(response.status)
    return time.perf_counter() - start


# --- rebuilding


def _rebuilding(ground: Ground, engine: Engine, rivals: Sequence[peers.Peer]) -> tuple[list[Row], list[str]]:
    model = ground.folder / "large.onnx"
    packers = {"workbench, oci": partial(_our_build, ground, engine, model, "oci")}
    remarks = []
    write_model(model, WIDTH, LAYERS, seed=time.time_ns())
    try:
        _our_build(ground, engine, model, "docker")
        packers["workbench, docker"] = partial(_our_build, ground, engine, model, "docker")
    except SystemExit as error:
        remarks.append(f"Builder docker: not measured: {str(error).splitlines()[-1]}")
    packers |= {peer.name: partial(_peer_build, engine, peer, model) for peer in rivals}
    taken: dict[str, list[_Built]] = {name: [] for name in packers}
    for number in range(BUILD_ROUNDS + 1):
        tell(f"Rebuilding each image with a new model: {number} of {BUILD_ROUNDS}")
        for name in packers if number % 2 else reversed(packers):
            write_model(model, WIDTH, LAYERS, seed=time.time_ns())  # what one recipe made of it another would reuse
            built = packers[name]()
            if number:  # the first round also makes the layers that stay
                taken[name].append(built)
        engine.tidy()
    _forget_models(ground, model)
    return list(_build_rows(taken)), remarks


@dataclass(frozen=True)
class _Built:
    """Seconds of all commands, of the build in them, and of measuring the model in them."""

    commands: float
    build: float
    measuring: float = 0.0


def _build_rows(taken: Mapping[str, Sequence[_Built]]) -> Iterator[Row]:
    ours = [name for name in taken if name.startswith("workbench")]
    measures: Mapping[str, Callable[[_Built], float]] = {
        "commands": lambda built: built.commands,
        "commands but for measuring": lambda built: built.commands - built.measuring,
        "build": lambda built: built.build,
    }
    for what, seconds in measures.items():
        values = {name: tuple(map(seconds, each)) for name, each in taken.items()}
        shown = ours if "measuring" in what else taken
        for name in shown:
            aim = 3.0 if (what, name) == ("build", "workbench, docker") else None
            yield Row(f"rebuilt, {what}, {name}", values[name], "s", aim)
        theirs = {name: each for name, each in values.items() if name not in ours}
        for name in ours:
            yield _against_best(f"rebuilt, {what}", {name: values[name], **theirs})


def _our_build(ground: Ground, engine: Engine, model: Path, builder: str) -> _Built:
    """``workbench run --until image``; its build is from the end of the choice to the end of the image step."""
    project, name = ground.project, f"large-{builder}"
    write_recipe(project, name, builder, WIDTH)
    (project / "assets" / name / "model.onnx").write_bytes(model.read_bytes())
    start = time.perf_counter()
    words = (WORKBENCH, "run", f"recipes/{name}.yaml", "--until", "image")
    call(*words, folder=project, environment={"DOCKER_HOST": engine.address})
    taken = time.perf_counter() - start
    reap()
    events = events_of(project, name)
    begun = {event.step: event.time for event in events if isinstance(event, StepStarted)}
    measured = [step for step in begun if step.startswith(("evaluate/", "latency/"))]
    measuring = sum(finished(events, step).time - begun[step] for step in measured)
    return _Built(taken, finished(events, "image").time - finished(events, "choose").time, measuring)


def _peer_build(engine: Engine, peer: peers.Peer, model: Path) -> _Built:
    """The peer's commands with its ``docker build``, which is the build."""
    packed = peer.pack(model)
    built = peer.build(engine, f"bench/{peer.name.lower()}:large")
    return _Built(packed + built, built)


def _forget_models(ground: Ground, model: Path) -> None:
    """Of all these models the store keeps the last."""
    model.unlink()
    for builder in ("oci", "docker"):
        (ground.project / "assets" / f"large-{builder}" / "model.onnx").unlink(missing_ok=True)
    call(WORKBENCH, "gc", folder=ground.project)


def _against_best(what: str, taken: Mapping[str, Sequence[float]], aim: float | None = None) -> Row:
    """The ratio of the first to whichever of the others has the least median, round by round."""
    ours, *others = taken
    best = min(others, key=lambda name: statistics.median(taken[name]))
    pairs = zip(taken[ours], taken[best], strict=True)
    return Row(f"{what}, {ours} : {best}", tuple(mine / other for mine, other in pairs), "x", aim)
