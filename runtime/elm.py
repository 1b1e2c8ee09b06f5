"""Reads a network from an `.elm` file, the native format, with NumPy alone. `engine/FORMAT.md` describes the file."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .activations import LINEAR, Function
from .errors import BundleError
from .network import (
    GRU,
    LSTM,
    Activation,
    Affine,
    Dense,
    Layer,
    LayerNormalization,
    Masking,
    Network,
    PReLU,
    SimpleRNN,
)

METADATA_NAME = "edgelstm"
MAGIC, VERSION = b"EDGELSTM", 1
HEADER = struct.Struct("<8s9If16x")  # magic, version, checksum, size, layers, features, outputs, metadata, its size
# … and whether timesteps are masked, and by which value. A layer: kind, inputs, units, precision, two functions with
# three parameters each, epsilon, offset and size of its section.
RECORD = struct.Struct("<4II3fI3ff2I4x")
CHECKED_FROM = 16
LSTM_KIND, GRU_KIND, GRU_RESET_BEFORE, SIMPLE_RNN, DENSE, AFFINE, LAYER_NORMALIZATION, ACTIVATION, PRELU = range(1, 10)
PRECISIONS: tuple[str, ...] = ("float32", "float16", "int8")
FUNCTIONS: tuple[str, ...] = (
    "linear", "sigmoid", "tanh", "relu", "elu", "selu", "celu", "softplus", "softsign", "exponential", "silu", "mish",
    "gelu", "hard_sigmoid", "hard_sigmoid_keras2", "hard_silu", "hard_tanh", "tanh_shrink", "log_sigmoid",
    "sparse_plus", "sparse_sigmoid", "softmax", "log_softmax", "hard_shrink", "soft_shrink", "squareplus", "threshold",
)  # fmt: skip

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """How a matrix lies in its section: gates × units outputs from `a` values of a state and `b` of an input."""

    gates: int
    units: int
    a: int
    b: int
    precision: str

    @property
    def lanes(self) -> list[int]:
        """Widths of its blocks: 16, and the last 8 where that is enough."""
        return [16] * (self.units // 16) + ([] if self.units % 16 == 0 else [8 if self.units % 16 <= 8 else 16])

    def rows(self, inputs: int) -> int:
        """Rows of weights for so many inputs; int8 has fours."""
        return -(-inputs // 4) * 4 if self.precision == "int8" else inputs


def read_elm(content: bytes, source: str) -> tuple[Network, dict[str, Any]]:
    """A network and the description that came with it. int8 and float16 weights become the float32 they stand for.

    Raises:
        BundleError: the content is damaged, of a later version, or not an `.elm` file.
    """
    if content[:8] != MAGIC:
        raise BundleError(f"{source}: not an .elm file")
    try:
        return _read(content, source)
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise BundleError(f"{source}: damaged .elm file ({error}); copy or export it again") from error


def state_widths(content: bytes, source: str) -> tuple[dict[str, int], dict[str, str]]:
    """The states' names and widths in order, and the description as text, of an `.elm` file that was checked.

    Raises:
        BundleError: its description does not fit its layers.
    """
    try:
        header = HEADER.unpack_from(content)
        text = content[header[7] : header[7] + header[8]].decode()
        names: list[str] = json.loads(text)["layer_names"][1 if header[9] else 0 :]
        widths: dict[str, int] = {}
        for i in range(header[4]):
            kind, _, units = RECORD.unpack_from(content, HEADER.size + i * RECORD.size)[:3]
            if kind <= SIMPLE_RNN:
                widths |= {f"{names[i]}_{state}": units for state in ("hc" if kind == LSTM_KIND else "h")}
    except (struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise BundleError(f"{source}: damaged .elm file ({error}); copy or export it again") from error
    return widths, {METADATA_NAME: text}


def _read(content: bytes, source: str) -> tuple[Network, dict[str, Any]]:
    _, version, checksum, size, layers, features, outputs, at, length, masked, mask_value = HEADER.unpack_from(content)
    if version > VERSION:
        raise BundleError(f"{source}: .elm version {version} is newer than this EdgeLSTM reads ({VERSION})")
    if size != len(content) or checksum != zlib.crc32(content[CHECKED_FROM:]):
        raise ValueError("its size or checksum differs")
    description: dict[str, Any] = json.loads(content[at : at + length])
    names: list[str] = description["layer_names"]
    made: list[Layer] = []
    if masked:
        made.append(Masking(names[0], mask_value))
    width = features
    for i in range(layers):
        record = RECORD.unpack_from(content, HEADER.size + i * RECORD.size)
        if record[1] != width or record[3] >= len(PRECISIONS):
            raise ValueError(f"layer {i} does not fit the one before")
        width = record[2]
        made.append(_layer(names[len(made)], record, content[record[13] : record[13] + record[14]]))
    if width != outputs:
        raise ValueError("its outputs are not those of its last layer")
    network = Network(description["name"], tuple(made), features, bool(description["return_sequences"]))
    return network, description


def _layer(name: str, record: tuple[Any, ...], section: bytes) -> Layer:
    kind, inputs, units = record[:3]
    precision = PRECISIONS[int(record[3])]
    activation, recurrent = _function(record[4:8]), _function(record[8:12])
    values = np.frombuffer(section, np.float32)

    def vectors(count: int) -> list[Floats]:
        return [values[: count * row].reshape(count, row)[k, :units].copy() for k in range(count)]

    row = -(-units // 16) * 16
    if kind == AFFINE:
        center, scale, offset = vectors(3)
        return Affine(name, center, scale, offset)
    if kind == LAYER_NORMALIZATION:
        gamma, beta = vectors(2)
        return LayerNormalization(name, gamma, beta, float(record[12]))
    if kind == PRELU:
        return PReLU(name, *vectors(1))
    if kind == ACTIVATION:
        return Activation(name, activation)
    # A unit has a bias at least, and an input a weight: what is declared must be there before room is made for it.
    if max(inputs, units) > len(section):
        raise ValueError(f"layer {name!r} has more weights than there are")
    shapes = shapes_of(kind, inputs, units, precision)
    if sum(map(packed_size, shapes)) > len(section):
        raise ValueError(f"layer {name!r} has more weights than there are")
    parts: list[tuple[Floats, Floats, Floats]] = []
    for shape in shapes:
        parts.append(unpack(section, shape))
        section = section[packed_size(shape) :]
    (a, b, bias), (a2, b2, bias2) = parts[0], parts[-1]
    if kind == DENSE:
        return Dense(name, b, bias, activation)
    if kind == SIMPLE_RNN:
        return SimpleRNN(name, b, a, bias, activation)
    if kind == LSTM_KIND:
        return LSTM(name, b, a, bias, activation, recurrent)
    if kind == GRU_KIND:
        return GRU(name, b2, a, bias2, bias, activation, recurrent, True)
    kernel, recurrent_kernel = np.concatenate([b, b2], 1), np.concatenate([a, a2], 1)
    biases = np.concatenate([bias, bias2])
    return GRU(name, kernel, recurrent_kernel, biases, np.zeros_like(biases), activation, recurrent, False)


def shapes_of(kind: int, inputs: int, units: int, precision: str) -> list[Shape]:
    """The matrices in a layer's section.

    A GRU has two: its candidate needs the parts from h and from x apart, or, where r is applied before the product,
    r · h.
    """
    if kind == LSTM_KIND:
        return [Shape(4, units, units, inputs, precision)]
    if kind == SIMPLE_RNN:
        return [Shape(1, units, units, inputs, precision)]
    if kind == DENSE:
        return [Shape(1, units, 0, inputs, precision)]
    if kind == GRU_KIND:
        return [Shape(3, units, units, 0, precision), Shape(3, units, 0, inputs, precision)]
    if kind == GRU_RESET_BEFORE:
        return [Shape(2, units, units, inputs, precision), Shape(1, units, units, inputs, precision)]
    raise ValueError(f"no layer of kind {kind}")


def packed_size(shape: Shape) -> int:
    """Bytes of a matrix."""
    each = {"float32": 4, "float16": 2, "int8": 1}[shape.precision]
    floats = 3 if shape.precision == "int8" else 1
    return sum(
        shape.gates * lanes * (4 * floats + each * (shape.rows(shape.a) + shape.rows(shape.b))) for lanes in shape.lanes
    )


def unpack(content: bytes, shape: Shape) -> tuple[Floats, Floats, Floats]:
    """(a, gates·units), (b, gates·units), (gates·units,): the weights for the state, for the input, and the bias."""
    gates = shape.gates
    a = np.zeros((shape.a, gates, shape.units), np.float32)
    b = np.zeros((shape.b, gates, shape.units), np.float32)
    bias = np.zeros((gates, shape.units), np.float32)
    at, unit = 0, 0

    def take(dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        nonlocal at
        taken = np.frombuffer(content, dtype, count, at)
        at += taken.nbytes
        return taken

    for lanes in shape.lanes:
        here = slice(unit, min(unit + lanes, shape.units))
        used = here.stop - here.start
        width = gates * lanes
        bias[:, here] = take(np.float32, width).reshape(gates, lanes)[:, :used]
        scales = take(np.float32, 2 * width).reshape(2, gates, lanes) if shape.precision == "int8" else None
        for part, (to, inputs) in enumerate(((a, shape.a), (b, shape.b))):
            if scales is None:
                stored = take(np.float32 if shape.precision == "float32" else np.float16, inputs * width)
                block = stored.reshape(inputs, gates, lanes).astype(np.float32)
            else:
                fours = take(np.int8, shape.rows(inputs) * width).reshape(-1, gates, lanes, 4)
                block = fours.transpose(0, 3, 1, 2).reshape(-1, gates, lanes)[:inputs] * scales[part]
            to[:, :, here] = block[:, :, :used]
        unit += lanes
    width = gates * shape.units
    return a.reshape(shape.a, width), b.reshape(shape.b, width), bias.reshape(width)


def _function(values: tuple[Any, ...]) -> Function:
    name = FUNCTIONS[int(values[0])]
    return LINEAR if name == "linear" else Function(name, tuple(values[1 : 1 + PARAMETERS.get(name, 0)]))


PARAMETERS = {
    "relu": 3, "elu": 1, "celu": 1, "gelu": 1, "hard_shrink": 1, "soft_shrink": 1, "squareplus": 1, "threshold": 2,
}  # fmt: skip
