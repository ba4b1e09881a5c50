"""One form for one model: nothing in the bytes that does not decide what the model computes."""

from __future__ import annotations

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from workbench.errors import UsageError
from workbench.model.read import MAX_BYTES, all_graphs, all_nodes, all_tensors

_IR_WITH_FREE_INITIALIZERS = 4


def canonicalise(model: ModelProto) -> None:
    """Strip the model in place of everything that names its maker or its past.

    Dropped: metadata properties, doc strings, producer, unknown fields. (torch writes source stack traces with paths
    into both of the first.) Initializers that double as graph inputs lose the input: they are weights, and
    onnxruntime folds and quantizes only weights that no caller can replace.
    """
    model.DiscardUnknownFields()
    model.producer_name = model.producer_version = model.doc_string = ""
    del model.metadata_props[:]
    model.graph.name = model.graph.name or "model"
    for graph in all_graphs(model):
        _strip_graph(graph)
    for node in all_nodes(model):
        _strip_node(node)
    for function in model.functions:
        _strip_function(function)
    for tensor in all_tensors(model):
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    if len(kept) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, _IR_WITH_FREE_INITIALIZERS)


def serialise(model: ModelProto, location: str) -> bytes:
    """The model's bytes, the same for the same model; :class:`UsageError` above 2 GiB."""
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf raises EncodeError or ValueError, by implementation
        raise UsageError(
            f"{location} cannot be written as one ONNX file: {error}.", "The limit of one file is 2 GiB."
        ) from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{location} is larger than 2 GiB.", "Export it in float16, or bring a smaller model.")
    return data


def _strip_graph(graph: GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]


def _strip_node(node: NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        attribute.doc_string = ""


def _strip_function(function: FunctionProto) -> None:
    function.doc_string = ""
    del function.metadata_props[:]
    for value in function.value_info:
        value.doc_string = ""
        del value.metadata_props[:]
