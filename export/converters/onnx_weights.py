"""ONNX files of others' converters with their weights in float16 or int8 at rest; who loads a file decodes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..products import LEAST_WEIGHTS
from ..to_onnx.writer import quantize

_FLOAT = 1  # Of `onnx.TensorProto.DataType`.
# Constants of fewer numbers stay in float32: the nodes that decode them would outweigh what they save.
_LEAST_FLOAT16 = 128
# Which axis of a weight an operator sums over; every other index has a scale of its own in int8. Of a table that rows
# are taken from, each row.
_SUMMED = {"LSTM": -1, "GRU": -1, "RNN": -1, "MatMul": -2, "Gather": -1}


def with_small_weights(content: bytes, precision: str) -> bytes:
    """The same graph with its large constants in another form.

    Args:
        content: the file.
        precision: `float16`; or `dynamic`: matrices of recurrent layers and products, and tables, in int8, with a scale
            for each output, and other constants in float16.
    """
    import onnx

    model: Any = onnx.load_from_string(content)
    readers: dict[str, set[str]] = {}
    for node in _nodes(model.graph):
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    _encode(model.graph, readers if precision == "dynamic" else {})
    return model.SerializeToString(deterministic=True)


def _encode(graph: Any, readers: dict[str, set[str]]) -> None:
    from onnx import helper, numpy_helper

    kept: list[Any] = []
    decoding: list[Any] = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == _FLOAT else None
        axis = _axis(values, readers.get(tensor.name, set()))
        if values is not None and axis is not None:
            name = tensor.name
            quantized, scale = quantize(values, axis)
            kept += [
                numpy_helper.from_array(quantized, f"{name}_int8"),
                numpy_helper.from_array(scale, f"{name}_scale"),
            ]
            decoding += [
                helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], name=f"{name}_float", to=_FLOAT),
                helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name], name=name),
            ]
        elif values is not None and (half := _half(values)) is not None:
            kept.append(numpy_helper.from_array(half, f"{tensor.name}_float16"))
            decoding.append(
                helper.make_node("Cast", [f"{tensor.name}_float16"], [tensor.name], name=tensor.name, to=_FLOAT)
            )
        else:
            kept.append(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _encode(attribute.g, readers)
    nodes = [*decoding, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _axis(values: npt.NDArray[Any] | None, read_by: set[str]) -> int | None:
    """The axis that is summed over, of a weight that becomes int8."""
    axes = {_SUMMED.get(kind) for kind in read_by}
    if values is None or values.ndim < 2 or values.size < LEAST_WEIGHTS or len(axes) != 1:
        return None
    (axis,) = axes
    return axis


def _half(values: npt.NDArray[Any]) -> npt.NDArray[np.float16] | None:
    if values.size < _LEAST_FLOAT16:
        return None
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.isfinite(half).all() else None


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
