"""What an exported file takes and gives: its tensors, read from the file itself, without the library that runs it.

Layouts: `schema.fbs` of https://github.com/google-ai-edge/LiteRT, `onnx.proto` of https://github.com/onnx/onnx, and
`engine/FORMAT.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import flatbuffer as fb
from .elm import METADATA_NAME as ELM_METADATA
from .elm import read_elm, state_widths
from .errors import BundleError
from .onnx_metadata import check_seal
from .tflite_metadata import METADATA_NAME, read_metadata

INPUT, OUTPUT, STATE, NEXT_STATE = "input", "output", "state", "next state"

# Both formats' numbers for the types that a graph of ours can have at its edge.
_TFLITE_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
_ONNX_TYPES = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}
_BYTES = {"float32": 4, "float16": 2, "int32": 4, "uint8": 1, "int64": 8, "bool": 1, "int16": 2, "int8": 1}
_NEXT = "_next"


@dataclass(frozen=True)
class Tensor:
    """An input, an output or a state of an exported file.

    Attributes:
        name: what the file calls it.
        role: `input`, `output`, `state` (zeros at first), or `next state`: what the state is at the next timestep.
        shape: its dimensions; one that is free is its name, or None where it has none.
        dtype: as NumPy calls it.
    """

    name: str
    role: str
    shape: tuple[int | str | None, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Its size in bytes, for one stream: a dimension that is free counts as 1."""
        size = _BYTES[self.dtype]
        for dimension in self.shape:
            size *= dimension if isinstance(dimension, int) else 1
        return size


@dataclass(frozen=True)
class Interface:
    """What an exported file says of itself.

    Attributes:
        description: the JSON that EdgeLSTM put into it.
        tensors: the inputs, the states in the network's order, the outputs and the next states.
    """

    description: str
    tensors: tuple[Tensor, ...]

    @property
    def states(self) -> tuple[Tensor, ...]:
        """The states, in the network's order."""
        return tuple(tensor for tensor in self.tensors if tensor.role == STATE)


def read_interface(format_: str, content: bytes, source: str) -> Interface:
    """What a file of a format (`native`, `tflite` or `onnx`) says of itself.

    Raises:
        BundleError: it is damaged, or not one of ours.
    """
    reader = {"native": _native, "tflite": _tflite, "onnx": _onnx}[format_]
    try:
        return reader(content, source)
    except (struct.error, IndexError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{source}: damaged {format_} file ({error}); copy or export it again") from error


def _native(content: bytes, source: str) -> Interface:
    network, _ = read_elm(content, source)  # This checks the file.
    widths, texts = state_widths(content, source)
    tensors = [Tensor("x", INPUT, (network.features,), "float32")]
    tensors += [Tensor(name, STATE, (units,), "float32") for name, units in widths.items()]
    tensors += [Tensor("y", OUTPUT, (network.outputs,), "float32")]
    return Interface(texts[ELM_METADATA], tuple(tensors))


def _in_order(inputs: list[Tensor], outputs: list[Tensor]) -> tuple[Tensor, ...]:
    order = [tensor.name for tensor in inputs]
    # Outputs' order in a file says nothing; the next states follow the states.
    outputs.sort(key=lambda t: order.index(t.name.removesuffix(_NEXT)) if t.role == NEXT_STATE else -1)
    return (*inputs, *outputs)


def _roles(names: list[str], stateful: bool) -> dict[str, str]:
    """Roles of a graph's inputs by their names; every one but `x` is a state."""
    return {name: STATE if stateful and name != "x" else INPUT for name in names}


# ---- TFLite ----


def _tflite(content: bytes, source: str) -> Interface:
    description = read_metadata(content, source)
    model = fb.u32(content, 0)
    signatures, graphs = fb.field(content, model, 7), fb.field(content, model, 2)
    if signatures is None or graphs is None:
        raise ValueError("it has no signature")
    (signature,) = fb.tables(content, signatures)
    stateful = fb.text(content, signature, 2) == "step"
    graph = fb.tables(content, graphs)[fb.scalar(content, signature, 4, "<I")]
    tensors = fb.field(content, graph, 0)
    if tensors is None:
        raise ValueError("it has no tensors")
    positions = fb.tables(content, tensors)
    inputs = sorted(_tensor_maps(content, signature, 0))
    roles = _roles([name for _, name in inputs], stateful)
    taken = [_tflite_tensor(content, positions[at], name, roles[name]) for at, name in inputs]
    taken.sort(key=lambda tensor: tensor.role)  # `x` first, the states in the network's order.
    given = [
        _tflite_tensor(content, positions[at], name, NEXT_STATE if name.removesuffix(_NEXT) in roles else OUTPUT)
        for at, name in _tensor_maps(content, signature, 1)
    ]
    return Interface(description, _in_order(taken, given))


def _tensor_maps(content: bytes, signature: int, number: int) -> Iterator[tuple[int, str]]:
    """A signature's inputs (0) or outputs (1): each one's number in the graph, and its name."""
    maps = fb.field(content, signature, number)
    for table in [] if maps is None else fb.tables(content, maps):
        yield fb.scalar(content, table, 1, "<I"), fb.text(content, table, 0)


def _tflite_tensor(content: bytes, table: int, name: str, role: str) -> Tensor:
    # A free dimension is 1 in the shape, and -1 in the signature of the shape, which a fixed shape need not have.
    shape = fb.numbers(content, table, 7, "i") or fb.numbers(content, table, 0, "i")
    dtype = _TFLITE_TYPES[fb.scalar(content, table, 1, "<b")]
    return Tensor(name, role, tuple(None if n < 0 else n for n in shape), dtype)


# ---- ONNX ----


def _onnx(content: bytes, source: str) -> Interface:
    check_seal(content, source)
    texts: dict[str, str] = {}
    graph = b""
    for number, value in _fields(content):
        if number == 7:
            graph = _bytes(value)
        elif number == 14:
            entry = dict(_fields(_bytes(value)))
            texts[_bytes(entry[1]).decode()] = _bytes(entry[2]).decode()
    inputs = [_bytes(value) for number, value in _fields(graph) if number == 11]
    outputs = [_bytes(value) for number, value in _fields(graph) if number == 12]
    names = [_bytes(dict(_fields(value))[1]).decode() for value in inputs]
    roles = _roles(names, True)
    taken = [_onnx_tensor(value, roles) for value in inputs]
    given = [_onnx_tensor(value, {f"{name}{_NEXT}": NEXT_STATE for name in names}) for value in outputs]
    return Interface(texts[METADATA_NAME], _in_order(taken, given))


def _onnx_tensor(content: bytes, roles: dict[str, str]) -> Tensor:
    value = dict(_fields(content))
    name = _bytes(value[1]).decode()
    tensor = dict(_fields(_bytes(dict(_fields(_bytes(value[2])))[1])))
    shape: list[int | str | None] = []
    for number, dimension in _fields(_bytes(tensor[2])):
        if number == 1:
            given = dict(_fields(_bytes(dimension)))
            size, free = given.get(1), given.get(2)
            shape.append(size if isinstance(size, int) else None if free is None else _bytes(free).decode())
    return Tensor(name, roles.get(name, OUTPUT), tuple(shape), _ONNX_TYPES[int(tensor[1])])


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a protobuf message, each with its number: a number, or bytes (https://protobuf.dev, "Encoding")."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(content, at)
        else:
            size = {1: 8, 5: 4}[kind]
        if at + size > len(content):
            raise ValueError("a field beyond the end")
        yield number, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value
