"""Builds an ONNX graph: names its values after the layers, and stores weights in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ..products import LEAST_WEIGHTS

# onnxruntime 1.18 reads these; onnx writes newer ones by default, which deployed runtimes refuse.
OPSET, IR_VERSION, MICROSOFT_OPSET = 17, 8, 1
MICROSOFT = "com.microsoft"
_FLOAT = 1  # Of `onnx.TensorProto.DataType`.

# Below this size (and that of int8) the nodes that decode a packed tensor outweigh what packing it saves.
_LEAST_FLOAT16 = 128


class OnnxWriter:
    """The nodes and constants of one file.

    Attributes:
        precision: `float32`, `float16` or `dynamic`: how `weight` stores.
        layer: name of the layer being written; what is added next is named after it.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.layer = ""
        self._decoding: list[Any] = []
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._names: set[str] = set()

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output; "" stands for an optional input left out. Returns the output's name."""
        return self.ops(kind, inputs, [self.name(kind)], domain, **attributes)[0]

    def ops(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Append a node with the outputs named; returns these names."""
        self._nodes.append(_node(kind, inputs, outputs, domain, **attributes))
        return list(outputs)

    def name(self, what: str) -> str:
        """A value name that is not taken yet: `lstm/Squeeze`, then `lstm/Squeeze_2`."""
        stem = f"{self.layer}/{what}"
        name, number = stem, 1
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def number(self, value: float) -> str:
        """A scalar float32 constant."""
        return self._initializer(f"number/{value!r}", np.array(value, np.float32))

    def axis(self, value: int) -> str:
        """A list of one axis, as `Squeeze` and `Unsqueeze` take it."""
        return self._initializer(f"axis/{value}", np.array([value], np.int64))

    def constant(self, what: str, array: npt.ArrayLike) -> str:
        """A float32 constant of the layer, in full precision whatever the file's."""
        return self._initializer(self.name(what), np.asarray(array, np.float32))

    def weight(self, what: str, array: npt.NDArray[np.float32], inputs_axis: int, raw: bool = False) -> str:
        """A matrix of the layer, as float32 to the graph and in the file's precision at rest.

        onnxruntime decodes it once, when it loads the file: the nodes that do so depend on constants alone.

        Args:
            what: its name in the layer.
            array: the matrix, with any leading axes of one.
            inputs_axis: the axis that a product sums over; the other one has a scale for each index in int8.
            raw: whether the matrix multiplies the model's own inputs. These may have any scales, so that small
                weights for large inputs matter as much as large ones and must not be rounded to a common grid.
        """
        if self.precision == "dynamic" and not raw and array.size >= LEAST_WEIGHTS:
            quantized, scale = quantize(array, inputs_axis)
            values = self._initializer(self.name(f"{what}_int8"), quantized)
            scales = self.constant(f"{what}_scale", scale)
            return self._decode("Mul", self._decode("Cast", values, what, to=_FLOAT), what, scales)
        if self.precision != "float32" and array.size >= _LEAST_FLOAT16 and _fits_float16(array, inputs_axis):
            values = self._initializer(self.name(f"{what}_float16"), array.astype(np.float16))
            return self._decode("Cast", values, what, to=_FLOAT)
        return self.constant(what, array)

    def tensor(self, what: str, array: npt.NDArray[Any]) -> str:
        """A constant of the layer with its own dtype."""
        return self._initializer(self.name(what), array)

    @contextmanager
    def body(self) -> Iterator[list[Any]]:
        """Nodes added inside go to the list it gives: the body of a `Scan`. Constants stay outside."""
        outside, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outside

    def to_bytes(
        self,
        name: str,
        inputs: Mapping[str, Sequence[str | int]],
        outputs: Mapping[str, Sequence[str | int]],
        last: str,
        metadata: Mapping[str, str],
    ) -> bytes:
        """The file.

        Args:
            name: what to call the graph.
            inputs: names and shapes of the float32 inputs.
            outputs: names and shapes of the float32 outputs; the first of them is the value `last`.
            last: the value that becomes the first output.
            metadata: pairs to store in the file.
        """
        from onnx import checker, helper

        self._call_output(last, next(iter(outputs)))
        nodes = self._decoding + self._nodes
        graph = helper.make_graph(
            nodes,
            name,
            [float_value(key, shape) for key, shape in inputs.items()],
            [float_value(key, shape) for key, shape in outputs.items()],
            list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if any(_uses_microsoft(node) for node in nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, MICROSOFT_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgelstm")
        for key in sorted(metadata):
            model.metadata_props.add(key=key, value=metadata[key])
        checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _call_output(self, value: str, name: str) -> None:
        """Give the last value its name as an output. Nothing else reads it: it is the last."""
        if self._nodes and list(self._nodes[-1].output) == [value]:
            self._nodes[-1].output[0] = name
        else:
            self.ops("Identity", [value], [name])

    def _decode(self, kind: str, value: str, what: str, *others: str, **attributes: Any) -> str:
        output = self.name(what)
        self._decoding.append(_node(kind, [value, *others], [output], "", **attributes))
        return output

    def _initializer(self, name: str, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name


def float_value(name: str, shape: Sequence[str | int] | None) -> Any:
    """The declaration of a float32 input or output."""
    from onnx import helper

    return helper.make_tensor_value_info(name, _FLOAT, shape)


def quantize(array: npt.NDArray[np.float32], inputs_axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 weights, and a scale for each output: `array` ≈ int8 · scale, which broadcasts."""
    scale = np.abs(array).max(inputs_axis, keepdims=True).astype(np.float32) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale)
    return np.clip(np.rint(array / scale), -127, 127).astype(np.int8), scale


def _fits_float16(array: npt.NDArray[np.float32], inputs_axis: int) -> bool:
    """Whether rounding to float16 costs each input no more than rounding: none overflows or fades away."""
    with np.errstate(over="ignore"):
        error = np.abs(array.astype(np.float16).astype(np.float32) - array)
    others = tuple(axis for axis in range(array.ndim) if axis != inputs_axis % array.ndim)
    return bool((error.max(others) <= np.abs(array).max(others) * 2.0**-11).all())


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes)


def _uses_microsoft(node: Any) -> bool:
    return node.domain == MICROSOFT or any(_uses_microsoft(inner) for a in node.attribute for inner in a.g.node)
