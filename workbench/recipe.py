"""The recipe: what to do, written by people. Its schema, and reading it with every problem at once.

Reading is three steps: parse (:mod:`workbench.document`), validate (the models below), complete (defaults, checks that
need the whole recipe or the file system).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from workbench.document import Document, Problem, Where, nearest, read, refuse
from workbench.errors import UsageError
from workbench.units import Duration, Size, parse_rate

FORMAT = 1

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class Part(BaseModel):
    """A part of a recipe: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _metric(value: object) -> object:
    allowed = ["accuracy", "f1", "auc", "mse", "fidelity"]
    if value in allowed or (isinstance(value, str) and re.fullmatch(r"top-[1-9]\d{0,3}", value)):
        return value
    raise ValueError(f"must be one of {', '.join([*allowed, 'top-K'])}; {nearest(str(value), allowed)}".rstrip("; "))


def _rate(value: object) -> object:
    return value if value == "max" else parse_rate(value)


class Preprocess(Part):
    """Numeric operations folded into the front of the graph: cast, layout, then ``(x * scale - mean) / std``."""

    cast: Literal["uint8"] | None = Field(None, description="the type production sends; cast to float inside the graph")
    layout: Literal["nhwc->nchw", "nchw->nhwc"] | None = None
    scale: float | None = None
    mean: float | list[float] | None = None
    std: float | list[float] | None = None


class Model(Part):
    """The model to start from."""

    source: str = Field(description="path of an ONNX file, relative to the project")
    preprocess: Preprocess | None = None


class Data(Part):
    """What the model is judged on, and what its ranges are calibrated on."""

    evaluate: str = Field(description="npz with an array for each model input, and labels as y")
    calibrate: str | None = Field(None, description="npz with an array for each model input")
    metric: Annotated[str, BeforeValidator(_metric)] = Field(description="accuracy, top-K, f1, auc, mse or fidelity")


class Quantize(Part):
    """Quantization of weights, and in the static mode of activations, to 8-bit integers."""

    to: Literal["int8"]
    mode: Literal["static", "dynamic"] = "static"
    calibration: Literal["minmax", "percentile"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    per_channel: bool = True


class Operation(Part):
    """One link of a variant's chain: exactly one operation."""

    quantize: Quantize

    def named(self) -> tuple[str, Part]:
        """The operation's name and its parameters."""
        return "quantize", self.quantize


class P99Gate(Part):
    """A bound on the 99th percentile of the latency of one query."""

    of: str = Field(
        "variant", description="variant (in process), or the name of a benchmark (over HTTP, from the image)"
    )
    max: Duration


class Gate(Part):
    """What a variant must keep to be chosen."""

    metric_drop: float | None = Field(None, description="the most the metric may get worse, in units of the metric")
    metric_min: float | None = Field(None, description="the least the metric may be (the most, where lower is better)")
    model_size: Size | None = None
    p99: P99Gate | None = None
    undecided: Literal["fail", "pass"] = "fail"


class Choose(Part):
    """Which of the variants that keep the gates is taken."""

    minimize: Literal["p50", "p99", "size", "metric_drop"] = "p50"


class DebianBase(Part):
    """A base assembled from Debian packages."""

    debian: Literal["bookworm"]


class Limits(Part):
    """What the container may use."""

    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    memory: Size | None = None


class Image(Part):
    """The container image."""

    builder: Literal["oci"] = "oci"
    base: DebianBase = DebianBase(debian="bookworm")
    python: Literal["3.11"] = "3.11"
    device: Literal["cpu"] = "cpu"
    limits: Limits = Limits()
    port: Annotated[int, Field(ge=1, le=65535)] = 8000


class Benchmark(Part):
    """A load put on the chosen variant, in process and from the image over HTTP."""

    scenario: Literal["single-stream", "server"]
    duration: Duration = 10.0
    rate: Annotated[float | Literal["max"] | None, BeforeValidator(_rate)] = Field(
        None, description="queries a second (200/s), or max: the highest rate that holds p99"
    )
    p99: Duration | None = Field(None, description="the latency bound of the server scenario")


class Push(Part):
    """Where the image goes."""

    to: str = Field(description="oci:FOLDER[:TAG], an OCI layout folder relative to the project")


class Tolerance(Part):
    """How far a figure may be worse than the locked one, as a fraction of it, before it counts."""

    latency: Annotated[float, Field(ge=0)] = 0.25
    memory: Annotated[float, Field(ge=0)] = 0.10
    metric: Annotated[float, Field(ge=0)] = 0.0


class Parity(Part):
    """How far the image's answers may lie from the variant's in process where they are not bit-equal."""

    atol: Annotated[float, Field(ge=0)] = 1e-5
    rtol: Annotated[float, Field(ge=0)] = 1e-4


class Recipe(Part):
    """A whole recipe."""

    workbench: Literal[1] = Field(description="the format's version")
    name: Name
    model: Model
    data: Data
    variants: dict[Name, Annotated[list[Operation], Field(min_length=1)]] = Field(default_factory=dict)
    gate: Gate = Gate()
    choose: Choose = Choose()
    image: Image | None = None
    benchmark: dict[Name, Benchmark] = Field(default_factory=dict)
    push: Push | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    tolerance: Tolerance = Tolerance()
    parity: Parity = Parity()

    def normal_form(self) -> dict[str, Any]:
        """The recipe as plain JSON with every default written out: equal for recipes that mean the same."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as it was read: its project, its path in it, and the settings that came from the command line."""

    recipe: Recipe
    project: Path
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def lock_path(self) -> Path:
        """Where the lock of this recipe lies: beside it."""
        return self.path.with_suffix(".lock.yaml")


def project_of(path: Path) -> Path:
    """The project a file belongs to: the nearest parent with ``.git`` or ``.workbench``, else the file's own folder."""
    folder = path.resolve().parent
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists() or (parent / ".workbench").is_dir():
            return parent
    return folder


def load(path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """The valid recipe at ``path``, with ``overrides`` (``key.key=value``) applied.

    Raises RecipeError with every problem at once, each with its line, what is allowed and the nearest spelling.
    """
    document = read(path)
    for override in overrides:
        _override(document.data, override)
    problems: list[Problem] = []
    project = project_of(path)
    problems.extend(_file_problems(document, project))
    recipe = _validate(document, problems)
    if recipe is not None:
        problems.extend(_whole_problems(recipe, document))
    refuse(path, problems)
    assert recipe is not None
    return RecipeFile(recipe, project, path.resolve(), tuple(overrides))


_STAND_INS: dict[str, Any] = {
    "workbench": FORMAT,
    "name": "unnamed",
    "model": {"source": "unnamed"},
    "data": {"evaluate": "unnamed", "metric": "accuracy"},
}


def _validate(document: Document, problems: list[Problem]) -> Recipe | None:
    """The recipe; where it is not valid, what is left without the invalid values, so that the whole is checked too."""
    try:
        return Recipe.model_validate(document.data)
    except ValidationError as error:
        problems.extend(_problems(error, document))
    data = copy.deepcopy(document.data)
    for _ in range(4):
        try:
            return Recipe.model_validate(data)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                where = _spelled(item["loc"], document.data)
                _remove(data, where[:-1] if item["type"] == "missing" else where)
            for key, stand_in in _STAND_INS.items():
                given = data.get(key, stand_in)
                data[key] = {**stand_in, **given} if isinstance(stand_in, dict) and isinstance(given, dict) else given
    return None


def _remove(data: Any, where: Where) -> None:
    for part in where[:-1]:
        inside = (
            isinstance(data, dict)
            and part in data
            or isinstance(data, list)
            and isinstance(part, int)
            and part < len(data)
        )
        if not inside:
            return
        data = data[part]
    if isinstance(data, dict) and where:
        data.pop(where[-1], None)
    elif isinstance(data, list) and where:
        del data[int(where[-1]) :]


def _override(data: dict[str, Any], override: str) -> None:
    """Sets what ``a.b.c=value`` names; the value is YAML."""
    from workbench.document import parse

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"--set {override} is not of the form key=value.", "Write for example --set gate.metric_drop=0.02."
        )
    node: Any = data
    *way, last = key.split(".")
    for part in way:
        node = node.setdefault(part, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise UsageError(f"--set {override}: {key} does not lead to a setting.")
    node[last] = parse(f"value: {text}", Path("--set")).data["value"]


def _problems(error: ValidationError, document: Document) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        where = _spelled(item["loc"], document.data)
        yield Problem(document.line(where), ".".join(map(str, where)), _sentence(item, where))


def _spelled(loc: tuple[str | int, ...], data: Any) -> Where:
    """``loc`` without the names that pydantic adds for the branches of a union."""
    where: list[str | int] = []
    for index, part in enumerate(loc):
        inside = isinstance(data, dict) and part in data or isinstance(data, list) and isinstance(part, int)
        if inside:
            data = data[part]
        elif index < len(loc) - 1 or not isinstance(data, dict):
            continue
        where.append(part)
    return tuple(where)


def _sentence(item: Mapping[str, Any], where: Where) -> str:
    """One validation error in the user's words: what is wrong, what is allowed, the nearest spelling."""
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed(where[:-1])
        return "; ".join(
            filter(None, ["unknown key", nearest(str(where[-1]), allowed), f"allowed: {', '.join(allowed)}"])
        )
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        allowed = [word.strip("' ") for word in re.split(r",| or ", context["expected"])]
        hint = nearest(str(item["input"]), allowed)
        return "; ".join(filter(None, [f"{item['input']!r} is not allowed", hint, f"allowed: {', '.join(allowed)}"]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return "must be lower-case letters, digits, '.', '_' and '-', starting with a letter or digit"
    return f"{item['msg'][0].lower()}{item['msg'][1:]} (it is {json.dumps(item['input'], default=str)[:60]})"


def _allowed(where: Where) -> list[str]:
    """The keys that the part of the recipe at ``where`` may have."""
    schema = Recipe.model_json_schema()
    node = schema
    for part in where:
        node = _resolve(schema, node)
        others = [node.get("additionalProperties"), *node.get("patternProperties", {}).values(), {}]
        named = node.get("properties", {}).get(part) or next(other for other in others if isinstance(other, dict))
        node = node.get("items", {}) if isinstance(part, int) else named
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in (node, *node.get("anyOf", [])):
        if reference := option.get("$ref"):
            found: dict[str, Any] = schema["$defs"][reference.rsplit("/", 1)[1]]
            return found
    return node


def _file_problems(document: Document, project: Path) -> Iterator[Problem]:
    """Files that the recipe names and that are not there, or lie outside the project."""
    for section, key in (("model", "source"), ("data", "evaluate"), ("data", "calibrate")):
        part = document.data.get(section)
        name = part.get(key) if isinstance(part, dict) else None
        if not isinstance(name, str):
            continue
        message = ""
        if re.match(r"(oci|python|https?):", name):
            message = f"{name.partition(':')[0]}: is not something this version can read; name an ONNX or npz file"
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            message = f"{name} must be a path inside the project, relative to {project}"
        elif not (project / name).is_file():
            near = nearest(name, [str(p.relative_to(project)) for p in (project / name).parent.glob("*")])
            message = "; ".join(filter(None, [f"there is no file {name} in {project}", near]))
        if message:
            yield Problem(document.line((section, key)), f"{section}.{key}", message)


def _whole_problems(recipe: Recipe, document: Document) -> Iterator[Problem]:
    """What only the recipe as a whole can show."""

    def problem(message: str, *where: str | int) -> Problem:
        return Problem(document.line(where), ".".join(map(str, where)), message)

    for name, chain in recipe.variants.items():
        if name == "original":
            yield problem("is the name of the model as it came; call the variant something else", "variants", name)
        for index, operation in enumerate(chain):
            if operation.quantize.mode == "static" and recipe.data.calibrate is None:
                yield problem(
                    "static quantization needs data.calibrate; add it, or use mode: dynamic", "variants", name, index
                )
            if index and chain[index - 1].named()[0] == "quantize":
                yield problem("the model is quantized already; nothing can follow", "variants", name, index)
    if recipe.gate.p99 is not None and recipe.gate.p99.of not in ("variant", *recipe.benchmark):
        allowed = ["variant", *recipe.benchmark]
        hint = nearest(recipe.gate.p99.of, allowed)
        yield problem(
            "; ".join(
                filter(None, [f"there is no benchmark {recipe.gate.p99.of!r}", hint, f"allowed: {', '.join(allowed)}"])
            ),
            "gate",
            "p99",
            "of",
        )
    for name, bench in recipe.benchmark.items():
        if bench.scenario == "server" and (bench.rate is None or bench.p99 is None):
            yield problem("the server scenario needs rate (200/s or max) and p99 (10ms)", "benchmark", name)
        if bench.scenario == "single-stream" and (bench.rate is not None or bench.p99 is not None):
            yield problem("rate and p99 belong to the server scenario", "benchmark", name)
    if recipe.benchmark and recipe.image is None:
        yield problem("a benchmark needs an image to run; add an image section", "benchmark")
    if recipe.push is not None:
        if recipe.image is None:
            yield problem("there is nothing to push; add an image section", "push")
        if not re.fullmatch(r"oci:[^:]+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?", recipe.push.to):
            yield problem(
                "must be oci:FOLDER or oci:FOLDER:TAG; other registries are not supported by this version", "push", "to"
            )


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    found = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "workbench recipe", **found}
