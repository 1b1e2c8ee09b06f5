"""Sequence graphs of Keras models, by way of tf2onnx and of TensorFlow's TFLite converter: each call from zero state.

ONNX: input `x` (batch, time, features) float32, output `y`. TFLite: signature `sequence`, input `x`
(1, time, features) float32, output `y`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import UnsupportedModelError, reason_of
from ...runtime.golden import Golden
from ...runtime.parity import compare
from ..from_keras.ends import check_ends, check_input
from ..from_keras.file import LoadedModel
from ..from_keras.leading import leading_layers
from ..from_keras.reference import called
from ..from_keras.timesteps import graph_of
from ..golden_inputs import MASKED_FRACTION, SEED, raw_inputs, synthetic_inputs
from ..to_onnx.writer import OPSET
from .names import with_plain_names
from .tracing import call_model, frozen, is_mixed, muted, plain_model, refused
from .words import ModelInWords

# A wrong trace is off by whole outputs; the proof that counts is the export's own, on its golden vectors.
_LEAST_SNR_DB = 60.0
# Lengths on which a file is tried: one that needs no loop, odd ones, and a shorter one after a longer one.
_LENGTHS = (1, 5, 23, 4)

Sequence = npt.NDArray[np.float32]

STEPS, LENGTHS = 1024, (64, 32, 7, 1)


@dataclass(frozen=True, eq=False)
class SequenceModel(ModelInWords):
    """A Keras model with one input (batch, time, features) and one output.

    Attributes:
        name: what it is called.
        model: the `keras.Model`.
        features: width of the input.
        outputs: width of the output.
        steps: timesteps of a sequence, where the model takes only so many.
    """

    features: int
    outputs: int
    steps: int | None

    @classmethod
    def of(cls, loaded: LoadedModel, name: str | None = None) -> SequenceModel:
        """A Keras model that was loaded.

        Raises:
            UnsupportedModelError: it does not have one input of rank 3, of floats, and one output of a known width.
        """
        model, called = loaded.model, name or loaded.name
        graph = graph_of(model)
        check_ends(graph, f'model "{model.name}"')
        check_input(model)
        shape, width = graph.inputs[0].shape, graph.outputs[0].shape[-1]
        if width is None:
            raise UnsupportedModelError(
                f"{called}: gives {tuple(graph.outputs[0].shape)}, and an exported graph gives a fixed number of "
                "outputs; build it with a fixed number of timesteps (Input((T, features)))"
            )
        return cls(called, model, int(shape[2]), int(width), shape[1])

    def golden(self) -> Golden:
        """Sequences of several lengths (of the only one, where the model takes but one), and Keras's outputs.

        Raises:
            UnsupportedModelError: Keras itself cannot call the model, or its outputs are not finite.
        """
        # A stateful model would start each sequence where the last one ended; a sequence graph starts from zero.
        model = plain_model(self.model, is_open=self.steps is None)
        lengths = [self.steps] * max(STEPS // self.steps, 1) if self.steps else list(LENGTHS) * (STEPS // sum(LENGTHS))
        inputs = self._inputs(sum(lengths))
        starts = tuple(int(s) for s in np.cumsum([0, *lengths[:-1]]))
        # One graph for each length: step by step in Python, Keras takes longer than all else together. Call by call,
        # since a batch of sequences could hide what one does to the next.
        try:
            calls = {length: called(model, (length, self.features)) for length in set(lengths)}
            sequences = np.split(inputs, starts[1:])
            rows = [calls[len(sequence)](sequence[None]).reshape(-1, self.outputs) for sequence in sequences]
        except Exception as error:  # Keras raises whatever its layers raise.
            raise UnsupportedModelError(f"{self.name}: Keras itself cannot call it ({reason_of(error)})") from error
        outputs = np.concatenate(rows)
        if not np.isfinite(outputs).all():
            raise UnsupportedModelError(
                f"{self.name}: Keras itself gives outputs that are not finite; check its weights"
            )
        return Golden(inputs, outputs, starts)

    def _inputs(self, steps: int) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng(SEED)
        leading = leading_layers(self.model)
        if leading.ids is not None:
            return rng.integers(leading.ids, size=(steps, self.features)).astype(np.float32)
        made_up = synthetic_inputs(rng, steps, self.features)
        hidden = rng.random(steps) < MASKED_FRACTION
        return raw_inputs(leading.layers, made_up, hidden).astype(np.float32)

    def convert(self, format_: str) -> bytes:
        """The sequence graph: through tf2onnx, or TensorFlow's converter."""
        return keras_to_onnx_sequence(self.model) if format_ == "onnx" else keras_to_tflite_sequence(self.model)


def keras_to_onnx_sequence(model: Any) -> bytes:
    """A Keras model of one input (batch, time, features) and one output as an `.onnx` file.

    Batch is open, and time where the model leaves it open.

    Returns:
        The file, the same bytes for the same model.

    Raises:
        UnsupportedModelError: tf2onnx cannot convert it, or converts it into something else.
    """
    import onnx
    import tf2onnx

    plain = plain_model(model, is_open=model.inputs[0].shape[1] is None)
    spec = _spec(plain, None)
    with muted("tf2onnx"):
        try:
            converted, _ = tf2onnx.convert.from_function(frozen(partial(call_model, plain), spec), [spec], opset=OPSET)
            content = with_plain_names(converted, ("batch", "time")).SerializeToString(deterministic=True)
            onnx.checker.check_model(content, full_check=True)
        except Exception as error:  # The converter raises whatever its parts raise.
            raise _refused(model, "tf2onnx", str(error)) from error
    _check(model, plain, "tf2onnx", _onnx_runner(content))
    return content


def keras_to_tflite_sequence(model: Any) -> bytes:
    """A Keras model of one input (batch, time, features) and one output as a `.tflite` file without Flex operators.

    Batch is 1; time is open where the model leaves it open (`resize_tensor_input` sets it).

    Raises:
        UnsupportedModelError: the converter cannot convert it without Flex operators, or converts it into something
            else.
    """
    import tensorflow as tf

    plain = plain_model(model, is_open=model.inputs[0].shape[1] is None)
    spec = _spec(plain, 1)
    with muted("tensorflow", "absl"), tempfile.TemporaryDirectory() as folder:
        try:
            module: Any = tf.Module()
            module.sequence = frozen(partial(call_model, plain), spec)
            tf.saved_model.save(module, folder, signatures={"sequence": module.sequence.get_concrete_function()})
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["sequence"])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            content = bytes(converter.convert())
        except Exception as error:
            raise _refused(model, "TensorFlow's TFLite converter", str(error)) from error
    _check(model, plain, "TensorFlow's TFLite converter", _tflite_runner(content))
    return content


def _spec(model: Any, batch: int | None) -> Any:
    import tensorflow as tf

    return tf.TensorSpec((batch, *model.inputs[0].shape[1:]), tf.float32, name="x")


def _check(model: Any, plain: Any, converter: str, run: Callable[[Sequence], npt.NDArray[Any]]) -> None:
    """Raise `UnsupportedModelError` unless a file computes what the model computes, each call from zero state."""
    _, steps, features = model.inputs[0].shape
    # The model itself where it can be called so: what `plain_model` does is to be checked too.
    stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
    reference = plain if stateful or model.inputs[0].shape[0] is not None or is_mixed(model) else model
    expected = np.empty(0, np.float32)
    for repeated, length in enumerate((steps, steps) if steps else _LENGTHS):
        x = np.random.default_rng(length).standard_normal((1, length, features)).astype(np.float32)
        if not (steps and repeated):  # The same once more, which must not depend on the call before it.
            expected = np.asarray(call_model(reference, x), np.float32)
        try:
            answer = run(x)
        except Exception as error:  # The runtimes' exceptions have no common root but this.
            raise _refused(model, converter, f"its file cannot be run: {error}") from error
        if answer.shape != expected.shape:
            raise _refused(model, converter, f"its file gives {answer.shape} where Keras gives {expected.shape}")
        parity = compare(answer, expected)
        if parity.snr_db < _LEAST_SNR_DB:
            reason = f"its file differs from Keras by {parity.max_abs_error:.3g} on {length} timesteps"
            raise _refused(model, converter, reason)


def _onnx_runner(content: bytes) -> Callable[[Sequence], npt.NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["y"], {"x": x})[0]


def _tflite_runner(content: bytes) -> Callable[[Sequence], npt.NDArray[Any]]:
    from ...runtime.backends.tflite import interpreter_class

    interpreter = interpreter_class()(model_content=content, num_threads=1)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(x: Sequence) -> npt.NDArray[Any]:
        interpreter.resize_tensor_input(source["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def _refused(model: Any, converter: str, reason: str) -> UnsupportedModelError:
    remedy = "leave this format out"
    if model.inputs[0].shape[1] is None:
        remedy = f"build it with a fixed number of timesteps (Input((T, features))), or {remedy}"
    return refused(model, converter, reason, remedy)
