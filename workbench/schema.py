"""The schema of a recipe: what may stand in it, in which units, and what is meant where nothing stands."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StringConstraints,
    Tag,
    model_validator,
)

from workbench.document import nearest
from workbench.units import parse_duration, parse_rate, parse_size

FORMAT = 1

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


def _written_size(count: int) -> str:
    return f"{count}B"


def _written_duration(seconds: float) -> str:
    return f"{seconds!r}s"


Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(_written_size, when_used="json")]
Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(_written_duration, when_used="json")]


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


def _gpus(value: object) -> object:
    known = value is None or value == "all" or isinstance(value, int) and 1 <= value <= 64
    listed = isinstance(value, list) and value and all(re.fullmatch(r"(GPU|MIG)-[\w/-]{1,80}", str(x)) for x in value)
    if known or listed:
        return value
    raise ValueError("must be all, a number of GPUs, or a list of UUIDs (GPU-..., MIG-...)")


def _base_image(value: object) -> object:
    if value is None or isinstance(value, str) and re.fullmatch(r"[a-z0-9][\w.:/@-]{0,254}", value):
        return value
    raise ValueError("must name an image, such as python:3.11-slim or registry.example.com/team/base:1")


class Preprocess(Part):
    """Numeric operations folded into the front of the graph: cast, layout, then ``(x * scale - mean) / std``."""

    cast: Literal["uint8"] | None = Field(None, description="the type production sends; cast to float inside the graph")
    layout: Literal["nhwc->nchw", "nchw->nhwc"] | None = None
    scale: float | None = None
    mean: float | list[float] | None = None
    std: float | list[float] | None = None


_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")


def _url(value: object) -> object:
    found = re.fullmatch(r"(https?)://([^\s/?#@\\]+)(?:[/?#][^\s\\]*)?", value) if isinstance(value, str) else None
    host = re.sub(r":\d+$", "", found[2]) if found else ""
    if value is None or found and (found[1] == "https" or host in _LOOPBACK):
        return value
    raise ValueError("must be an address that begins with https:// and holds no user and no password")


def _blob(value: object) -> object:
    if value is None or isinstance(value, str) and re.fullmatch(r"[^\s@]{1,300}@sha256:[0-9a-f]{64}", value):
        return value
    raise ValueError("must be HOST/NAME@sha256:… or oci:FOLDER@sha256:… with the digest of the file")


class Elsewhere(Part):
    """A file that is not in the project, named by its content: an address, or a blob of a registry or layout folder."""

    url: Annotated[str, BeforeValidator(_url)] | None = Field(None, description="https address of the file")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="what the file at url must be, as sha256sum prints it"
    )
    oci: Annotated[str, BeforeValidator(_blob)] | None = Field(
        None, description="HOST/NAME@sha256:… or oci:FOLDER@sha256:…, as workbench push --inputs prints it"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) != (self.sha256 is None) or (self.url is None) == (self.oci is None):
            raise ValueError("must have either url: and sha256:, or oci:")
        return self

    @property
    def content(self) -> str:
        """The sha256 of the file, in hex."""
        return self.sha256 or str(self.oci).rpartition(":")[2]


def _kind(value: object) -> str:
    return "elsewhere" if isinstance(value, dict | Elsewhere) else "path"


Source = Annotated[Annotated[str, Tag("path")] | Annotated[Elsewhere, Tag("elsewhere")], Discriminator(_kind)]


class Model(Part):
    """The model to start from."""

    source: Source = Field(description="path of an ONNX file, relative to the project; or {url, sha256}, or {oci}")
    preprocess: Preprocess | None = None


class Data(Part):
    """What the model is judged on, and what its ranges are calibrated on."""

    evaluate: Source = Field(description="npz with an array for each model input, and labels as y")
    calibrate: Source | None = Field(None, description="npz with an array for each model input")
    metric: Annotated[str, BeforeValidator(_metric)] = Field(description="accuracy, top-K, f1, auc, mse or fidelity")


class Quantize(Part):
    """Quantization of weights, and in the static mode of activations, to 8-bit integers."""

    to: Literal["int8"]
    mode: Literal["static", "dynamic", "weight-only"] = "static"
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
    """Which of the variants that keep the gates is taken: the best by ``minimize``, or the one that is named."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["minimize", "variant"]}})

    minimize: Literal["p50", "p99", "size", "metric_drop"] = "p50"
    variant: Name | None = Field(None, description="chosen by hand, instead of minimize; it must keep the gates, too")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.variant is not None and "minimize" in self.model_fields_set:
            raise ValueError("must have either minimize: or variant:")
        return self


class Base(Part):
    """What the image stands on: assembled from Debian packages, or an image of a registry. Exactly one of them."""

    debian: Literal["bookworm"] | None = Field(None, description="assembled from packages of this Debian release")
    image: Annotated[str, BeforeValidator(_base_image)] | None = Field(
        None, description="a registry's image, such as python:3.11-slim; the lock pins it by digest"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.debian is None) == (self.image is None):
            raise ValueError("must have either debian: or image:")
        return self


class Limits(Part):
    """What the container may use. ``gpus`` are asked of the engine: all, a number, or UUIDs of GPUs or MIG parts."""

    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    memory: Size | None = None
    pids: Annotated[int, Field(ge=16, le=65536)] = 512
    gpus: Annotated[Literal["all"] | int | list[str] | None, BeforeValidator(_gpus)] = None


class Image(Part):
    """The container image."""

    builder: Literal["oci", "docker"] = Field(
        "oci", description="oci writes the image itself; docker has the engine build it with BuildKit"
    )
    base: Base = Base(debian="bookworm")
    python: Literal["3.11"] = "3.11"
    device: Literal["cpu", "cuda"] = "cpu"
    limits: Limits = Limits()
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    grpc: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="port on which the server speaks gRPC beside HTTP, such as 8001; without it, it does not"
    )
    tracing: bool = Field(
        False, description="brings what sends spans over OTLP, which it does where OTEL_EXPORTER_OTLP_ENDPOINT is set"
    )

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.grpc == self.port:
            raise ValueError("must have another port at grpc: than at port:")
        return self


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

    to: str = Field(
        description="HOST/NAME[:TAG] in a registry, or oci:FOLDER[:TAG], an OCI layout folder relative to the project"
    )


class Tolerance(Part):
    """How far a figure may be worse than the locked one, as a fraction of it, before it counts."""

    latency: Annotated[float, Field(ge=0)] = 0.25
    memory: Annotated[float, Field(ge=0)] = 0.10
    metric: Annotated[float, Field(ge=0)] = 0.0
    size: Annotated[float, Field(ge=0)] = 0.001


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

    @property
    def inputs(self) -> dict[str, str | Elsewhere]:
        """The files that the recipe starts from, by where they stand in it."""
        found = {"model.source": self.model.source, "data.evaluate": self.data.evaluate}
        return found | ({"data.calibrate": self.data.calibrate} if self.data.calibrate else {})

    def normal_form(self) -> dict[str, Any]:
        """The recipe as plain JSON with every default written out: equal for recipes that mean the same."""
        found = self.model_dump(mode="json")
        if self.choose.variant is None:
            del found["choose"]["variant"]  # younger than the locks whose digests it must not change
        if self.image is not None and self.image.grpc is None:
            del found["image"]["grpc"]  # likewise
        if self.image is not None and not self.image.tracing:
            del found["image"]["tracing"]  # likewise
        return found


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    found = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "workbench recipe", **found}
