"""From a recipe to the ordered steps that carry it out, and the key of each.

A step's key is the digest of its *ingredients*: the digests of its inputs, its parameters, the source of the packages
that do it, the versions of the tools that decide its result and, where they decide it too, the instruction set or the
machine. The ingredients are kept by name, so that "which input changed" has an answer.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.assets import asset, package_folder
from workbench.recipe import RecipeFile
from workbench.schema import Elsewhere, Recipe
from workbench.steps import KINDS
from workbench.store import canonical, digest_of_bytes

VERSION = "1"
"""The version of the model in an image."""

CREATED = 0
"""The time that everything in an image carries, in seconds since the epoch: bytes must not depend on the day."""


@dataclass(frozen=True)
class Ref:
    """The file ``output`` of the step ``step``."""

    step: str
    output: str


@dataclass(frozen=True)
class Refs:
    """Every file of the step ``step`` whose name begins with ``prefix``, each an input by its own name."""

    step: str
    prefix: str


@dataclass(frozen=True)
class SourceFile:
    """A file of the project, by its path relative to it."""

    path: str


@dataclass(frozen=True)
class Pinned:
    """Bytes that the lock holds."""

    data: bytes


Input = Ref | Refs | SourceFile | Pinned


@dataclass(frozen=True)
class Step:
    """One step of a plan. ``after`` names steps whose values it decides on without reading their files.

    ``aside`` are parameters that do not decide the result, such as where a file of known content is fetched from.
    """

    id: str
    kind: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    aside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pins:
    """What a run takes from the lock instead of finding it out anew."""

    base: bytes | None = None
    wheels: bytes | None = None
    choice: str | None = None


def base_request(recipe: Recipe) -> dict[str, Any]:
    """What the base is resolved from; the locked packages hold as long as it stays the same."""
    assert recipe.image is not None
    image = recipe.image
    # Of a base that has Python already, it is looked for.
    python = {} if image.base.image is None else {"python": image.python}
    return {"base": image.base.model_dump(mode="json", exclude_none=True), "arch": "amd64", **python}


def wheels_request(recipe: Recipe) -> dict[str, Any]:
    """What the wheels are resolved from; the locked wheels hold as long as it stays the same."""
    assert recipe.image is not None
    asked = {"grpc": recipe.image.grpc, "tracing": recipe.image.tracing}
    lists = ["requirements.txt", *(f"requirements-{what}.txt" for what, wanted in asked.items() if wanted)]
    listed = [line.strip() for name in lists for line in asset(f"image/{name}").read_text().splitlines()]
    requirements = [line for line in listed if line and not line.startswith("#")]
    # The image runs the very onnxruntime that scored the variants: another one may answer otherwise.
    requirements.append(f"onnxruntime=={version('onnxruntime')}")
    return {"python": recipe.image.python, "platform": "x86_64-manylinux_2_28", "requirements": sorted(requirements)}


def plan(file: RecipeFile, pins: Pins) -> list[Step]:
    """The steps of a recipe, in an order in which each comes after what it reads."""
    recipe = file.recipe
    steps = [*_inputs(recipe), *_variants(recipe), *_judgement(recipe, pins)]
    if recipe.image is not None:
        steps += [*_image(recipe, pins), *_benchmarks(recipe)]
        if recipe.push is not None:
            steps += _pushed(file)
    return steps


def _inputs(recipe: Recipe) -> Iterator[Step]:
    found = recipe.inputs
    sources: dict[str, Input] = {}
    for name, source in found.items():
        short = name.partition(".")[2]
        if isinstance(source, str):
            sources[short] = SourceFile(source)
        else:
            where = source.model_dump(mode="json", exclude_none=True, exclude={"sha256"})
            yield Step(f"fetch/{short}", "fetch", {}, {"sha256": source.content}, aside={"name": name, **where})
            sources[short] = Ref(f"fetch/{short}", "file")
    preprocess = recipe.model.preprocess
    folded = preprocess.model_dump(mode="json", exclude_none=True) if preprocess else None
    locations = {name.partition(".")[2]: _location(name, source) for name, source in found.items()}
    yield Step(
        "model", "model", {"source": sources.pop("source")}, {"location": locations.pop("source"), "preprocess": folded}
    )
    yield Step(
        "data",
        "data",
        {"signature": Ref("model", "signature"), **sources},
        {"seed": recipe.seed, "locations": locations, "metric": recipe.data.metric},
    )


def _location(name: str, source: str | Elsewhere) -> str:
    """Where an input lies, for messages. What was fetched has no folder that files could be read from besides."""
    return source if isinstance(source, str) else f"sha256:{source.content}/{name}"


def chains(recipe: Recipe) -> dict[str, list[str]]:
    """The step ids that each variant goes through. Variants that begin alike share the steps of what they share."""
    known: dict[bytes, str] = {}
    found: dict[str, list[str]] = {}
    for name, chain in recipe.variants.items():
        ids = []
        for length, operation in enumerate(chain, 1):
            prefix = canonical([link.model_dump(mode="json") for link in chain[:length]])
            again = sum(link.named()[0] == operation.named()[0] for link in chain[: length - 1])
            own = f"{name}/{operation.named()[0]}" + (f"-{again + 1}" if again else "")
            ids.append(known.setdefault(prefix, own))
        found[name] = ids
    return found


def _variants(recipe: Recipe) -> Iterator[Step]:
    made: set[str] = set()
    for name, ids in chains(recipe).items():
        before = "model"
        for step_id, operation in zip(ids, recipe.variants[name], strict=True):
            kind, options = operation.named()
            inputs: dict[str, Input] = {"model": Ref(before, "model")}
            if getattr(options, "mode", "") == "static":
                inputs["calibrate"] = Ref("data", "calibrate")
            if step_id not in made:
                params = {**options.model_dump(mode="json"), "seed": recipe.seed, "threads": 1}
                yield Step(step_id, kind, inputs, params)
            made.add(step_id)
            before = step_id


def models(recipe: Recipe) -> dict[str, Ref]:
    """The model file of ``original`` and of every variant."""
    return {"original": Ref("model", "model")} | {name: Ref(ids[-1], "model") for name, ids in chains(recipe).items()}


def _judgement(recipe: Recipe, pins: Pins) -> Iterator[Step]:
    threads = recipe.image.limits.cpus if recipe.image else 1
    found = models(recipe)
    for name, model in found.items():
        reference: dict[str, Input] = (
            {} if name == "original" else {"reference": Ref("evaluate/original", "predictions")}
        )
        yield Step(
            f"evaluate/{name}",
            "evaluate",
            {"model": model, "evaluate": Ref("data", "evaluate"), **reference},
            {"metric": {"name": recipe.data.metric}, "seed": recipe.seed, "threads": threads},
        )
    for name, model in found.items():
        variant = {} if name == "original" else {"variant": model}
        yield Step(
            f"latency/{name}",
            "latency",
            {"original": found["original"], **variant, "evaluate": Ref("data", "evaluate")},
            {"threads": threads, "seed": recipe.seed, "pairs": 10},
        )
    after = tuple(f"{measure}/{name}" for name in found for measure in ("evaluate", "latency"))
    params = {
        "gate": gate_params(recipe),
        "minimize": recipe.choose.minimize,
        "named": recipe.choose.variant,
        "variants": list(recipe.variants),
        "pinned": pins.choice,
    }
    yield Step("choose", "choose", dict(found), params, after)


def gate_params(recipe: Recipe) -> dict[str, Any]:
    """The gates as plain JSON: sizes in bytes, times in seconds."""
    return recipe.gate.model_dump(exclude_none=True)


LAYERS = ("base", "wheels", "server", "bytecode", "model")
"""The layers of an image, lowest first: what changes most often lies on top, so a new model is one new layer."""


def _layer_step(layer: str) -> str:
    return layer if layer in ("base", "wheels") else f"{layer}-layer"


def _image_refs(recipe: Recipe) -> dict[str, Input]:
    """The image as steps take it that read it: config, manifest and the layers' blobs, lowest first."""
    assert recipe.image is not None
    refs: dict[str, Input] = {"config": Ref("image", "config"), "manifest": Ref("image", "manifest")}
    if recipe.image.builder == "docker":
        return {**refs, "layers": Refs("image", "layer-")}
    return refs | {f"layer-{place:02d}": Ref(_layer_step(layer), "blob") for place, layer in enumerate(LAYERS)}


def _image(recipe: Recipe, pins: Pins) -> Iterator[Step]:
    assert recipe.image is not None
    base, wheels = _resolved("base", pins.base), _resolved("wheels", pins.wheels)
    if isinstance(base, Ref):
        yield Step(base.step, "base-resolve", {}, base_request(recipe))
    if recipe.image.base.image is None:
        yield Step("base", "base", {"pins": base}, _CREATED)
    if isinstance(wheels, Ref):
        yield Step(wheels.step, "wheels-resolve", {}, wheels_request(recipe))
    yield from _built(recipe, base, wheels) if recipe.image.builder == "docker" else _assembled(recipe, wheels)
    parts = {"base_pins": base, "wheels_pins": wheels, "model": _CHOSEN["model"], "signature": _CHOSEN["signature"]}
    yield Step("sbom", "sbom", {**parts, **_image_refs(recipe)}, {"name": recipe.name})


def _resolved(what: str, pinned: bytes | None) -> Ref | Pinned:
    """What is locked of the base or the wheels, or what the step makes that resolves them."""
    return Ref(f"{what}-resolve", "pins") if pinned is None else Pinned(pinned)


_CREATED = {"created": CREATED}
_CHOSEN: Mapping[str, Input] = {"model": Ref("choose", "model"), "signature": Ref("model", "signature")}


def _image_params(recipe: Recipe) -> dict[str, Any]:
    assert recipe.image is not None
    image = recipe.image
    facts = {"python": image.python, "device": image.device, "port": image.port}
    grpc = {"grpc": image.grpc} if image.grpc else {}
    return {"name": recipe.name, **facts, **grpc, **_CREATED}


def _assembled(recipe: Recipe, wheels: Input) -> Iterator[Step]:
    """The image as the OCI builder makes it: a step a layer."""
    yield Step("wheels", "wheels", {"pins": wheels}, _CREATED)
    yield Step("server-layer", "server-layer", {}, _CREATED)
    below: dict[str, Input] = {}
    for layer in LAYERS[: LAYERS.index("bytecode")]:
        below |= {layer: Ref(_layer_step(layer), "descriptor"), f"{layer}_blob": Ref(_layer_step(layer), "blob")}
    yield Step("bytecode-layer", "bytecode-layer", below, _CREATED)
    yield Step("model-layer", "model-layer", _CHOSEN, {"name": recipe.name, "version": VERSION, **_CREATED})
    layers = {layer: Ref(_layer_step(layer), "descriptor") for layer in LAYERS}
    yield Step("image", "image", {**layers, "model_file": Ref("choose", "model")}, _image_params(recipe))


def _built(recipe: Recipe, base: Input, wheels: Input) -> Iterator[Step]:
    """The image as an engine builds it: one step, for BuildKit has a cache of its own."""
    assert recipe.image is not None
    assembled: dict[str, Input] = {"base": Ref("base", "descriptor"), "base_blob": Ref("base", "blob")}
    below = assembled if recipe.image.base.image is None else {"base_pins": base}
    params = {**_image_params(recipe), "version": VERSION, "gpus": recipe.image.limits.gpus}
    yield Step("image", "docker-build", {**below, "wheels_pins": wheels, **_CHOSEN}, params)


def _pushed(file: RecipeFile) -> Iterator[Step]:
    """The image looked through for secrets, sent to where it goes, and what belongs to it attached."""
    recipe = file.recipe
    assert recipe.push is not None
    image = _image_refs(recipe)
    yield Step("secrets", "secrets", {name: ref for name, ref in image.items() if name != "manifest"}, {})
    params = {"to": recipe.push.to, "name": recipe.name, "tag": "latest"}
    yield Step("push", "push", image, params, after=("gates", "secrets"))
    documents = {"recipe": file.path, "lock": file.lock_path}
    beside = {name: SourceFile(path.relative_to(file.project).as_posix()) for name, path in documents.items()}
    parts = {"config": image["config"], "manifest": image["manifest"], "sbom": Ref("sbom", "sbom")}
    yield Step("attach", "attach", {**parts, **beside}, params, after=("push",))


def _running_image(recipe: Recipe) -> dict[str, Input]:
    """What a step needs that runs the image and asks it for answers."""
    return {
        **{name: ref for name, ref in _image_refs(recipe).items() if name != "manifest"},
        "variant": Ref("choose", "model"),
        "evaluate": Ref("data", "evaluate"),
    }


def _benchmarks(recipe: Recipe) -> Iterator[Step]:
    assert recipe.image is not None
    threads, limits = recipe.image.limits.cpus, recipe.image.limits.model_dump()
    params = {"name": recipe.name, "threads": threads, "limits": limits, "builder": recipe.image.builder}
    parity = {**params, **recipe.parity.model_dump(), "samples": 64}
    yield Step("parity", "parity", _running_image(recipe), parity)
    for name, bench in recipe.benchmark.items():
        load = {
            "benchmark": name,
            "scenario": bench.scenario,
            "duration_s": bench.duration,
            "rate": bench.rate,
            "p99_s": bench.p99,
            "against": ["process", "image"],
            "seed": recipe.seed,
        }
        yield Step(f"benchmark/{name}", "benchmark", _running_image(recipe), {**params, **load})
    after = tuple(f"benchmark/{name}" for name in recipe.benchmark)
    yield Step("gates", "gates", {}, {"gate": gate_params(recipe)}, after=("choose", "parity", *after))


def ingredients(step: Step, inputs: Mapping[str, str], isa: str, machine: str) -> dict[str, str]:
    """What decides the result of ``step``, by name, given the digests of its inputs."""
    kind = KINDS[step.kind]
    found = {f"input {name}": digest for name, digest in inputs.items()}
    found |= {f"setting {name}": json.dumps(value, sort_keys=True) for name, value in step.params.items()}
    found |= {f"source {package}": source_digest(package) for package in kind.packages}
    found |= {f"tool {tool}": version(tool) for tool in kind.tools}
    if kind.isa:
        found["instruction set"] = isa
    if kind.nature == "figure":
        found["machine"] = machine
    return found


def key_of(kind: str, found: Mapping[str, str]) -> str:
    """The key of a step of ``kind`` with these ingredients."""
    return digest_of_bytes(canonical([kind, dict(found)]))


def toolchain(steps: list[Step]) -> dict[str, str]:
    """The versions of all tools that decide what ``steps`` make.

    Those that resolve packages are left out: what they came to is pinned.
    """
    made = [step for step in steps if not step.kind.endswith("-resolve")]
    tools = {tool for step in made for tool in KINDS[step.kind].tools}
    return {tool: version(tool) for tool in sorted(tools)}


@functools.cache
def version(distribution: str) -> str:
    """The installed version of ``distribution``, or ``not installed``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def source_digest(package: str) -> str:
    """The digest of the source of a workbench package (``workbench.image``) or asset folder (``assets/image``)."""
    folder = asset(package.removeprefix("assets/")) if package.startswith("assets/") else package_folder(package)
    total = hashlib.sha256()
    for path in sorted(_sources(folder)):
        total.update(canonical([path.relative_to(folder).as_posix(), digest_of_bytes(path.read_bytes())]))
    return f"sha256:{total.hexdigest()}"


def _sources(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path
