"""The V1 protocol: ``instances`` to ``predictions``.

Addresses and probes are KServe's
(https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol), the forms of data those of
TensorFlow Serving, which it took over (https://www.tensorflow.org/tfx/serving/api_rest, "Predict API"):

- ``{"instances": [...]}``, rows: each instance is what the model's one input takes without its first axis, or an
  object of such by input name. The answer is ``{"predictions": [...]}``: for each instance the model's one output, or
  an object of them by name.
- ``{"inputs": ...}``, columns: the whole tensor of the one input, or an object of tensors by name. The answer is
  ``{"outputs": ...}``, in the same manner.

Shapes are those that the lists have. Numbers are read and written as in V2 (workbench.server.protocol).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from workbench.server import nested
from workbench.server.app import Body, Response, Scope, allow
from workbench.server.errors import RequestError
from workbench.server.protocol import Asked, converted, encode
from workbench.server.tensors import Array, TensorSpec, named, spec_of

if TYPE_CHECKING:
    from workbench.server.app import App
    from workbench.server.model import Model

_OBJECTS = re.compile(rb"\s*\[\s*\{")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class PredictRequest(msgspec.Struct):
    """A request's body. ``signature_name`` and ``parameters`` are accepted and not used."""

    instances: msgspec.Raw = msgspec.Raw(b"")
    inputs: msgspec.Raw = msgspec.Raw(b"")


class AskedV1(Asked, frozen=True):
    """A V1 request, understood. ``rows``: it has instances, and gets predictions."""

    rows: bool = True


Understood = TypeVar("Understood", bound=Asked)

_request = msgspec.json.Decoder(PredictRequest)
_instances = msgspec.json.Decoder(list[msgspec.Raw])
_columns = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def answer(app: App, words: Sequence[str], scope: Scope, body: Body) -> Response:
    """Answers a request to ``/v1/models/<words>``."""
    last, colon, verb = words[-1].partition(":") if words else ("", "", "")
    match [*words[:-1], last]:
        case [_] if not words:
            allow(scope, "GET")
            found = Response(encode({"models": app.repository.names()}))
            await body.read()
            return found
        case [name] | [name, "versions", _] if not colon:
            allow(scope, "GET")
            app.repository.look_up(name, *words[2:])
            await body.read()
            return Response(encode({"name": name, "ready": app.ready}), 200 if app.ready else 503)
        case [name] | [name, "versions", _] if verb == "predict":
            allow(scope, "POST")
            version = last if len(words) > 1 else None
            return Response(await predict(app, name, version, await body.read()))
    raise RequestError(404, f"there is nothing at {scope['path']!r}")


async def predict(app: App, name: str, version: str | None, content: bytes) -> bytes:
    """The body that answers the request in ``content``; RequestError as for an inference by V2."""
    _, asked, results = await infer(app, name, version, lambda model: read(content, model))
    return encode(written(asked, results))


async def infer(
    app: App, name: str, version: str | None, understand: Callable[[Model], Understood]
) -> tuple[Model, Understood, list[Array]]:
    """The model that answers, what it made of the request (``understand``), and the results."""
    served = app.repository.served(name)
    batcher = app.repository.get(name, version)
    batcher.check_room()
    try:
        asked = understand(batcher.model)
    except RequestError:
        batcher.meter.fail("invalid")
        raise
    return batcher.model, asked, await app.run(batcher, asked, None if version else served)


def read(content: bytes, model: Model) -> AskedV1:
    """The request in ``content`` to ``model``; RequestError 400 where it is not one."""
    try:
        request = _request.decode(content)
    except _UNREADABLE as error:
        raise RequestError(400, f"the body is not a V1 request: {error}") from None
    if bool(request.instances) == bool(request.inputs):
        raise RequestError(400, "the body has to have either 'instances' (rows) or 'inputs' (columns)")
    rows = bool(request.instances)
    feed = _from_rows(request.instances, model.inputs) if rows else _from_columns(request.inputs, model.inputs)
    return AskedV1(feed, list(model.outputs), rows=rows)


def is_v2(content: bytes) -> bool:
    """Whether a body is a V2 request rather than a V1 one: its ``inputs`` are a list of objects, which no tensor is."""
    try:
        request = _request.decode(content)
    except _UNREADABLE:
        return False
    return not request.instances and _OBJECTS.match(request.inputs) is not None


def written(asked: AskedV1, results: Sequence[Array]) -> dict[str, Any]:
    """What answers ``asked``, as plain data. RequestError 400 where the outputs do not go by instances."""
    if not asked.rows:
        values = [array.tolist() for array in results]
        return {"outputs": values[0] if len(values) == 1 else dict(zip(asked.outputs, values, strict=True))}
    if len(results) == 1:
        [array] = results
        return {"predictions": array.tolist() if array.ndim else [array.item()]}
    count = len(next(iter(asked.feed.values()), ()))
    for name, array in zip(asked.outputs, results, strict=True):
        if not array.ndim or len(array) != count:
            raise RequestError(
                400,
                f"output {name!r} has shape {list(array.shape)}, not an element for each of {count} instances; "
                "ask by 'inputs' instead",
            )
    lists = [array.tolist() for array in results]
    return {"predictions": [dict(zip(asked.outputs, row, strict=True)) for row in zip(*lists, strict=True)]}


def tensor(raw: bytes, spec: TensorSpec) -> Array:
    """The array in nested lists of JSON; RequestError 400 where they are not what the model takes as ``spec``."""
    read = _from_lists if spec.datatype.element is str or nested.are_few(raw) else _from_brackets
    shape, elements = read(raw, spec)
    spec_of(spec.name, spec.datatype.name, shape, {spec.name: spec})
    return converted(elements, spec).reshape(shape)


def _from_brackets(raw: bytes, spec: TensorSpec) -> tuple[list[int], list[Any]]:
    shape = nested.shape_of(raw, spec.shape) if spec.shape else []
    if shape is None or not spec.shape and nested.depth(raw):
        raise _misfit(spec)
    try:
        return shape, spec.datatype.decode(msgspec.Raw(nested.flat(raw)))
    except _UNREADABLE as error:
        raise _misfit(spec, error) from None


def _from_lists(raw: bytes, spec: TensorSpec) -> tuple[list[int], list[Any]]:
    try:
        values: Any = _lists(spec.datatype.element, len(spec.shape)).decode(raw)
    except _UNREADABLE as error:
        raise _misfit(spec, error) from None
    elements = values if spec.shape else [values]
    shape = [len(values)] if spec.shape else []
    for extent in spec.shape[1:]:
        found = {len(inner) for inner in elements}
        if len(found) > 1:
            raise _misfit(spec)
        shape.append(found.pop() if found else max(extent, 0))
        elements = [element for inner in elements for element in inner]
    return shape, elements


def _misfit(spec: TensorSpec, error: Exception | None = None) -> RequestError:
    return RequestError(
        400,
        f"input {spec.name!r}: the data is not {spec.datatype.name} in lists nested {len(spec.shape)} deep and equally "
        f"long, as the model's shape {list(spec.shape)} asks (-1: any extent){'' if error is None else f': {error}'}",
    )


def _from_rows(raw: msgspec.Raw, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if _OBJECTS.match(raw) is None:
        spec = _only(specs, "each instance is an object of them by name")
        return {spec.name: tensor(bytes(raw), spec)}
    # One after the other: all at once, dictionaries would take forty times what the body does.
    columns = {name: bytearray() for name in specs}
    for number, each in enumerate(_instances.decode(raw)):
        try:
            instance = _columns.decode(each)
        except _UNREADABLE as error:
            raise RequestError(400, f"instance {number} is not an object, as the first one is: {error}") from None
        _check_names(instance, specs, f"instance {number}")
        for name, value in instance.items():
            columns[name] += value
            columns[name] += b","
    return {name: tensor(bytes(b"[" + values[:-1] + b"]"), specs[name]) for name, values in columns.items()}


def _from_columns(raw: msgspec.Raw, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    try:
        columns = _columns.decode(raw)
    except _UNREADABLE:
        spec = _only(specs, "'inputs' is an object of them by name")
        return {spec.name: tensor(bytes(raw), spec)}
    _check_names(columns, specs, "'inputs'")
    return {name: tensor(bytes(value), specs[name]) for name, value in columns.items()}


def _only(specs: Mapping[str, TensorSpec], otherwise: str) -> TensorSpec:
    if len(specs) != 1:
        raise RequestError(400, f"the model has the inputs {named(specs)}: {otherwise}")
    return next(iter(specs.values()))


def _check_names(given: Mapping[str, msgspec.Raw], specs: Mapping[str, TensorSpec], where: str) -> None:
    if given.keys() == specs.keys():
        return
    for name in given:
        if name not in specs:
            raise RequestError(400, f"{where}: the model has no input {name!r}; its inputs are {named(specs)}")
    raise RequestError(400, f"{where}: inputs are missing: {named(name for name in specs if name not in given)}")


@functools.cache
def _lists(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    kind: Any = element
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)
