"""The step ``docker-build``: the image made by a container engine's BuildKit, from the Dockerfile and its context.

What BuildKit makes are the layers and how a container runs. They come back out of the engine, each checked against its
digest; the config is written over them in the same form as the OCI builder's, for an engine's own holds the time of the
day. So an image has the same config digest wherever BuildKit makes the same layers, and the same file tree everywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker import DockerClient

from workbench.engine.connect import address, connect
from workbench.engine.container import ask_for_gpus
from workbench.engine.errors import ENGINE_ERRORS, told
from workbench.engine.leftovers import labels
from workbench.engine.load import archive, ensure_loaded, tag_of
from workbench.errors import MachineLacks, StepFailed, UsageError
from workbench.image import buildkit, downloads, oci, packed, registry_base, saved, tree, wheels
from workbench.image.base import SUITES
from workbench.image.compile_sources import FOLDER as BYTECODE
from workbench.image.content import APP, MODELS, model_level
from workbench.image.context import Content, LaidOut, lay_out, write_dockerfile
from workbench.image.dockerfile import Parameters, render
from workbench.image.layers import GZIP_LEVEL, canonical, written_json
from workbench.image.packed import Packed
from workbench.image.unwheel import ROOT as WHEELS
from workbench.steps import Emit, Outputs

OURS = {
    "wheels": f"/{WHEELS.partition('/')[0]}",
    "server": f"/{APP}",
    "bytecode": f"/{BYTECODE}",
    "model": f"/{MODELS}",
}
"""The layers over the base, lowest first, and the one folder at the root that each of them fills."""

_RUNTIME = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "StopSignal", "Labels")
_AGAIN = "Run the same command again; if it stays so, remove the engine's build cache: docker builder prune"


@dataclass(frozen=True)
class Base:
    """What an image stands on: what ``FROM`` names, Python's path in it, its architecture; and for a base that is
    imported first, its config."""

    reference: str
    interpreter: str
    architecture: str
    config: bytes = b""


def build(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Builds the image: ``config``, ``manifest``, its layers ``layer-00`` … (lowest first), ``tree``. The value
    ``in_engine`` is its name in the engine.

    ``inputs``: ``base`` (descriptor) and ``base_blob`` of the assembled base, or ``base_pins`` of one in a registry;
    ``wheels_pins``, ``model``, ``signature``. ``params``: those of :func:`workbench.image.oci.assemble`, ``version``
    (of the model) and ``gpus`` (asked of the engine for ``device: cuda``). Raises MachineLacks where there is no engine
    or no BuildKit, UsageError where the base has another Python, StepFailed where the build fails or its result is not
    what went in.
    """
    pins = wheels.read_pins(inputs["wheels_pins"])
    files = wheels.fetched(pins["wheels"], pins["python"], None, emit)
    content = Content(pins["wheels"], files, inputs["model"], inputs["signature"], params["name"], params["version"])
    base = base_of(inputs, params["python"], pins["python"])
    cli = buildkit.find_cli()
    with _context_folder(content.name, emit) as folder, connect() as client, _typed("building the image"):
        known = _present(client, base, inputs, emit)
        if params["device"] == "cuda":
            ask_for_gpus(client, base.reference, base.interpreter, params["gpus"] or "all")
            raise UsageError(
                "The engine gives containers GPUs, and this version builds no images with CUDA yet.",
                "Write device: cpu; limits.gpus still gives the container its GPUs.",
            )
        emit.progress(0, 1, "laying out the build context")
        laid_out = lay_out(folder, content, params["created"])
        model_digest = laid_out.files[content.model_path()]
        write_dockerfile(folder, dockerfile_of(base, params, f"sha256:{model_digest}"))
        with ThreadPoolExecutor(1) as beside:
            packing = beside.submit(_packed_tars, laid_out, inputs["model"], emit.scratch)
            image_id = _built(cli, client, folder, emit)
            known |= packing.result()
        found = client.images.get(image_id).attrs
        try:
            layers = _layers(client, image_id, found["RootFS"]["Layers"], known, inputs["model"], emit.scratch)
            entries = tree.applied(layer.changes for layer in layers)
            _verify(entries, laid_out)
            outputs = _outputs(found, layers, entries, base, params, pins["python"], emit.scratch)
            _hand_over(client, content.name, outputs.files["config"].read_bytes(), len(layers))
        finally:
            _forget(client, image_id)
        facts = {
            "builder": "docker",
            "engine": client.version()["Version"],
            "buildkit": cli.version,
            "in_engine": tag_of(content.name, outputs.values["config"]),
        }
    return Outputs(outputs.files, {**outputs.values, **facts})


def check_engine() -> None:
    """Raises MachineLacks where no engine answers, or no command line here can build with BuildKit."""
    with connect() as client, _typed("asking the engine"):
        client.ping()
    buildkit.find_cli()


@contextlib.contextmanager
def _typed(doing: str) -> Iterator[None]:
    """What the engine's client raises, as errors for the user."""
    try:
        yield
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise told(error, doing) from error


# --- the base


def assembled(descriptor: Mapping[str, Any], *pythons: str) -> Base:
    """The assembled Debian base with that ``descriptor``, named by its content. Raises UsageError where one of the
    ``pythons`` that are asked for is not the one it has."""
    has = SUITES[descriptor["debian"]].python
    if other := [python for python in pythons if python != has]:
        raise UsageError(
            f"Debian {descriptor['debian']} has Python {has}, and the recipe asks for {other[0]}.",
            f'Write python: "{has}".',
        )
    created = oci.timestamp(0)
    config = {
        "architecture": descriptor["architecture"],
        "os": "linux",
        "created": created,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [descriptor["diff_id"]]},
        "history": oci.history_of([descriptor], created),
    }
    data = canonical(config)
    return Base(tag_of("base", oci.digest_of(data)), oci.interpreter(has), descriptor["architecture"], data)


def base_of(inputs: Mapping[str, Path], *pythons: str) -> Base:
    """The base of the step's ``inputs``: ``base_pins``, or the descriptor ``base``. Raises UsageError where one of the
    ``pythons`` that are asked for is not the one it has."""
    if "base_pins" not in inputs:
        return assembled(json.loads(inputs["base"].read_bytes()), *pythons)
    pins = registry_base.read_pins(inputs["base_pins"])
    if other := [python for python in pythons if python != pins["python"]]:
        raise UsageError(
            f"The base {pins['image']} was locked for Python {pins['python']}, and the recipe asks for {other[0]}.",
            "Lock the base again: workbench run RECIPE --update base",
        )
    return Base(pins["image"], pins["interpreter"], pins["arch"])


def _present(client: DockerClient, base: Base, inputs: Mapping[str, Path], emit: Emit) -> dict[str, Packed]:
    """Sees to it that the engine has the base; its layers by ``diff_id``, as far as they are known."""
    if not base.config:
        emit.progress(0, 1, f"fetching the base {base.reference}")
        registry_base.fetch(client, base.reference)
        return {}
    emit.progress(0, 1, f"importing the base as {base.reference}")
    _import_base(client, base, inputs["base_blob"], emit.scratch)
    descriptor = json.loads(inputs["base"].read_bytes())
    return {descriptor["diff_id"]: packed.described(inputs["base_blob"], descriptor)}


def _import_base(client: DockerClient, base: Base, blob: Path, scratch: Path) -> None:
    """Gives the engine the base under its name, once: nothing is sent where it is there."""
    path = scratch / "base-config"
    path.write_bytes(base.config)
    ensure_loaded(client, path, [blob], "base")


# --- the build


def dockerfile_of(base: Base, params: Mapping[str, Any], model_digest: str) -> str:
    """The Dockerfile of the image over ``base``; see :func:`build` for ``params``."""
    runtime = oci.runtime_config({**params, "interpreter": base.interpreter}, model_digest)
    return render(Parameters(base.reference, base.interpreter, params["created"], runtime))


@contextlib.contextmanager
def _context_folder(name: str, emit: Emit) -> Iterator[Path]:
    """An empty folder, always at the same path for images of that name, and ours alone until the end.

    BuildKit knows a context by its path, and asks only for what changed since it saw it last.
    """
    room = downloads.cache_folder() / "contexts" / name
    folder = room / "context"
    with contextlib.ExitStack() as stack:
        try:
            room.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((room / "lock").open("ab"))
        except OSError as error:
            raise MachineLacks(
                f"The cache {downloads.cache_folder()} cannot be written: {error.strerror or error}.",
                "Free disk space, or name another folder in WORKBENCH_CACHE.",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            emit.progress(0, 1, f"waiting for another build of {name} to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)  # a killed build's
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def _built(cli: buildkit.Cli, client: DockerClient, folder: Path, emit: Emit) -> str:
    """Builds the image of the context in ``folder``; its id in the engine."""
    id_file = emit.scratch / "image-id"
    words = ["--network=none", "--iidfile", str(id_file), *buildkit.proxy_arguments(os.environ), str(folder)]

    def tell(progress: buildkit.Progress, text: str) -> None:
        emit.progress(progress.done, progress.total, text)

    ended = buildkit.run_build(cli, words, buildkit.environment_for(address(), os.environ), tell)
    if ended.code != 0:
        step, said = ended.progress.failure()
        doing = f"building the image{f' ({step})' if step else ''}"
        _check_still_there(client, doing)
        raise told("\n".join(said or ended.last), doing)
    return id_file.read_text(encoding="ascii").strip()


def _check_still_there(client: DockerClient, doing: str) -> None:
    """Raises StepFailed where the engine has gone: docker's own last words then tell of an id that it was not given."""
    try:
        client.ping()
    except ENGINE_ERRORS as error:
        raise told("lost connection to the engine.", doing) from error


# --- what came out


def _packed_tars(laid_out: LaidOut, model: Path, scratch: Path) -> dict[str, Packed]:
    """The tars of the context as the layers that BuildKit makes of them, by ``diff_id``."""
    level = {"model.tar": model_level(model)}
    return {
        diff_id: packed.packed(laid_out.folder / name, diff_id, scratch / f"blob-{name}", level.get(name, GZIP_LEVEL))
        for name, diff_id in laid_out.tars.items()
    }


def _layers(
    client: DockerClient,
    image_id: str,
    diff_ids: Sequence[str],
    known: Mapping[str, Packed],
    model: Path,
    scratch: Path,
) -> list[Packed]:
    """The layers of the image as blobs: those that are known, the rest from the engine.

    An engine that writes layers in another form than :func:`workbench.image.layers.write_tar` gives all of them back.
    """
    found = {
        **known,
        **{diff_id: kept for diff_id in diff_ids if diff_id not in known and (kept := packed.take(diff_id))},
    }
    names = dict(zip(diff_ids[-len(OURS) :], OURS, strict=True))

    def pack(tar: Path, diff_id: str) -> None:
        blob = scratch / f"blob-{diff_id.removeprefix('sha256:')}"
        top = diff_id == diff_ids[-1]
        found[diff_id] = packed.packed(tar, diff_id, blob, model_level(model) if top else GZIP_LEVEL)
        tar.unlink()
        if not top:
            packed.keep(found[diff_id])  # the model's is another with every build

    missing = [diff_id for diff_id in diff_ids if diff_id not in found]
    if missing and set(missing) <= names.keys():
        for diff_id, tar in _folders(client, image_id, {names[one]: one for one in missing}, scratch):
            pack(tar, diff_id)
    if any(diff_id not in found for diff_id in diff_ids):
        whole = saved.read(client.images.get(image_id).save(chunk_size=1 << 20), scratch / "saved")
        for diff_id, tar in zip(diff_ids, whole.layers, strict=True):
            if diff_id not in found:
                pack(tar, diff_id)
    return [found[diff_id] for diff_id in diff_ids]


def _folders(
    client: DockerClient, image_id: str, wanted: Mapping[str, str], scratch: Path
) -> Iterator[tuple[str, Path]]:
    """The tars of the ``wanted`` layers (``diff_id`` by name), as far as the engine's archive of the one folder that
    the layer fills has that digest.

    Saving an image writes all of it twice: 1.7 s for 225 MB, where the archive of a new model of 90 MB takes 0.35 s.
    """
    container = client.containers.create(image_id, labels=labels())  # never started
    try:
        for name, diff_id in wanted.items():
            tar = scratch / f"{name}.tar"
            pieces, _ = container.get_archive(OURS[name], chunk_size=1 << 20)
            if _spooled(pieces, tar) == diff_id:
                yield diff_id, tar
            else:
                tar.unlink()
    finally:
        container.remove(force=True)


def _spooled(pieces: Iterable[bytes], path: Path) -> str:
    """Writes the pieces to a file; ``sha256:…`` of them."""
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            sha256.update(piece)
            file.write(piece)
    return f"sha256:{sha256.hexdigest()}"


def _verify(entries: Mapping[str, tree.Node], laid_out: LaidOut) -> None:
    """Raises StepFailed where the image has another model or server than went in: a build cache can be wrong."""
    for path, sha256 in laid_out.files.items():
        if path not in entries or entries[path].content != sha256:
            raise StepFailed(f"The built image has another /{path} than the one that went in.", _AGAIN)


def _outputs(
    found: Mapping[str, Any],
    layers: Sequence[Packed],
    entries: Mapping[str, tree.Node],
    base: Base,
    params: Mapping[str, Any],
    python: str,
    scratch: Path,
) -> Outputs:
    below = len(layers) - len(OURS)
    names = ["base"] if below == 1 else [f"base-{number}" for number in range(1, below + 1)]
    described: list[Mapping[str, Any]] = [
        {"name": name, "files": layer.files, **layer.descriptor, **({"python": python} if name == "wheels" else {})}
        for name, layer in zip([*names, *OURS], layers, strict=True)
    ]
    config = canonical(_config(found, described, base.architecture, params["created"]))
    manifest = canonical(oci.image_manifest(config, described))
    (scratch / "config").write_bytes(config)
    (scratch / "manifest").write_bytes(manifest)
    digest = tree.tree_digest(entries)
    files = {
        "config": scratch / "config",
        "manifest": scratch / "manifest",
        "tree": written_json(scratch / "tree", {"digest": digest, "entries": tree.as_json(entries)}),
    }
    for number, layer in enumerate(layers):
        files[f"layer-{number:02}"] = _own(layer.blob, scratch / f"layer-{number:02}")
    values = {
        "config": oci.digest_of(config),
        "manifest": oci.digest_of(manifest),
        "size": sum(layer["size"] for layer in described) + len(config),
        "uncompressed": sum(layer["uncompressed"] for layer in described),
        "layers": described,
        "tree": digest,
    }
    return Outputs(files, values)


def _own(blob: Path, path: Path) -> Path:
    """The blob in the step's own folder: what lies elsewhere stays there."""
    if blob.parent == path.parent:
        return blob.rename(path)
    shutil.copyfile(blob, path)
    return path


def _config(
    found: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], architecture: str, created: int
) -> dict[str, Any]:
    """The config over BuildKit's layers: how a container runs as the engine says it, all else as the OCI builder's."""
    config, time = found["Config"], oci.timestamp(created)
    runtime = {key: config[key] for key in _RUNTIME if config.get(key)}
    runtime["Env"] = sorted(runtime["Env"])
    check = config["Healthcheck"]
    runtime["Healthcheck"] = {key: check[key] for key in ("Test", "Interval", "Timeout", "StartPeriod", "Retries")}
    return {
        "architecture": architecture,
        "os": "linux",
        "created": time,
        "config": runtime,
        "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]},
        "history": oci.history_of(layers, time),
    }


# --- the engine afterwards


def _hand_over(client: DockerClient, name: str, config: bytes, layers: int) -> None:
    """Gives the engine the config over the ``layers`` that it has, so that whoever runs the image need not load it.

    An engine that wants the layers as well refuses it; then they are loaded when the image is run.
    """
    pieces = archive(config, [Path()] * layers, tag_of(name, oci.digest_of(config)), skip=layers)
    with contextlib.suppress(docker.errors.DockerException):
        client.images.load(b"".join(pieces))


def _forget(client: DockerClient, image_id: str) -> None:
    """Removes BuildKit's own image; the layers stay with the one of :func:`_hand_over`, and in the build cache.

    One with a name is someone's: a build that comes wholly from the cache gives the image that is there already.
    """
    with contextlib.suppress(docker.errors.DockerException):
        if not client.images.get(image_id).tags:
            client.images.remove(image_id, noprune=True)
