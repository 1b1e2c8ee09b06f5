"""Keras models traced by TensorFlow, for the converters that make other formats of them.

A trace may compute something else than the model (with an open number of timesteps, `TimeDistributed` gives the first
timestep's answer to all). So each file that comes of one is run against the model before it is given out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...runtime.errors import UnsupportedModelError, reason_of
from ..from_keras.functions import keras2_functions
from ..from_keras.reference import copy_weights, float32_config
from ..from_keras.timesteps import graph_of

LEAVE_OUT = "leave this format out"


def plain_model(model: Any, is_open: bool = False) -> Any:
    """The model, or one of the same weights that computes the same from zero state, in float32, and can be traced.

    Stateful layers cannot start each call from zero, and where the number of timesteps is open, `TimeDistributed`
    layers are traced wrongly. What lies inside of the latter works on the last axis, so it can stand alone.

    Args:
        model: the model.
        is_open: whether it is traced with an open number of timesteps.

    Raises:
        UnsupportedModelError: Keras cannot build it again.
    """
    layers = model._flatten_layers()
    wrapped = is_open and any(type(layer).__name__ == "TimeDistributed" for layer in layers)
    stateful = any(getattr(layer, "stateful", False) for layer in layers)
    if not (wrapped or stateful or is_mixed(model) or model.inputs[0].shape[0] is not None):
        return model
    try:
        with keras2_functions():
            rebuilt = type(model).from_config(float32_config(_plain_config(model.get_config(), is_open)))
        copy_weights(model, rebuilt)
    except Exception as error:  # Keras raises whatever its layers raise.
        raise refused(model, "Keras", str(error)) from error
    return rebuilt


def _plain_config(config: Any, is_open: bool) -> Any:
    if isinstance(config, (list, tuple)):
        return type(config)(_plain_config(item, is_open) for item in config)
    if not isinstance(config, dict):
        return config
    if is_open and config.get("class_name") == "TimeDistributed":
        outer = config["config"]
        inner = outer["layer"]
        if inner["class_name"] in _ALONG_THE_LAST_AXIS:
            # In the outer layer's place in the graph, by its name, for its shape.
            place = {key: config[key] for key in ("name", "build_config") if key in config}
            if "inbound_nodes" in config:
                # Without a mask, which these layers do not take; it goes past them by itself.
                place["inbound_nodes"] = [{**node, "kwargs": {}} for node in config["inbound_nodes"]]
            config = {**inner, **place, "config": {**inner["config"], "name": outer["name"]}}
    result = {key: _plain_config(value, is_open) for key, value in config.items()}
    if result.get("stateful") is True:
        result["stateful"] = False
    if isinstance(result.get("batch_shape"), (list, tuple)):
        result["batch_shape"] = type(result["batch_shape"])((None, *result["batch_shape"][1:]))
    return result


_ALONG_THE_LAST_AXIS = ("Dense", "Activation", "Dropout", "LayerNormalization", "BatchNormalization", "LeakyReLU")


def is_mixed(model: Any) -> bool:
    """Whether a part of a model does not compute in float32."""
    return any(layer.compute_dtype != "float32" for layer in model._flatten_layers())


def call_model(model: Any, x: Any) -> Any:
    """The model on a batch, whatever structure it wants its one input in and gives its one output in."""
    import keras

    inputs = keras.tree.pack_sequence_as(graph_of(model)._inputs_struct, [x])
    return keras.tree.flatten(model(inputs, training=False))[0]


def frozen(call: Callable[[Any], Any], spec: Any) -> Any:
    """A function of one tensor as a `tf.function` from `x` to `{"y": …}` that holds its weights as constants.

    From variables the TFLite converter may write a file without any weights, and say nothing; of constants that a
    function has captured (the means of a Normalization layer) tf2onnx makes inputs.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = tf.function(
        lambda x: tf.cast(call(x), tf.float32), input_signature=[spec], autograph=False
    ).get_concrete_function()
    constant = convert_variables_to_constants_v2(traced, lower_control_flow=False)
    return tf.function(lambda x: {"y": tf.nest.flatten(constant(x))[0]}, input_signature=[spec], autograph=False)


def refused(model: Any, converter: str, reason: str, remedy: str = LEAVE_OUT) -> UnsupportedModelError:
    """The error that says that a converter makes nothing of a model."""
    return UnsupportedModelError(f"{model.name}: {converter} cannot convert it: {reason_of(reason)}; {remedy}")


@contextmanager
def muted(*loggers: str) -> Iterator[None]:
    """Keep converters from logging: what matters arrives as an exception."""
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
