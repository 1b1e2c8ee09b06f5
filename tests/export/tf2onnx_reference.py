"""tf2onnx as a second, independent converter: whole sequences of a Keras model, by onnxruntime's own call."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np


def tf2onnx_sequences(model: Any, xs: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Convert with tf2onnx and run sequences from zero state.

    Args:
        model: a `keras.Model` that is not stateful; weights that it keeps outside of variables would become inputs.
        xs: (batch, time, features).

    Returns:
        (batch, time, outputs), or (batch, outputs); and the kinds of operators in the file. With an open batch an
        LSTM layer becomes the LSTM operator.
    """
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, model.inputs[0].shape[1], xs.shape[-1]), tf.float32, name="x")]
    function = tf.function(lambda x: {"y": model(x, training=False)}, input_signature=signature)
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    converted, _ = tf2onnx.convert.from_function(function, signature, opset=17)
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": xs})[0], sorted({node.op_type for node in converted.graph.node})
