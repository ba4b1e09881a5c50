"""Bringing a model in: whatever ONNX file it was, from here on it is one canonical file and its signature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto

from workbench.model.canonical import canonicalise, serialise
from workbench.model.check import check_loads, check_operators, check_standard, check_weights
from workbench.model.inspect import infer_shapes, summarise
from workbench.model.preprocess import fold
from workbench.model.read import read_model, text_only
from workbench.model.signature import name_axes, signature_of, write_signature
from workbench.steps import Emit, Outputs


def bring(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Step ``model``: ``source`` -> ``model`` (canonical ONNX, weights inside) and ``signature`` (JSON).

    ``params``: ``location`` (the source as the user knows it, relative to the project root; external data is looked up
    beside it) and ``preprocess`` (see :mod:`workbench.model.preprocess`) or None. Values: the summary of
    :func:`workbench.model.inspect.summarise`, ``size`` in bytes, and ``also_read``: digests of external data files.

    Raises :class:`UsageError` for a file that is damaged, hostile or not supported, naming it and the cure.
    """
    location = str(params["location"])
    with text_only(location):
        model, also_read = read_model(inputs["source"], location)
        emit.progress(1, 4, "read")
        _make_canonical(model, params.get("preprocess"), location)
    emit.progress(2, 4, "canonical")
    data = serialise(model, location)
    check_standard(data, location)
    path = emit.scratch / "model.onnx"
    path.write_bytes(data)
    size = len(data)
    del data  # up to 2 GiB, and opening the session needs its own copy
    check_loads(path, location)
    emit.progress(3, 4, "checked")
    signature = signature_of(model, location)
    write_signature(signature, emit.scratch / "signature.json")
    values = {**summarise(model, signature), "size": size, "also_read": also_read}
    return Outputs({"model": path, "signature": emit.scratch / "signature.json"}, values)


def _make_canonical(model: ModelProto, preprocess: Mapping[str, Any] | None, location: str) -> None:
    check_operators(model, location)
    check_weights(model, location)
    canonicalise(model)
    name_axes(model)
    infer_shapes(model)
    name_axes(model)
    signature_of(model, location)  # refuses what has no shape before anything is folded in front of it
    if preprocess:
        fold(model, preprocess, location)
        infer_shapes(model)
