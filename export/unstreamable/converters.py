"""Sequence graphs of Keras models that cannot be streamed, by way of tf2onnx and of TensorFlow's TFLite converter.

ONNX: input `x` (batch, time, features) float32, output `y`. TFLite: signature `sequence`, input `x`
(1, time, features) float32, output `y`. Each call starts from zero state.

Both trace the model with TensorFlow first, and a trace may compute something else than the model (with an open number
of timesteps, `TimeDistributed` gives the first timestep's answer to all). So each file is run against the model
before it is given out.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import UnsupportedModelError, reason_of
from ...runtime.parity import compare
from ..from_keras.ends import graph_of
from ..from_keras.functions import keras2_functions
from ..from_keras.reference import copy_weights, float32_config
from ..to_onnx.writer import OPSET
from .names import with_plain_names

# A wrong trace is off by whole outputs; the proof that counts is the export's own, on its golden vectors.
_LEAST_SNR_DB = 60.0
# Lengths on which a file is tried: one that needs no loop, odd ones, and a shorter one after a longer one.
_LENGTHS = (1, 5, 23, 4)

Sequence = npt.NDArray[np.float32]


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

    plain = plain_model(model)
    signature = [_spec(plain, None)]
    with _muted("tf2onnx"):
        try:
            converted, _ = tf2onnx.convert.from_function(_frozen(plain, signature), signature, opset=OPSET)
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

    plain = plain_model(model)
    signature = [_spec(plain, 1)]
    with _muted("tensorflow", "absl"), tempfile.TemporaryDirectory() as folder:
        try:
            module: Any = tf.Module()
            module.sequence = _frozen(plain, signature)
            tf.saved_model.save(module, folder, signatures={"sequence": module.sequence.get_concrete_function()})
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["sequence"])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            content = bytes(converter.convert())
        except Exception as error:
            raise _refused(model, "TensorFlow's TFLite converter", str(error)) from error
    _check(model, plain, "TensorFlow's TFLite converter", _tflite_runner(content))
    return content


def plain_model(model: Any) -> Any:
    """The model, or one of the same weights that computes the same from zero state, in float32, and can be traced.

    Stateful layers cannot start each call from zero, and `TimeDistributed` layers are traced wrongly. What lies
    inside of the latter works on the last axis here, since the model's sequences have rank 3, so it can stand alone.

    Raises:
        UnsupportedModelError: Keras cannot build it again.
    """
    config = model.get_config()
    plain = _plain_config(config)
    if plain == config and not _is_mixed(model):
        return model
    try:
        with keras2_functions():
            rebuilt = type(model).from_config(float32_config(plain))
        copy_weights(model, rebuilt)
    except Exception as error:  # Keras raises whatever its layers raise.
        raise _refused(model, "Keras", str(error)) from error
    return rebuilt


def _plain_config(config: Any) -> Any:
    if isinstance(config, (list, tuple)):
        return type(config)(_plain_config(item) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "TimeDistributed":
        outer = config["config"]
        inner = outer["layer"]
        if inner["class_name"] in _ALONG_THE_LAST_AXIS:
            # In the outer layer's place in the graph, by its name, for its shape.
            place = {key: config[key] for key in ("name", "build_config") if key in config}
            if "inbound_nodes" in config:
                # Without a mask, which these layers do not take; it goes past them by itself.
                place["inbound_nodes"] = [{**node, "kwargs": {}} for node in config["inbound_nodes"]]
            config = {**inner, **place, "config": {**inner["config"], "name": outer["name"]}}
    result = {key: _plain_config(value) for key, value in config.items()}
    if result.get("stateful") is True:
        result["stateful"] = False
    if isinstance(result.get("batch_shape"), (list, tuple)):
        result["batch_shape"] = type(result["batch_shape"])((None, *result["batch_shape"][1:]))
    return result


_ALONG_THE_LAST_AXIS = ("Dense", "Activation", "Dropout", "LayerNormalization", "BatchNormalization", "LeakyReLU")


def _spec(model: Any, batch: int | None) -> Any:
    import tensorflow as tf

    return tf.TensorSpec((batch, *model.inputs[0].shape[1:]), tf.float32, name="x")


def _frozen(model: Any, signature: list[Any]) -> Any:
    """The model as a `tf.function` from `x` to `{"y": …}` that holds its weights as constants.

    From variables the TFLite converter may write a file without any weights, and say nothing; of constants that a
    function has captured (the means of a Normalization layer) tf2onnx makes inputs.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = tf.function(
        lambda x: tf.cast(_call(model, x), tf.float32), input_signature=signature, autograph=False
    ).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    return tf.function(lambda x: {"y": tf.nest.flatten(frozen(x))[0]}, input_signature=signature, autograph=False)


def _call(model: Any, x: Any) -> Any:
    """The model on a batch, whatever structure it wants its one input in and gives its one output in."""
    import keras

    inputs = keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, [x])
    return keras.tree.flatten(model(inputs, training=False))[0]


def _check(model: Any, plain: Any, converter: str, run: Callable[[Sequence], npt.NDArray[Any]]) -> None:
    """Raise `UnsupportedModelError` unless a file computes what the model computes, each call from zero state."""
    _, steps, features = model.inputs[0].shape
    # The model itself where it can be called so: what `plain_model` does is to be checked too.
    stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
    reference = plain if stateful or model.inputs[0].shape[0] is not None or _is_mixed(model) else model
    expected = np.empty(0, np.float32)
    for repeated, length in enumerate((steps, steps) if steps else _LENGTHS):
        x = np.random.default_rng(length).standard_normal((1, length, features)).astype(np.float32)
        if not (steps and repeated):  # The same once more, which must not depend on the call before it.
            expected = np.asarray(_call(reference, x), np.float32)
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


def _is_mixed(model: Any) -> bool:
    return any(layer.compute_dtype != "float32" for layer in model._flatten_layers())


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
    return UnsupportedModelError(
        f"{model.name}: {converter} cannot make a sequence graph of it: {reason_of(reason)}; {remedy}"
    )


@contextmanager
def _muted(*loggers: str) -> Iterator[None]:
    """Keep converters from logging: what matters arrives as an exception."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
