"""What the server answers over HTTP, in the words of OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html).

Made from the models as they are loaded when it is asked: each has addresses of its own here, with the names, datatypes
and shapes of its signature. What JSON Schema cannot say (that the extents of a shape multiply to the number of
elements, that lists of a dynamic axis are equally long, that no input is given twice) is answered with 400.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import workbench
from workbench.server.app import App, Route
from workbench.server.batcher import Batcher
from workbench.server.errors import RequestError
from workbench.server.model import Model
from workbench.server.model_config import model_config
from workbench.server.protocol import MAX_TIMEOUT_US
from workbench.server.tensors import TensorSpec

Schema = dict[str, Any]

JSON = "application/json"
OCTETS = "application/octet-stream"
_PREFIX = "#/components/schemas/"
_WHY = {
    400: "The request is not one that the model takes; the message names what is wrong.",
    403: "The server's settings do not allow it.",
    404: "There is no such model or version.",
    406: "The answer has no form that the request accepts.",
    413: "The body is too long.",
    415: "The body has an encoding or a content type that is not read here.",
    429: "The server has as much to do as it may take on.",
    503: "The server stops, or is not ready yet.",
    504: "The time that the request gave has passed.",
}
_SHORT = 100
"""Most elements of an example."""
_ALWAYS = (400, 413, 415, 429)
_BINARY_HEADER = "Inference-Header-Content-Length"


def document(app: App) -> Schema:
    """The OpenAPI document of ``app``."""
    paths: Schema = _fixed_paths(app)
    paths |= _statistics("", "all models", list(app.repository))
    for name in app.repository.names():
        versions = app.repository.served(name).versions
        model = app.repository.look_up(name).model
        paths |= _model_paths(f"/{name}", model)
        paths |= _statistics(f"/{name}", name, versions.values())
        for version, batcher in versions.items():
            paths |= _model_paths(f"/{name}/versions/{version}", batcher.model)
            paths |= _statistics(f"/{name}/versions/{version}", f"version {version} of {name}", [batcher])
    for path, route in app.routes.items():
        paths[path] = described(route)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "workbench",
            "version": workbench.__version__,
            "summary": "Inference by the Open Inference Protocol (V2) and by V1.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": _error("error"), "Message": _error("message")}},
    }


def described(route: Route) -> Schema:
    """The operations of a route, by method."""
    if route.operations is not None:
        with contextlib.suppress(RequestError):  # the model that answers there is not loaded now
            return dict(route.operations(sys.modules[__name__]))
    return {method.lower(): _operation("An address of this server", {200: {}}) for method in route.method.split()}


def metrics() -> Schema:
    """The address of the metrics."""
    return {"get": _operation("What is counted, in the text form of Prometheus", {200: _plain()})}


def itself() -> Schema:
    """The address of this document."""
    return {"get": _operation("This document", {200: _json({"type": "object", "required": ["openapi", "paths"]})})}


def probe() -> Schema:
    """An address that says in its status whether the server is well."""
    return {"get": _operation("Whether the server is well", {200: _plain(), 503: _plain()})}


def scoring(app: App, name: str, error: str) -> Schema:
    """The address at which a platform asks for predictions of model ``name``; ``error``: Error or Message, the schema
    of its refusals."""
    model = app.repository.look_up(name).model
    body = _json({"anyOf": [_v1_request(model), _v2_request(model)]})
    body["content"] |= {"text/csv": {"schema": {"type": "string"}}, OCTETS: {"schema": _OCTET_STRING}}
    answers = _json({"anyOf": [_v1_response(model), _v2_response(model)]})
    answers["content"] |= {"text/csv": {"schema": {"type": "string"}}, OCTETS: {"schema": _OCTET_STRING}}
    said = _operation(f"Predictions of {name}", {200: answers}, (404, 406, 504), body, error)
    return {"post": said | {"parameters": [_HEADER_PARAMETER]}}


# --- the server's own addresses


def _fixed_paths(app: App) -> Schema:
    text = {"type": "string"}
    about = _object(name=text, version=text, extensions={"type": "array", "items": text})
    ready = {200: _json(_object(ready={"const": True})), 503: _json(_object(ready={"const": False}))}
    paths: Schema = {
        "/v2": {"get": _operation("About the server", {200: _json(about)})},
        "/v2/health/live": {"get": _operation("Whether the server lives", {200: _json(_object(live={"const": True}))})},
        "/v2/health/ready": {"get": _operation("Whether the server is ready", ready)},
        "/v1/models": {"get": _operation("The models", {200: _json(_object(models={"type": "array", "items": text}))})},
    }
    entry = _object(name=text, version=text, state={"enum": ["READY", "UNAVAILABLE"]}, reason=text)
    index = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    config = {"type": "object", "properties": {"parameters": {"type": "object", "properties": {"config": text}}}}
    none = _json({"type": "object", "maxProperties": 0})
    for path, summary, asked, found in (
        ("index", "Models, loaded or not", index, _json({"type": "array", "items": entry})),
        ("models/{name}/load", "Load versions of a model, and say how requests are spread over them", config, none),
        ("models/{name}/unload", "Take a model out of service", None, none),
    ):
        answers = {200: found} if app.change_repository else {}
        operation = _operation(summary, answers, (403, 404), _json(asked, required=False) if asked else None)
        if "{name}" in path:
            operation["parameters"] = [
                {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[\\w.~-]+$"}}
            ]
        paths[f"/v2/repository/{path}"] = {"post": operation}
    return paths


def _statistics(at: str, of: str, batchers: Iterable[Batcher]) -> Schema:
    count = {"type": "integer", "minimum": 0}
    text = {"type": "string"}
    version = dict.fromkeys(("name", "version"), text)
    duration = _object(count=count, ns=count)
    run = dict.fromkeys(("compute_input", "compute_infer", "compute_output"), duration)
    requests = dict.fromkeys(("success", "fail", "queue", "cache_hit", "cache_miss"), duration)
    answered = _object(
        **version,
        **dict.fromkeys(("last_inference", "inference_count", "execution_count"), count),
        inference_stats=_object(**requests, **run),
        batch_stats={"type": "array", "items": _object(batch_size=count, **run)},
    )
    by_name: Schema = {"type": "object", "additionalProperties": {"type": ["object", "string"]}}
    known = _object(
        **version,
        **dict.fromkeys(("rows", "rows_seen"), count),
        **dict.fromkeys(("inputs", "outputs", "left_out"), by_name),
    )
    followed = any(batcher.statistics is not None for batcher in batchers)
    drift = {200: _json(_object(model_drift={"type": "array", "items": known}))} if followed else {}
    stats = {200: _json(_object(model_stats={"type": "array", "items": answered}))}
    return {
        f"/v2/models{at}/stats": {"get": _operation(f"What {of} answered since it was loaded", stats, (404,))},
        f"/v2/models{at}/drift": {"get": _operation(f"What is known of inputs and outputs of {of}", drift, (404,))},
    }


def _model_paths(at: str, model: Model) -> Schema:
    v1, v2, of = f"/v1/models{at}", f"/v2/models{at}", model.name
    ready = {status: _json(_object(name={"const": of}, ready={"const": status == 200})) for status in (200, 503)}
    inference = _operation(f"Inference by {of}", {200: _v2_answers(model)}, (404, 504), _v2_body(model))
    return {
        v2: {"get": _operation(f"The signature of {of}", {200: _json(_metadata(model))}, (404,))},
        f"{v2}/config": {
            "get": _operation(f"The configuration of {of}", {200: _json({"const": model_config(model)})}, (404,))
        },
        f"{v2}/ready": {"get": _operation(f"Whether {of} is ready", ready, (404,))},
        f"{v2}/infer": {"post": inference | {"parameters": [_HEADER_PARAMETER]}},
        v1: {"get": _operation(f"Whether {of} is ready", ready, (404,))},
        f"{v1}:predict": {
            "post": _operation(
                f"Predictions of {of}", {200: _json(_v1_response(model))}, (404,), _json(_v1_request(model))
            )
        },
    }


# --- V2


def _metadata(model: Model) -> Schema:
    tensors = {
        kind: {"type": "array", "items": {"enum": [spec.metadata() for spec in specs.values()]}}
        for kind, specs in (("inputs", model.inputs), ("outputs", model.outputs))
    }
    text = {"type": "string"}
    return _object(name={"const": model.name}, platform=text, versions={"type": "array", "items": text}, **tensors)


def _v2_body(model: Model) -> Schema:
    body = _json(_v2_request(model), example=_v2_example(model))
    body["content"][OCTETS] = {"schema": _OCTET_STRING}
    body["description"] = (
        f"JSON, or as many bytes of it as {_BINARY_HEADER} says and then the sections of those inputs that have "
        "parameters.binary_data_size instead of data."
    )
    return body


def _v2_answers(model: Model) -> Schema:
    answers = _json(_v2_response(model))
    answers["content"][OCTETS] = {"schema": _OCTET_STRING}
    answers["headers"] = {_BINARY_HEADER: {"schema": {"type": "integer"}, "description": "Where sections follow."}}
    return answers


def _v2_request(model: Model) -> Schema:
    inputs = [_tensor(spec, _asked_shape(spec), _flat_or_nested(spec)) for spec in model.inputs.values()]
    wanted = _object(name={"enum": list(model.outputs)})
    wanted["properties"]["parameters"] = {
        "type": ["object", "null"],
        "properties": {"binary_data": {"type": ["boolean", "null"]}, "classification": {"const": 0}},
    }
    asked = _object(inputs=_some(inputs, len(inputs)))
    asked["properties"] |= {
        "id": {"type": ["string", "null"]},
        "outputs": {"type": ["array", "null"], "items": wanted, "uniqueItems": True},
        "parameters": {
            "type": ["object", "null"],
            "properties": {
                "binary_data_output": {"type": "boolean"},
                "timeout": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": MAX_TIMEOUT_US,
                    "description": "microseconds; 0: as long as it takes",
                },
            },
        },
    }
    return asked


def _v2_response(model: Model) -> Schema:
    outputs = [
        _tensor(spec, _answered_shape(spec), {"type": "array", "items": _nullable(_element(spec))}, sections=True)
        for spec in model.outputs.values()
    ]
    found = _object(model_name={"const": model.name}, model_version={"type": "string"}, outputs=_some(outputs))
    found["properties"]["id"] = {"type": "string"}
    return found


def _asked_shape(spec: TensorSpec) -> Schema:
    extents = [{"const": extent} if extent >= 0 else {"type": "integer", "minimum": 0} for extent in spec.shape]
    shape: Schema = {"type": "array", "minItems": len(extents), "maxItems": len(extents)}
    return {**shape, "prefixItems": extents} if extents else shape


def _answered_shape(spec: TensorSpec) -> Schema:
    """Not as exact as it could be: what an answer has is a promise, and tools trip over prefixItems in it."""
    if -1 not in spec.shape:
        return {"const": list(spec.shape)}
    rank = len(spec.shape)
    told = f"{list(spec.shape)}; -1 is any extent"
    integers = {"type": "integer", "minimum": 0}
    return {"type": "array", "minItems": rank, "maxItems": rank, "items": integers, "description": told}


def _v2_example(model: Model) -> Schema | None:
    """A request of zeros, where that is short."""
    inputs = []
    for spec in model.inputs.values():
        zeros = _zeros(spec)
        if zeros is None:
            return None
        shape = [1 if extent < 0 else extent for extent in spec.shape]
        inputs.append({"name": spec.name, "shape": shape, "datatype": spec.datatype.name, "data": zeros})
    return {"inputs": inputs}


def _zeros(spec: TensorSpec) -> list[Any] | None:
    count = math.prod(1 if extent < 0 else extent for extent in spec.shape)
    return [spec.datatype.element()] * count if count <= _SHORT else None


def _tensor(spec: TensorSpec, shape: Schema, data: Schema, *, sections: bool = False) -> Schema:
    """``sections``: there may be a binary section in the place of data."""
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", *([] if sections else ["data"])],
        "properties": {
            "name": {"const": spec.name},
            "shape": shape,
            "datatype": {"const": spec.datatype.name},
            "data": data,
            "parameters": {"type": ["object", "null"]},
        },
    }


def _flat_or_nested(spec: TensorSpec) -> Schema:
    element = _element(spec)
    flat: Schema = {"type": "array", "items": element}
    if len(spec.shape) == 1:
        return flat
    return {"anyOf": [flat, _nested(spec.shape, element)]}


# --- V1


def _v1_request(model: Model) -> Schema:
    specs = list(model.inputs.values())
    rows = [_object(**{spec.name: _nested(spec.shape[1:], _element(spec)) for spec in specs})]
    columns = [_object(**{spec.name: _nested(spec.shape, _element(spec)) for spec in specs})]
    if len(specs) == 1:
        rows.append(_nested(specs[0].shape[1:], _element(specs[0])))
        columns.append(_nested(specs[0].shape, _element(specs[0])))
    instances: Schema = {"type": "array", "anyOf": [_list_of(specs, row) for row in rows]}
    return {
        "oneOf": [
            {**_object(instances=instances), "not": {"required": ["inputs"]}},
            {**_object(inputs={"anyOf": columns}), "not": {"required": ["instances"]}},
        ]
    }


def _list_of(specs: Sequence[TensorSpec], row: Schema) -> Schema:
    count = {spec.shape[0] for spec in specs if spec.shape[:1] not in ((), (-1,))}
    found: Schema = {"type": "array", "items": {**row, "additionalProperties": False} if "required" in row else row}
    return found if not count else {**found, "minItems": min(count), "maxItems": max(count)}


def _v1_response(model: Model) -> Schema:
    specs = list(model.outputs.values())
    elements = [_nullable(_element(spec)) for spec in specs]
    if len(specs) == 1:
        return {"anyOf": [_object(predictions={"type": "array"}), _object(outputs={})]}
    rows = _object(
        **{spec.name: _nested(spec.shape[1:], element) for spec, element in zip(specs, elements, strict=True)}
    )
    columns = _object(
        **{spec.name: _nested(spec.shape, element) for spec, element in zip(specs, elements, strict=True)}
    )
    return {"anyOf": [_object(predictions={"type": "array", "items": rows}), _object(outputs=columns)]}


def _nested(shape: Sequence[int], element: Schema) -> Schema:
    found = element
    for extent in reversed(shape):
        found = {"type": "array", "items": found}
        if extent >= 0:
            found |= {"minItems": extent, "maxItems": extent}
    return found


# --- the pieces


def _element(spec: TensorSpec) -> Schema:
    dtype = spec.datatype.dtype
    match dtype.kind:
        case "b":
            return {"type": "boolean"}
        case "O":
            return {"type": "string"}
        case "f":
            if dtype.itemsize == 8:
                return {"type": "number"}
            # From half a step beyond the largest number on, numbers round to infinity.
            info = np.finfo(dtype)
            limit = 2.0**info.maxexp - 2.0 ** (info.maxexp - info.nmant - 2)
            return {"type": "number", "exclusiveMinimum": -limit, "exclusiveMaximum": limit}
    bounds = np.iinfo(dtype)
    return {"type": "integer", "minimum": bounds.min, "maximum": bounds.max}


def _nullable(element: Schema) -> Schema:
    """NaN and the infinities are null in an answer."""
    return {"type": [element["type"], "null"]} if element["type"] == "number" else element


def _some(items: list[Schema], count: int | None = None) -> Schema:
    found: Schema = {"type": "array", "items": {"oneOf": items} if len(items) > 1 else items[0] if items else {}}
    return found if count is None else {**found, "minItems": count, "maxItems": count}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": dict(properties)}


def _json(schema: Schema, *, required: bool | None = None, example: Schema | None = None) -> Schema:
    media: Schema = {"schema": schema}
    if example is not None:
        media["example"] = example
    found: Schema = {"content": {JSON: media}}
    return found if required is None else {**found, "required": required}


def _plain() -> Schema:
    return {"content": {"text/plain": {"schema": {"type": "string"}}}}


def _error(key: str) -> Schema:
    return _object(**{key: {"type": "string"}})


def _operation(
    summary: str,
    answers: Mapping[int, Schema],
    refusals: Sequence[int] = (),
    body: Schema | None = None,
    error: str = "Error",
) -> Schema:
    refused = {
        str(status): {"description": _WHY[status], **_json({"$ref": _PREFIX + error})}
        for status in sorted({*_ALWAYS, *refusals})
    }
    refused["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    found: Schema = {
        "summary": summary,
        "responses": {
            **{
                str(status): {"description": _WHY.get(status, summary + "."), **answer}
                for status, answer in answers.items()
            },
            **refused,
        },
    }
    if body is not None:
        found["requestBody"] = {"required": True, **body}
    return found


_OCTET_STRING: Schema = {"type": "string", "format": "binary"}
_HEADER_PARAMETER: Schema = {
    "name": _BINARY_HEADER,
    "in": "header",
    "required": False,
    "description": "How many bytes of the body are JSON, where sections follow.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
}
