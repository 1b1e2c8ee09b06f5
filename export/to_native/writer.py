"""Writes `.elm` files. `runtime/engine/FORMAT.md` describes them, `runtime/elm.py` reads them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime import elm
from ...runtime.activations import LINEAR, Function
from ...runtime.elm import Floats, Shape
from ...runtime.network import (
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
from ..calibration import Calibration
from ..products import is_large, products
from ..rounding import round_network

ALIGNMENT = 64


def native_step_file(
    network: Network,
    precision: str,
    description: Mapping[str, Any] | None,
    calibration: Calibration | None = None,
) -> bytes:
    """An `.elm` file; the same arguments give the same bytes.

    Args:
        network: what to write.
        precision: `float32`, `float16` or `int8`. Biases and everything that is no matrix stay float32, and layers of
            fewer than 1,024 weights do not go below float16.
        description: kept in the file for whoever reads it; the engine does not. None leaves it out, and with it
            what `read_elm` needs.
        calibration: what `record` found of the network, with which the weights of `int8` are rounded better.
    """
    if precision == "int8" and calibration is not None:
        large = [product for layer in network.layers if is_large(layer) for product in products(layer)]
        network = round_network(network, large, True, calibration)
    layers = [layer for layer in network.layers if not isinstance(layer, Masking)]
    names = [layer.name for layer in network.layers]
    text = b""
    if description is not None:
        described = {**description, "layer_names": names, "return_sequences": network.return_sequences}
        text = json.dumps(described).encode()
    stored = [_stored(layer, precision) for layer in layers]
    sections = [_padded(_section(layer, how)) for layer, how in zip(layers, stored, strict=True)]
    at = _aligned(elm.HEADER.size + elm.RECORD.size * len(layers))
    records, width = b"", network.features
    for layer, section, how in zip(layers, sections, stored, strict=True):
        units = layer.width(width)
        functions = (*_packed_function(layer, "activation"), *_packed_function(layer, "recurrent_activation"))
        epsilon = getattr(layer, "epsilon", 0.0)
        records += elm.RECORD.pack(
            _kind(layer), width, units, elm.PRECISIONS.index(how), *functions, epsilon, at, len(section)
        )
        at, width = at + len(section), units
    mask = network.mask_value
    body = _padded(b"\0" * elm.HEADER.size + records)[elm.HEADER.size :] + b"".join(sections)
    size = at + len(_padded(text))
    numbers = (size, len(layers), network.features, width, at, len(text), mask is not None, mask or 0.0)
    content = elm.HEADER.pack(elm.MAGIC, elm.VERSION, 0, *numbers) + body + _padded(text)
    checksum = zlib.crc32(content[elm.CHECKED_FROM :])
    return elm.HEADER.pack(elm.MAGIC, elm.VERSION, checksum, *numbers) + content[elm.HEADER.size :]


def pack(shape: Shape, a: Floats, b: Floats, bias: Floats) -> bytes:
    """A matrix in blocks of units: of each its biases, its scales in int8, its weights for the state and the input.

    Args:
        shape: of the matrix.
        a: (shape.a, gates · units).
        b: (shape.b, gates · units).
        bias: (gates · units,).
    """
    gates, units = shape.gates, shape.units
    blocks: list[bytes] = []
    unit = 0
    for lanes in shape.lanes:
        here = slice(unit, min(unit + lanes, units))

        def block(values: Floats, here: slice = here, lanes: int = lanes) -> Floats:
            made = np.zeros((len(values), gates, lanes), np.float32)
            made[:, :, : here.stop - here.start] = values.reshape(len(values), gates, units)[:, :, here]
            return made

        parts = [block(a), block(b)]
        blocks.append(block(bias[None]).tobytes())
        if shape.precision == "int8":
            scales = [np.abs(part).max(0, initial=0) / np.float32(127) for part in parts]
            blocks.extend(scale.astype(np.float32).tobytes() for scale in scales)
            blocks.extend(_fours(part, scale) for part, scale in zip(parts, scales, strict=True))
        else:
            dtype = np.float16 if shape.precision == "float16" else np.float32
            with np.errstate(over="ignore"):  # What float16 cannot hold becomes infinite, and parity tells.
                blocks.extend(part.astype(dtype).tobytes() for part in parts)
        unit += lanes
    return b"".join(blocks)


def _fours(weights: Floats, scale: npt.NDArray[np.float32]) -> bytes:
    """int8 weights, those of four inputs beside each other for every output."""
    whole = np.where(scale == 0, np.float32(1), scale)
    padded = np.zeros((-(-len(weights) // 4) * 4, *weights.shape[1:]), np.int8)
    padded[: len(weights)] = np.clip(np.rint(weights / whole), -127, 127)
    return np.ascontiguousarray(padded.reshape(-1, 4, *weights.shape[1:]).transpose(0, 2, 3, 1)).tobytes()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (_aligned(len(content)) - len(content))


def _stored(layer: Any, precision: str) -> str:
    if not products(layer):
        return "float32"
    # There the scales and the quantising of inputs would eat up what smaller weights save, in bytes and in time.
    return "float16" if precision == "int8" and not is_large(layer) else precision


def _packed_function(layer: Any, field: str) -> tuple[Any, ...]:
    function: Function = getattr(layer, "function" if field == "activation" else field, None) or getattr(
        layer, field, LINEAR
    )
    return elm.FUNCTIONS.index(function.name), *function.parameters, *[0.0] * (3 - len(function.parameters))


def _vectors(*vectors: Floats) -> bytes:
    row = -(-len(vectors[0]) // 16) * 16
    return b"".join(np.pad(vector, (0, row - len(vector))).astype(np.float32).tobytes() for vector in vectors)


@singledispatch
def _kind(layer: Any) -> int:
    raise NotImplementedError(type(layer).__name__)


_kind.register(LSTM, lambda layer: elm.LSTM_KIND)
_kind.register(GRU, lambda layer: elm.GRU_KIND if layer.reset_after else elm.GRU_RESET_BEFORE)
_kind.register(SimpleRNN, lambda layer: elm.SIMPLE_RNN)
_kind.register(Dense, lambda layer: elm.DENSE)
_kind.register(Affine, lambda layer: elm.AFFINE)
_kind.register(LayerNormalization, lambda layer: elm.LAYER_NORMALIZATION)
_kind.register(Activation, lambda layer: elm.ACTIVATION)
_kind.register(PReLU, lambda layer: elm.PRELU)


@singledispatch
def _section(layer: Any, precision: str) -> bytes:
    raise NotImplementedError(type(layer).__name__)


@_section.register(LSTM)
@_section.register(SimpleRNN)
def _(layer: LSTM | SimpleRNN, precision: str) -> bytes:
    (shape,) = elm.shapes_of(_kind(layer), layer.kernel.shape[0], layer.units, precision)
    return pack(shape, layer.recurrent_kernel, layer.kernel, layer.bias)


@_section.register
def _(layer: GRU, precision: str) -> bytes:
    first, second = elm.shapes_of(_kind(layer), layer.kernel.shape[0], layer.units, precision)
    split = 2 * layer.units
    nothing = np.zeros((0, layer.kernel.shape[1]), np.float32)
    if layer.reset_after:
        return pack(first, layer.recurrent_kernel, nothing, layer.recurrent_bias) + pack(
            second, nothing, layer.kernel, layer.bias
        )
    bias = layer.bias + layer.recurrent_bias
    gates = pack(first, layer.recurrent_kernel[:, :split], layer.kernel[:, :split], bias[:split])
    return gates + pack(second, layer.recurrent_kernel[:, split:], layer.kernel[:, split:], bias[split:])


@_section.register
def _(layer: Dense, precision: str) -> bytes:
    inputs, units = layer.kernel.shape
    (shape,) = elm.shapes_of(elm.DENSE, inputs, units, precision)
    return pack(shape, np.zeros((0, layer.kernel.shape[1]), np.float32), layer.kernel, layer.bias)


@_section.register
def _(layer: Affine, precision: str) -> bytes:
    return _vectors(layer.center, layer.scale, layer.offset)


@_section.register
def _(layer: LayerNormalization, precision: str) -> bytes:
    return _vectors(layer.gamma, layer.beta)


@_section.register
def _(layer: PReLU, precision: str) -> bytes:
    return _vectors(layer.slope)


@_section.register
def _(layer: Activation, precision: str) -> bytes:
    return b"\0" * ALIGNMENT
