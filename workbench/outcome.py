"""What the results of a run come to: the artifacts and figures that a lock records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.host.fingerprint import class_name
from workbench.lock import Artifacts, Figure, HostFigures, ImageFacts, Lock, Resolved, pins_of, recipe_digests
from workbench.plan import CREATED, Pinned, Step, base_request, source_digest, toolchain, wheels_request
from workbench.schema import Recipe
from workbench.steps import KINDS
from workbench.store import Result, Store

_ROOMS_OF_MADE = ("workbench.model", "workbench.compress")


@dataclass(frozen=True)
class Done:
    """A step with its result and the ingredients that it was made of."""

    step: Step
    result: Result
    ingredients: Mapping[str, str]
    reused: bool


def lock_of(
    recipe: Recipe, steps: list[Step], done: Mapping[str, Done], store: Store, machine: Mapping[str, Any], isa: str
) -> Lock:
    """The lock that says what these results are. Figures of other host classes are the caller's to keep."""
    return Lock(
        recipe=recipe_digests(recipe),
        artifacts=_artifacts(recipe, steps, done, store, isa),
        figures={
            class_name(machine["class"]): HostFigures(machine=dict(machine["facts"]), values=_figures(recipe, done))
        },
    )


def _artifacts(recipe: Recipe, steps: list[Step], done: Mapping[str, Done], store: Store, isa: str) -> Artifacts:
    return Artifacts(
        toolchain=toolchain(steps),
        instruction_set=isa,
        seed=recipe.seed,
        sources=_sources(recipe, done),
        made=dict(_made(done)),
        choice=str(done["choose"].result.values["choice"]),
        image=_image(done) if "image" in done else None,
        base=_resolved(base_request(recipe), "base_pins", done["sbom"], store) if "sbom" in done else None,
        wheels=_resolved(wheels_request(recipe), "wheels_pins", done["sbom"], store) if "sbom" in done else None,
    )


def _sources(recipe: Recipe, done: Mapping[str, Done]) -> dict[str, str]:
    found = {"model.source": done["model"].ingredients["input source"]}
    found |= {f"model.source {path}": digest for path, digest in sorted(done["model"].result.also_read.items())}
    for name in ("evaluate", "calibrate"):
        if digest := done["data"].ingredients.get(f"input {name}"):
            found[f"data.{name}"] = digest
    return found | ({"server source": source_digest("workbench.server")} if recipe.image else {})


def _made(done: Mapping[str, Done]) -> Iterator[tuple[str, str]]:
    """The artifacts of the model and compress rooms: ``model``, ``data/evaluate``, ``int8/quantize`` …"""
    for name, item in done.items():
        if KINDS[item.step.kind].packages[0] in _ROOMS_OF_MADE:
            for output in item.result.files:
                yield (name if output == "model" else f"{name}/{output}"), item.result.digest(output)


def _resolved(request: dict[str, Any], pins: str, sbom: Done, store: Store) -> Resolved:
    """What a request came to, as the parts list was made from it, whoever built the image."""
    source = sbom.step.inputs[pins]
    data = source.data if isinstance(source, Pinned) else store.path(sbom.ingredients[f"input {pins}"]).read_bytes()
    return Resolved(request=request, pins=pins_of(data))


def _image(done: Mapping[str, Done]) -> ImageFacts:
    values = done["image"].result.values
    layers = {layer["name"]: layer["diff_id"] for layer in values["layers"]}
    pushed = done["push"].result.values.get("by_digest") if "push" in done else None
    return ImageFacts(
        builder=values.get("builder", "oci"),
        tree=values.get("tree"),
        config=values["config"],
        manifest=values["manifest"],
        compressor=values["layers"][0]["compressor"],
        created=CREATED,
        layers=layers,
        sbom=done["sbom"].result.digest("sbom") if "sbom" in done else None,
        pushed=pushed,
    )


def _figures(recipe: Recipe, done: Mapping[str, Done]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for name in ("original", *recipe.variants):
        found |= _variant_figures(name, done)
    if "image" in done:
        values = done["image"].result.values
        found["image.size"] = _size(values["size"])
        found["image.uncompressed"] = _size(values["uncompressed"])
    for name, bench in recipe.benchmark.items():
        if item := done.get(f"benchmark/{name}"):
            for system in ("process", "image"):
                values = item.result.values
                name_of = f"benchmark.{name}.{system}"
                found |= _benchmark_figures(name_of, values.get(system, {}), _disturbed(values))
                if bench.rate == "max" and values.get(system, {}).get("valid"):
                    found[f"{name_of}.max_rate"] = _rate(values[system]["rate"], _disturbed(values))
    return found


def _variant_figures(name: str, done: Mapping[str, Done]) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    if item := done.get(f"evaluate/{name}"):
        values = item.result.values
        metric = values["metric"]
        found[f"{name}.size"] = _size(values["size"])
        found[f"{name}.{metric['name']}"] = Figure(
            value=float(metric["value"]),
            interval=metric.get("interval"),
            unit="",
            better="higher" if metric["higher_is_better"] else "lower",
            kind="metric",
        )
    if item := done.get(f"latency/{name}"):
        values = item.result.values
        own = values["original"] if name == "original" else values["variant"]
        disturbed = _disturbed(values)
        found |= _percentiles(name, own, disturbed)
        if "ratio" in values:
            found[f"{name}.ratio"] = _latency(values["ratio"], values["ratio_interval"], "of original", disturbed)
    return found


def _size(count: int) -> Figure:
    return Figure(value=float(count), unit="B", better="lower", kind="size")


def _latency(value: float, interval: Any, unit: str, disturbed: bool) -> Figure:
    return Figure(value=float(value), interval=interval, unit=unit, better="lower", kind="latency", disturbed=disturbed)


def _rate(value: float, disturbed: bool) -> Figure:
    return Figure(value=value, interval=None, unit="1/s", better="higher", kind="latency", disturbed=disturbed)


def _disturbed(values: Mapping[str, Any]) -> bool:
    return bool(values.get("conditions", {}).get("disturbed"))


def _percentiles(name: str, values: Mapping[str, Any], disturbed: bool) -> dict[str, Figure]:
    """The median and the tail. What lies between them is in the run; more figures would only be more false alarms."""
    return {
        f"{name}.{level}": _latency(values[f"{level}_ns"], values.get(f"{level}_interval_ns"), "ns", disturbed)
        for level in ("p50", "p99")
        if values.get(f"{level}_ns") is not None
    }


def _benchmark_figures(name: str, values: Mapping[str, Any], disturbed: bool) -> dict[str, Figure]:
    if not values.get("valid"):
        return {}  # a run that LoadGen calls INVALID has no figures
    found = _percentiles(name, values, disturbed)
    if (memory := values.get("peak_memory_bytes")) is not None:
        found[f"{name}.peak_memory"] = Figure(value=float(memory), unit="B", better="lower", kind="memory")
    if (start := values.get("start_to_first_answer_s")) is not None:
        interval = values.get("start_to_first_answer_interval_s")
        found[f"{name}.start_to_first_answer"] = _latency(start, interval, "s", disturbed)
    return found
