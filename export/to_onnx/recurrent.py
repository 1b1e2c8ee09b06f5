"""Recurrent layers as ONNX's own operators.

Everywhere here a sequence has shape (time, batch, width) and a state (1, batch, units).

The operators' formulas: https://onnx.ai/onnx/operators/onnx__LSTM.html, …GRU.html, …RNN.html. Their gates come in
another order than Keras's, and their weights are transposed, with a leading axis for the direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from ...runtime.activations import UNLIMITED, Function
from ...runtime.network import GRU, LSTM, Layer, Recurrent, SimpleRNN
from .writer import MICROSOFT, OnnxWriter, quantize

# Gates of ONNX (LSTM i o f c, GRU z r h) as positions among Keras's (i f c o, z r h).
_LSTM_GATES, _GRU_GATES = (0, 3, 1, 2), (0, 1, 2)

# From this width on, int8 arithmetic repays the quantising of its inputs at every timestep. One step on an x86-64
# with VNNI, float against DynamicQuantizeLSTM: 64 units 7.0 and 7.7 µs, 128: 12 and 10, 256: 34 and 20, 512: 109
# and 54. Narrower layers are better off in float: their SNR against Keras is 2 to 30 dB higher.
_LEAST_UNITS_INT8 = 128


def quantizes_activations(precision: str, layer: Layer, raw: bool) -> bool:
    """Whether a layer computes in int8, with activations quantised as they come, rather than in float.

    It does in `dynamic` where that is faster; elsewhere `dynamic` weights are int8 in the file and float at work.
    Not on the model's own inputs: all of a timestep's values share one scale, so a pressure in pascal would round
    a temperature beside it to nothing. Nor outside of LSTM: onnxruntime has no such GRU or RNN, and a `Scan` of
    integer products pays only where a layer is very wide (GRU, one step against the float operator: 128 units 12
    and 8 µs, 256: 16 and 22 to 35).
    """
    wide = isinstance(layer, LSTM) and layer.units >= _LEAST_UNITS_INT8
    return precision == "dynamic" and wide and not raw and expressible(layer)


def expressible(layer: Layer) -> TypeGuard[Recurrent]:
    """Whether there is an operator for the layer, and it can compute the layer's activation functions."""
    return isinstance(layer, Recurrent) and all(recurrent_activation(f) is not None for f in _functions(layer))


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
        (time, 1, batch, units): the 1 is an axis for the direction.
    """
    kind, kernel, recurrent_kernel, bias, attributes = _operator(layer)
    attributes |= {"hidden_size": layer.units, **_activations(_functions(layer))}
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
    return directed


def _unsigned(graph: OnnxWriter, array: npt.NDArray[np.float32], what: str) -> tuple[str, str, str]:
    """(inputs, outputs) as 8-bit weights, their scales and zero points, as DynamicQuantizeLSTM takes them.

    Unsigned around 128, because the product of unsigned activations with signed weights saturates in the fastest
    kernels of processors without VNNI (AVX2): silently wrong sums. Unsigned with unsigned is exact everywhere.
    """
    signed, scale = quantize(array, 0)
    values = graph.tensor(f"{what}_uint8", (signed.astype(np.int16) + 128).astype(np.uint8)[None])
    zero_point = graph.tensor(f"{what}_zero_point", np.full(scale.shape, 128, np.uint8))
    return values, graph.constant(f"{what}_scale", scale), zero_point


@dataclass(frozen=True)
class RecurrentActivation:
    """How the LSTM, GRU and RNN operators call a function."""

    name: str
    alpha: float | None = None
    beta: float | None = None


def recurrent_activation(function: Function) -> RecurrentActivation | None:
    """The function as an activation of a recurrent operator, or None where there is no such.

    Left out though ONNX lists it: Softplus, which inside onnxruntime's recurrent operators overflows above 88.
    """
    if function.name in _RECURRENT:
        return _RECURRENT[function.name]
    if function.name == "elu":
        return RecurrentActivation("Elu", function.parameters[0])
    if function.name == "relu":
        slope, maximum, threshold = function.parameters
        if threshold == 0 and maximum >= UNLIMITED:
            return RecurrentActivation("LeakyRelu", slope) if slope else RecurrentActivation("Relu")
    return None


_RECURRENT = {
    "linear": RecurrentActivation("Affine", 1.0, 0.0),
    "sigmoid": RecurrentActivation("Sigmoid"),
    "tanh": RecurrentActivation("Tanh"),
    "softsign": RecurrentActivation("Softsign"),
    "hard_sigmoid": RecurrentActivation("HardSigmoid", 1 / 6, 0.5),
    "hard_sigmoid_keras2": RecurrentActivation("HardSigmoid", 0.2, 0.5),
    "sparse_sigmoid": RecurrentActivation("HardSigmoid", 0.5, 0.5),
}


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
