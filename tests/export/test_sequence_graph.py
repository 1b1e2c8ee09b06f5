"""Sequence graphs of models that carry no state, by the interpreters' own calls, against the Keras model itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from edgelstm.export.converters.sequences import keras_to_onnx_sequence, keras_to_tflite_sequence
from edgelstm.runtime.errors import UnsupportedModelError

from ..zoo import with_large_weights
from .interpreters import snr_db

LENGTHS = (1, 6, 40, 5, 40)


def sequential(*layers: Any, steps: int | None = None, batch: int | None = None) -> Any:
    import keras

    return keras.Sequential([keras.Input((steps, 3), batch_size=batch), *layers])


def bidirectional(L):
    return sequential(L.Bidirectional(L.LSTM(8, return_sequences=True)), L.Dense(2))


def last(L):
    return sequential(L.Bidirectional(L.GRU(8)), L.Dense(2, "softmax"), steps=12)


def convolution(L):
    front = L.Conv1D(8, 5, activation="relu")
    return sequential(front, L.MaxPooling1D(2), L.LSTM(8, return_sequences=True), L.SimpleRNN(4), steps=24)


def causal(L):
    return sequential(L.Conv1D(8, 5, padding="causal"), L.LSTM(8, return_sequences=True), L.Dense(2))


def backwards(L):
    return sequential(L.LSTM(8, go_backwards=True), L.Dense(2))


def masked(L):
    return sequential(L.Masking(0.0), L.Bidirectional(L.LSTM(8)), L.Dense(2))


def time_distributed(L):
    """Traced wrongly by TensorFlow where the number of timesteps is open."""
    return sequential(
        L.Bidirectional(L.LSTM(8, return_sequences=True)),
        L.TimeDistributed(L.BatchNormalization()),
        L.TimeDistributed(L.Dense(2, "tanh")),
    )


def functional(L):
    import keras

    x = keras.Input((None, 3), name="sensor")
    h = L.TimeDistributed(L.Dense(4))(L.Bidirectional(L.LSTM(4, return_sequences=True))(x))
    return keras.Model({"sensor": x}, {"answer": L.Dense(2)(L.Attention()([h, h]))})


def normalized(L):
    """Keeps its means outside of any variable."""
    front = L.Normalization(mean=[20.0, -3.0, 0.5], variance=[25.0, 0.04, 1.0])
    return sequential(front, L.Bidirectional(L.LSTM(8)), L.Dense(2))


MODELS = {
    f.__name__: f
    for f in (bidirectional, last, convolution, causal, backwards, masked, time_distributed, functional, normalized)
}
QUICK: tuple[str, ...] = ()


@cache
def model(name: str) -> Any:
    import keras

    keras.utils.set_random_seed(2024)
    return with_large_weights(MODELS[name](keras.layers), gain=2.0)


def sequences(name: str, length: int, batch: int = 1) -> np.ndarray:
    x = np.random.default_rng(length).standard_normal((batch, length, 3)) * 1.5
    if name == "normalized":
        x = x * [5.0, 0.2, 1.0] + [20.0, -3.0, 0.5]
    if name == "masked":
        x[:, length // 3 : length // 2] = 0
    return x.astype(np.float32)


def keras_answer(name: str, x: np.ndarray) -> np.ndarray:
    if name == "functional":
        return model(name)({"sensor": x}, training=False)["answer"].numpy()
    return model(name)(x, training=False).numpy()


NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_what_keras_gives(name):
    import onnxruntime

    built = model(name)
    content = keras_to_onnx_sequence(built)
    graph = onnx.load_from_string(content)
    assert graph.ir_version == 8
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 17)]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    steps = built.inputs[0].shape[1]
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("x", ["batch", steps or "time", 3])]
    assert [o.name for o in session.get_outputs()] == ["y"]
    for length in (steps,) * 2 if steps else LENGTHS:
        for batch in (1, 4):
            x = sequences(name, length, batch)
            want = keras_answer(name, x)
            got = session.run(["y"], {"x": x})[0]
            assert got.shape == want.shape
            assert snr_db(got, want) >= 100


@pytest.mark.parametrize("name", NAMES)
def test_tflite_gives_what_keras_gives(name):
    from ai_edge_litert.interpreter import Interpreter

    built = model(name)
    interpreter = Interpreter(model_content=keras_to_tflite_sequence(built), num_threads=1)
    assert interpreter.get_signature_list() == {"sequence": {"inputs": ["x"], "outputs": ["y"]}}
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    steps = built.inputs[0].shape[1]
    for length in (steps,) * 2 if steps else LENGTHS:
        x = sequences(name, length)
        interpreter.resize_tensor_input(source["index"], x.shape)
        interpreter.allocate_tensors()
        want = keras_answer(name, x)
        for _ in range(2):  # Nothing is carried from a call to the next.
            interpreter.set_tensor(source["index"], x)
            interpreter.invoke()
            got = interpreter.get_tensor(target["index"])
            assert got.shape == want.shape
            assert snr_db(got, want) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("convert", [keras_to_onnx_sequence, keras_to_tflite_sequence])
def test_stateful_models_start_each_call_from_zero(convert):
    import keras

    keras.utils.set_random_seed(2024)
    L = keras.layers
    recurrent = [L.Bidirectional(L.LSTM(6, stateful=True, return_sequences=True)), L.Bidirectional(L.GRU(4))]
    stateful = with_large_weights(sequential(*recurrent, batch=1))
    stateful(sequences("", 9))
    plain = sequential(L.Bidirectional(L.LSTM(6, return_sequences=True)), L.Bidirectional(L.GRU(4)))
    plain.set_weights(stateful.get_weights())
    kept = [v.numpy() for v in stateful.non_trainable_variables]
    content = convert(stateful)
    x = sequences("", 13)
    if convert is keras_to_onnx_sequence:
        import onnxruntime

        got = onnxruntime.InferenceSession(content).run(["y"], {"x": x})[0]
    else:
        from .interpreters import litert_sequence

        got = litert_sequence(content, x[0])
    assert snr_db(got, plain(x).numpy()) >= 100
    for before, after in zip(kept, stateful.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_mixed_precision_models_are_converted_in_float32():
    import keras

    keras.utils.set_random_seed(2024)
    L = keras.layers
    policy = {"dtype": "mixed_float16"}
    inner = L.LSTM(6, return_sequences=True, **policy)
    mixed = with_large_weights(sequential(L.Bidirectional(inner, **policy), L.Dense(2, **policy)))
    plain = sequential(L.Bidirectional(L.LSTM(6, return_sequences=True)), L.Dense(2))
    plain.set_weights(mixed.get_weights())
    from .interpreters import litert_sequence

    x = sequences("", 13)
    assert snr_db(litert_sequence(keras_to_tflite_sequence(mixed), x[0]), plain(x).numpy()) >= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("convert", "name"), [(keras_to_onnx_sequence, "masked"), (keras_to_tflite_sequence, "bidirectional")]
)
def test_the_same_model_gives_the_same_bytes(name, convert):
    first = convert(model(name))
    convert(model("causal"))
    assert convert(model(name)) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "convert", [pytest.param(keras_to_onnx_sequence, marks=pytest.mark.slow), keras_to_tflite_sequence]
)
def test_what_the_converters_get_wrong_is_refused(convert):
    import keras

    keras.utils.set_random_seed(2024)
    L = keras.layers
    wrong = sequential(L.Bidirectional(L.LSTM(8, return_sequences=True)), L.TimeDistributed(L.Reshape((4, 4))))
    with pytest.raises(UnsupportedModelError, match=r"its file gives .* fixed number of timesteps"):
        convert(with_large_weights(sequential(*wrong.layers, L.TimeDistributed(L.Flatten()))))


def test_what_needs_flex_operators_is_refused():
    import keras

    @keras.saving.register_keras_serializable("edgelstm_tests")
    class Determinant(keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            square = tf.matmul(x, x, transpose_a=True) + tf.eye(3)
            return tf.linalg.det(square)[:, None]

    with pytest.raises(UnsupportedModelError, match="TFLite converter cannot convert it"):
        keras_to_tflite_sequence(sequential(Determinant(), steps=5))
