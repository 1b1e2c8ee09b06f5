"""Writes TFLite files operator by operator, with the flatbuffer schema that LiteRT ships.

Writing them ourselves rather than through the TensorFlow converter gives control of what decides whether a
recurrent graph stays right: every scale, where numbers are integers, the version of every operator, and the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of a graph under construction.

    Attributes:
        index: its number in the subgraph.
        shape: its dimensions; -1 for one that is only known at run time.
        dtype: its NumPy type.
        scale: the real value of one quantum, for the integer types; zero points are always 0.
    """

    index: int
    shape: Shape
    dtype: np.dtype[Any]
    scale: float | None = None


class ModelWriter:
    """Collects subgraphs, buffers and operator codes, and packs them into a file."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self._model: Any = schema.ModelT()
        self._model.version = 3
        self._model.description = "EdgeLSTM"
        # Buffer 0 is by convention the empty one, which tensors without content point to.
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._model.subgraphs = []
        self._model.signatureDefs = []
        self._model.metadata = []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: dict[bytes, int] = {}

    def graph(self, name: str) -> GraphWriter:
        """Start a subgraph; the first is the main one."""
        subgraph = self.schema.SubGraphT()
        subgraph.name, subgraph.tensors, subgraph.operators = name, [], []
        self._model.subgraphs.append(subgraph)
        return GraphWriter(self, subgraph, len(self._model.subgraphs) - 1)

    def signature(
        self, key: str, graph: GraphWriter, inputs: Mapping[str, Value], outputs: Mapping[str, Value]
    ) -> None:
        """Name the inputs and outputs of a subgraph, and make them so."""
        graph.set_interface(list(inputs.values()), list(outputs.values()))
        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = key, graph.index
        signature.inputs = [self._tensor_map(name, value) for name, value in inputs.items()]
        signature.outputs = [self._tensor_map(name, value) for name, value in outputs.items()]
        self._model.signatureDefs.append(signature)

    def metadata(self, name: str, content: bytes) -> None:
        """Attach a named blob."""
        entry = self.schema.MetadataT()
        entry.name, entry.buffer = name, self.buffer(content)
        self._model.metadata.append(entry)

    def buffer(self, content: bytes) -> int:
        """Number of a buffer with this content; equal contents share one."""
        if content not in self._buffers:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(content, np.uint8)
            self._buffers[content] = len(self._model.buffers)
            self._model.buffers.append(buffer)
        return self._buffers[content]

    def operator_code(self, operator: str, version: int) -> int:
        """Number of an operator in the file's table of those it uses."""
        code = getattr(self.schema.BuiltinOperator, operator)
        if (code, version) not in self._codes:
            entry = self.schema.OperatorCodeT()
            # Codes beyond 127 do not fit the old one-byte field, which then holds a placeholder.
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
            self._codes[code, version] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(entry)
        return self._codes[code, version]

    def to_bytes(self) -> bytes:
        """The file."""
        import flatbuffers

        for buffer in self._model.buffers:
            buffer.Pack = aligned_pack(self.schema, buffer)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _tensor_map(self, name: str, value: Value) -> Any:
        entry = self.schema.TensorMapT()
        entry.name, entry.tensorIndex = name, value.index
        return entry


class GraphWriter:
    """Adds tensors and operators to one subgraph."""

    def __init__(self, model: ModelWriter, subgraph: Any, index: int) -> None:
        self.model = model
        self.index = index
        self._subgraph = subgraph
        self._constants: dict[Any, Value] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: npt.DTypeLike = np.float32, scale: float | None = None
    ) -> Value:
        """A tensor that is an input or that an operator computes."""
        return self._add(name, shape, np.dtype(dtype), 0, None if scale is None else [scale])

    def constant(
        self,
        name: str,
        array: npt.ArrayLike,
        dtype: npt.DTypeLike = np.float32,
        scales: Sequence[float] | None = None,
    ) -> Value:
        """A tensor with content; `scales` has one element, or one for each of the first dimension."""
        with np.errstate(over="ignore"):  # A weight beyond float16 becomes infinite, and parity refuses the file.
            content = np.asarray(array, dtype, order="C")
        key = (content.tobytes(), content.shape, content.dtype.str, tuple(scales or ()))
        if key not in self._constants:
            buffer = self.model.buffer(content.tobytes())
            self._constants[key] = self._add(name, content.shape, content.dtype, buffer, scales)
        return self._constants[key]

    def op(
        self,
        operator: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        version: int = 1,
        options_type: str | None = None,
        **options: Any,
    ) -> None:
        """Add an operator; `options` are the fields of its options table, `options_type` that table's name."""
        schema = self.model.schema
        entry = schema.OperatorT()
        entry.opcodeIndex = self.model.operator_code(operator, version)
        entry.inputs = [value.index for value in inputs]
        entry.outputs = [value.index for value in outputs]
        if options_type is not None:
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, options_type)
            entry.builtinOptions = getattr(schema, options_type + "T")()
            for key, value in options.items():
                setattr(entry.builtinOptions, key, value)
        self._subgraph.operators.append(entry)

    def set_interface(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Declare which tensors come in and go out; a tensor that goes out under two names is listed once."""
        self._subgraph.inputs = [value.index for value in inputs]
        self._subgraph.outputs = list(dict.fromkeys(value.index for value in outputs))

    def _add(
        self,
        name: str,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        buffer: int,
        scales: Sequence[float] | None,
    ) -> Value:
        schema = self.model.schema
        entry = schema.TensorT()
        entry.name, entry.buffer, entry.hasRank = name, buffer, True
        entry.type = getattr(schema.TensorType, {"bool": "BOOL"}.get(dtype.name, dtype.name.upper()))
        entry.shape = [max(size, 1) for size in shape]
        if -1 in shape:
            entry.shapeSignature = list(shape)
        if scales is not None:
            entry.quantization = schema.QuantizationParametersT()
            entry.quantization.scale = [float(np.float32(s)) for s in scales]
            entry.quantization.zeroPoint = [0] * len(scales)
        self._subgraph.tensors.append(entry)
        scale = scales[0] if scales is not None and len(scales) == 1 else None
        return Value(len(self._subgraph.tensors) - 1, tuple(shape), dtype, scale)


def aligned_pack(schema: Any, buffer: Any) -> Any:
    """A `Pack` for a buffer that keeps the schema's `force_align: 16`, which the generated Python code drops.

    Kernels for ARM read weights in vectors; an unaligned constant is slow or, on some, a fault.
    """

    def pack(builder: Any) -> int:
        data = None
        if buffer.data is not None and len(buffer.data):
            content = np.asarray(buffer.data, np.uint8).tobytes()
            builder.StartVector(1, len(content), 16)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)

    return pack
