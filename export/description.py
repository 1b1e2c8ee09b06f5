"""One line per layer of a network, for people."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from ..runtime.network import (
    GRU,
    LSTM,
    Activation,
    Affine,
    Dense,
    LayerNormalization,
    Masking,
    Network,
    PReLU,
    SimpleRNN,
)


def describe(network: Network) -> tuple[str, ...]:
    """Lines such as `lstm: LSTM 8 → 32`."""
    return tuple(f"{layer.name}: {_line(layer)}" for layer in network.layers)


@singledispatch
def _line(layer: Any) -> str:
    raise NotImplementedError(type(layer).__name__)


@_line.register
def _(layer: LSTM) -> str:
    return f"LSTM {layer.kernel.shape[0]} → {layer.units}, {layer.activation}, {layer.recurrent_activation}"


@_line.register
def _(layer: GRU) -> str:
    reset = "reset after" if layer.reset_after else "reset before"
    widths = f"{layer.kernel.shape[0]} → {layer.units}"
    return f"GRU {widths}, {layer.activation}, {layer.recurrent_activation}, {reset}"


@_line.register
def _(layer: SimpleRNN) -> str:
    return f"SimpleRNN {layer.kernel.shape[0]} → {layer.units}, {layer.activation}"


@_line.register
def _(layer: Dense) -> str:
    return f"Dense {layer.kernel.shape[0]} → {layer.kernel.shape[1]}, {layer.activation}"


@_line.register
def _(layer: Affine) -> str:
    return f"Affine {layer.scale.shape[0]}"


@_line.register
def _(layer: LayerNormalization) -> str:
    return f"LayerNormalization {layer.gamma.shape[0]}"


@_line.register
def _(layer: Activation) -> str:
    return f"Activation {layer.function}"


@_line.register
def _(layer: PReLU) -> str:
    return f"PReLU {layer.slope.shape[0]}"


@_line.register
def _(layer: Masking) -> str:
    return f"Masking {layer.mask_value:g}"
