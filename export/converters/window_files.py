"""Window graphs: a Keras model on a whole window, by TensorFlow's TFLite converter and by tf2onnx.

TFLite: signature `window`, input `x` (1, T, features) float32, output `y` (1, outputs) or (1, rows, outputs) float32.
ONNX: the same with a batch of any size. Both carry a description and a checksum, as step graphs do.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime import onnx_metadata, tflite_metadata
from ...runtime.tflite_metadata import METADATA_NAME
from ..to_onnx.writer import OPSET
from ..to_tflite.writer import aligned_pack
from .names import with_plain_names
from .onnx_weights import with_small_weights
from .tracing import frozen, muted, plain_model, refused
from .windows import WindowModel

# What the converters make of a whole graph.
PRECISIONS = {"tflite": ("float32", "float16", "dynamic", "int8"), "onnx": ("float32", "float16", "dynamic")}
# Windows from which the ranges of `int8` are found.
_REPRESENTATIVE = 256
# What TensorFlow calls a loop; its calibrator ends the process at one.
_LOOPS = ("While", "StatelessWhile")


class WindowFiles:
    """Makes the files of a model; what several precisions share is made once. A context manager."""

    def __init__(self, model: WindowModel, legacy: bool = False) -> None:
        """Make files of a model; `legacy` keeps TFLite files loadable by tflite-runtime 2.14."""
        self._model = model
        self._legacy = legacy
        self._folder = tempfile.TemporaryDirectory()
        self._plain: Any = None
        self._onnx: bytes | None = None
        self._saved: Path | None = None
        self._loops = False

    def __enter__(self) -> WindowFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def convert(
        self,
        format_: str,
        precision: str,
        description: Mapping[str, Any],
        calibration: npt.NDArray[np.float32] | None,
    ) -> bytes:
        """A file.

        Args:
            format_: `tflite` or `onnx`.
            precision: of `PRECISIONS`.
            description: what to store in the file about it.
            calibration: (N, T or more, features); the ranges of `int8` are found in its windows.

        Raises:
            UnsupportedModelError: the converter cannot convert the model.
        """
        if format_ == "onnx":
            return _with_properties(self._onnx_in(precision), description)
        return _with_metadata(self._tflite_in(precision, calibration), description)

    def _traced(self, batch: int | None) -> tuple[Any, Any]:
        import tensorflow as tf

        model = self._model
        if self._plain is None:
            self._plain = plain_model(model.model)
        spec = tf.TensorSpec((batch, model.timesteps, model.features), tf.float32, name="x")
        return frozen(model.traced(self._plain), spec), spec

    def _tflite_in(self, precision: str, calibration: npt.NDArray[np.float32] | None) -> bytes:
        import tensorflow as tf

        with muted("tensorflow", "absl"):
            try:
                if self._saved is None:
                    module: Any = tf.Module()
                    module.window, _ = self._traced(1)
                    traced = module.window.get_concrete_function()
                    self._loops = any(f'op: "{kind}"' in str(traced.graph.as_graph_def()) for kind in _LOOPS)
                    signatures = {"window": traced}
                    tf.saved_model.save(module, self._folder.name, signatures=signatures)
                    self._saved = Path(self._folder.name)
                converter = tf.lite.TFLiteConverter.from_saved_model(str(self._saved), signature_keys=["window"])
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
                # A scale for each output of a Dense layer came with a version of the operator that it does not know.
                converter._experimental_disable_per_channel_quantization_for_dense_layers = self._legacy
                if precision != "float32":
                    converter.optimizations = [tf.lite.Optimize.DEFAULT]
                if precision == "float16":
                    converter.target_spec.supported_types = [tf.float16]
                elif precision == "int8" and calibration is not None:
                    if self._loops:
                        raise ValueError("it finds no ranges in a loop, and a recurrent layer is one")
                    converter.representative_dataset = lambda: self._representative(calibration)
                return bytes(converter.convert())
            except Exception as error:  # The converter raises whatever its parts raise.
                raise refused(self._model, f"TensorFlow's TFLite converter ({precision})", str(error)) from error

    def _representative(self, calibration: npt.NDArray[np.float32]) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Windows of the calibration data, evenly chosen."""
        timesteps = self._model.timesteps
        long = calibration.reshape(-1, calibration.shape[-1]) if calibration.shape[1] < timesteps else None
        rows = calibration if long is None else np.resize(long, (1, max(len(long), timesteps), long.shape[1]))
        places = [(n, t) for n in range(len(rows)) for t in range(rows.shape[1] - timesteps + 1)]
        for at in np.unique(np.linspace(0, len(places) - 1, min(len(places), _REPRESENTATIVE)).astype(int)):
            n, t = places[at]
            yield {"x": rows[n, t : t + timesteps][None]}

    def _onnx_in(self, precision: str) -> bytes:
        if self._onnx is None:
            self._onnx = self._onnx_float32()
        return self._onnx if precision == "float32" else with_small_weights(self._onnx, precision)

    def _onnx_float32(self) -> bytes:
        import onnx
        import tf2onnx

        with muted("tf2onnx", "tensorflow"):
            try:
                function, spec = self._traced(None)
                converted, _ = tf2onnx.convert.from_function(function, [spec], opset=OPSET)
                content = with_plain_names(converted, ("batch", "rows")).SerializeToString(deterministic=True)
                onnx.checker.check_model(content, full_check=True)
            except Exception as error:  # The converter raises whatever its parts raise.
                raise refused(self._model, "tf2onnx", str(error)) from error
        return content


def _with_properties(content: bytes, description: Mapping[str, Any]) -> bytes:
    import onnx

    model: Any = onnx.load_from_string(content)
    del model.metadata_props[:]
    checksum = onnx_metadata.CHECKSUM_PLACEHOLDER
    for key, value in ((METADATA_NAME, json.dumps(description)), (onnx_metadata.CHECKSUM_KEY, checksum)):
        model.metadata_props.add(key=key, value=value)
    return onnx_metadata.seal(model.SerializeToString(deterministic=True))


def _with_metadata(content: bytes, description: Mapping[str, Any]) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    text = json.dumps({"crc32": tflite_metadata.CHECKSUM_PLACEHOLDER.decode(), **description}).encode()
    buffer: Any = schema.BufferT()
    entry: Any = schema.MetadataT()
    buffer.data = np.frombuffer(text, np.uint8)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [entry]  # The converter's own says when and with what it was run.
    for each in model.buffers:
        each.Pack = aligned_pack(schema, each)
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return tflite_metadata.seal(bytes(builder.Output()))
