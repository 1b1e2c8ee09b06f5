"""Recurrent layers as ONNX's own operators, and, for what these cannot express, one timestep in plain operators.

Everywhere here a sequence has shape (time, batch, width) and a state (1, batch, units).

The operators' formulas: https://onnx.ai/onnx/operators/onnx__LSTM.html, …GRU.html, …RNN.html. Their gates come in
another order than Keras's, and their weights are transposed, with a leading axis for the direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.activations import Function
from ...runtime.network import GRU, LSTM, Recurrent, SimpleRNN
from .activations import activate, recurrent_activation
from .writer import MICROSOFT, OnnxWriter, quantize

# Gates of ONNX (LSTM i o f c, GRU z r h) as positions among Keras's (i f c o, z r h).
_LSTM_GATES, _GRU_GATES = (0, 3, 1, 2), (0, 1, 2)

# From this width on, int8 arithmetic repays the quantising of its inputs at every timestep. One step on an x86-64
# with VNNI, float against DynamicQuantizeLSTM: 64 units 7.0 and 7.7 µs, 128: 12 and 10, 256: 34 and 20, 512: 109
# and 54. Narrower layers are better off in float: their SNR against Keras is 2 to 30 dB higher.
_LEAST_UNITS_INT8 = 128


def quantizes_activations(precision: str, layer: Recurrent, raw: bool) -> bool:
    """Whether a layer computes in int8, with activations quantised as they come, rather than in float.

    It does in `dynamic` where that is faster; elsewhere `dynamic` weights are int8 in the file and float at work.
    Not on the model's own inputs: all of a timestep's values share one scale, so a pressure in pascal would round
    a temperature beside it to nothing. Nor outside of LSTM: onnxruntime has no such GRU or RNN, and a `Scan` of
    integer products pays only where a layer is very wide (GRU, one step against the float operator: 128 units 12
    and 8 µs, 256: 16 and 22 to 35).
    """
    wide = isinstance(layer, LSTM) and layer.units >= _LEAST_UNITS_INT8
    return precision == "dynamic" and wide and not raw and expressible(layer)


def expressible(layer: Recurrent) -> bool:
    """Whether ONNX's own operator can compute the layer's activation functions."""
    return all(recurrent_activation(function) is not None for function in _functions(layer))


def sequence(
    graph: OnnxWriter, layer: Recurrent, x: str, states: Sequence[str], following: Sequence[str], raw: bool
) -> str:
    """Append the layer as one operator over a whole sequence.

    Args:
        graph: where to.
        layer: a layer that is `expressible`.
        x: (time, batch, inputs).
        states: the layer's states, each (1, batch, units).
        following: names for the next states.
        raw: whether x has the scales of the model's own inputs.

    Returns:
        (time, batch, units).
    """
    kind, kernel, recurrent_kernel, bias, attributes = _operator(layer)
    attributes |= {"hidden_size": layer.units, **_activations(_functions(layer))}
    # With its axis for the direction, which `Squeeze` takes away again.
    directed = graph.name(f"{kind}_directed")
    outputs = [directed, *following]
    if quantizes_activations(graph.precision, layer, raw):
        kernel, recurrent_kernel = _unsigned(graph, kernel, "kernel"), _unsigned(graph, recurrent_kernel, "recurrent")
        inputs = [x, kernel[0], recurrent_kernel[0], graph.constant("bias", bias), "", *states, ""]
        inputs += [*kernel[1:], *recurrent_kernel[1:]]
        graph.ops("DynamicQuantizeLSTM", inputs, outputs, MICROSOFT, **attributes)
    else:
        weights = graph.weight("kernel", kernel.T[None], -1, raw)
        recurrent_weights = graph.weight("recurrent_kernel", recurrent_kernel.T[None], -1)
        inputs = [x, weights, recurrent_weights, graph.constant("bias", bias), "", *states]
        graph.ops(kind, inputs, outputs, **attributes)
    return graph.op("Squeeze", directed, graph.axis(1))


def _unsigned(graph: OnnxWriter, array: npt.NDArray[np.float32], what: str) -> tuple[str, str, str]:
    """(inputs, outputs) as 8-bit weights, their scales and zero points, as DynamicQuantizeLSTM takes them.

    Unsigned around 128, because the product of unsigned activations with signed weights saturates in the fastest
    kernels of processors without VNNI (AVX2): silently wrong sums. Unsigned with unsigned is exact everywhere.
    """
    signed, scale = quantize(array, 0)
    values = graph.tensor(f"{what}_uint8", (signed.astype(np.int16) + 128).astype(np.uint8)[None])
    zero_point = graph.tensor(f"{what}_zero_point", np.full(scale.shape, 128, np.uint8))
    return values, graph.constant(f"{what}_scale", scale), zero_point


def _functions(layer: Recurrent) -> tuple[Function, ...]:
    """The layer's functions in the order of the operator's `activations`."""
    if isinstance(layer, LSTM):
        return layer.recurrent_activation, layer.activation, layer.activation
    if isinstance(layer, GRU):
        return layer.recurrent_activation, layer.activation
    return (layer.activation,)


def _activations(functions: Sequence[Function]) -> dict[str, Any]:
    """The operator's attributes for its functions. The lists of alphas and betas skip functions without one."""
    found = [activation for f in functions if (activation := recurrent_activation(f)) is not None]
    attributes: dict[str, Any] = {"activations": [activation.name for activation in found]}
    if alphas := [a.alpha for a in found if a.alpha is not None]:
        attributes["activation_alpha"] = alphas
    if betas := [a.beta for a in found if a.beta is not None]:
        attributes["activation_beta"] = betas
    return attributes


Operator = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], dict[str, Any]]


@singledispatch
def _operator(layer: Any) -> Operator:
    """Operator, kernel and recurrent kernel (inputs, gates), both biases (1, 2 · gates), further attributes."""
    raise NotImplementedError(type(layer).__name__)


@_operator.register
def _(layer: LSTM) -> Operator:
    kernel, recurrent_kernel, bias = (
        _reordered(array, _LSTM_GATES) for array in (layer.kernel, layer.recurrent_kernel, layer.bias)
    )
    return "LSTM", kernel, recurrent_kernel, _biases(bias, np.zeros_like(bias)), {}


@_operator.register
def _(layer: GRU) -> Operator:
    bias = _biases(_reordered(layer.bias, _GRU_GATES), _reordered(layer.recurrent_bias, _GRU_GATES))
    attributes = {"linear_before_reset": int(layer.reset_after)}
    return "GRU", layer.kernel, layer.recurrent_kernel, bias, attributes


@_operator.register
def _(layer: SimpleRNN) -> Operator:
    return "RNN", layer.kernel, layer.recurrent_kernel, _biases(layer.bias, np.zeros_like(layer.bias)), {}


def _reordered(array: npt.NDArray[np.float32], gates: Sequence[int]) -> npt.NDArray[np.float32]:
    parts = np.split(array, len(gates), axis=-1)
    return np.concatenate([parts[gate] for gate in gates], axis=-1)


def _biases(bias: npt.NDArray[np.float32], recurrent: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([bias, recurrent])[None]


@singledispatch
def step(layer: Any, graph: OnnxWriter, x: str, states: Sequence[str], raw: bool) -> list[str]:
    """Append one timestep of a layer in plain operators: x (1, batch, inputs); gives the next states."""
    raise NotImplementedError(type(layer).__name__)


@step.register
def _(layer: LSTM, graph: OnnxWriter, x: str, states: Sequence[str], raw: bool) -> list[str]:
    h, c = states
    total = graph.op(
        "Add", product(graph, x, "kernel", layer.kernel, layer.bias, raw), _recurrent_product(graph, layer, h)
    )
    i, f, g, o = _split(graph, total, 4)
    i, f, o = (activate(graph, layer.recurrent_activation, gate) for gate in (i, f, o))
    candidate = activate(graph, layer.activation, g)
    c = graph.op("Add", graph.op("Mul", f, c), graph.op("Mul", i, candidate))
    return [graph.op("Mul", o, activate(graph, layer.activation, c)), c]


@step.register
def _(layer: GRU, graph: OnnxWriter, x: str, states: Sequence[str], raw: bool) -> list[str]:
    (h,) = states
    units = layer.units
    xz, xr, xh = _split(graph, product(graph, x, "kernel", layer.kernel, layer.bias, raw), 3)
    if layer.reset_after:
        hz, hr, hh = _split(
            graph, product(graph, h, "recurrent_kernel", layer.recurrent_kernel, layer.recurrent_bias), 3
        )
    else:
        gates, bias = layer.recurrent_kernel[:, : 2 * units], layer.recurrent_bias[: 2 * units]
        hz, hr = _split(graph, product(graph, h, "recurrent_kernel_gates", gates, bias), 2)
        hh = ""
    z = activate(graph, layer.recurrent_activation, graph.op("Add", xz, hz))
    r = activate(graph, layer.recurrent_activation, graph.op("Add", xr, hr))
    if layer.reset_after:
        candidate = graph.op("Mul", r, hh)
    else:
        matrix, bias = layer.recurrent_kernel[:, 2 * units :], layer.recurrent_bias[2 * units :]
        candidate = product(graph, graph.op("Mul", r, h), "recurrent_kernel_candidate", matrix, bias)
    candidate = activate(graph, layer.activation, graph.op("Add", xh, candidate))
    fresh = graph.op("Mul", graph.op("Sub", graph.number(1.0), z), candidate)
    return [graph.op("Add", graph.op("Mul", z, h), fresh)]


@step.register
def _(layer: SimpleRNN, graph: OnnxWriter, x: str, states: Sequence[str], raw: bool) -> list[str]:
    fresh = product(graph, x, "kernel", layer.kernel, layer.bias, raw)
    return [activate(graph, layer.activation, graph.op("Add", fresh, _recurrent_product(graph, layer, states[0])))]


def product(
    graph: OnnxWriter,
    x: str,
    what: str,
    matrix: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    raw: bool = False,
) -> str:
    """Append x · matrix + bias: (…, inputs) → (…, outputs)."""
    y = graph.op("MatMul", x, graph.weight(what, matrix, 0, raw))
    return graph.op("Add", y, graph.constant(f"{what}_bias", bias)) if bias.any() else y


def _recurrent_product(graph: OnnxWriter, layer: LSTM | SimpleRNN, h: str) -> str:
    return graph.op("MatMul", h, graph.weight("recurrent_kernel", layer.recurrent_kernel, 0))


def _split(graph: OnnxWriter, x: str, parts: int) -> list[str]:
    return graph.ops("Split", [x], [graph.name("Split") for _ in range(parts)], axis=-1)
