"""Write the files of Keras 2 that `test_keras2.py` reads, with Keras 2's own outputs beside them.

Run in an environment of its own, with `tensorflow==2.15.*`, whose `tf.keras` is Keras 2:

    python tests/export/keras2/make_fixtures.py

Every `<name>.h5` (or `.keras`) has a `<name>.npz`: `x` (T, features), and `y` (T, outputs), the model's output on
every prefix of x.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
STEPS = 40
K = tf.keras
L = K.layers


def enlarge(model):
    """Weights that saturate gates, the same every time."""
    rng = np.random.default_rng(2)
    for variable in model.weights:
        kind, shape = variable.name.split("/")[-1].split(":")[0], tuple(variable.shape)
        if kind == "kernel":
            variable.assign(rng.normal(0, 2 / np.sqrt(shape[0]), shape))
        elif kind == "recurrent_kernel":
            variable.assign(rng.normal(0, 0.7 / np.sqrt(shape[0]), shape))
        elif kind in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.5, shape))
        elif kind in ("gamma", "moving_variance", "alpha"):
            variable.assign(rng.uniform(0.2, 1.5, shape))
    return model


def lstm_hard_sigmoid():
    return K.Sequential(
        [
            L.LSTM(
                8,
                recurrent_activation="hard_sigmoid",
                return_sequences=True,
                batch_input_shape=(1, None, 3),
                stateful=True,
            ),
            L.Dropout(0.2),
            L.LSTM(6, activation="hard_sigmoid", recurrent_activation="hard_sigmoid", stateful=True),
            L.Dense(4, activation="hard_sigmoid"),
            L.Activation("hard_sigmoid"),
            L.Dense(2),
        ]
    )


def gru_and_activation_layers():
    return K.Sequential(
        [
            L.InputLayer(input_shape=(None, 3)),
            L.GRU(8, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True),
            L.BatchNormalization(),
            L.LeakyReLU(alpha=0.15),
            L.GRU(8, return_sequences=True),
            L.LayerNormalization(),
            L.PReLU(shared_axes=[1]),
            L.SimpleRNN(8),
            L.Dense(8),
            L.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.25),
            L.ThresholdedReLU(theta=0.5),
            L.ELU(alpha=0.7),
            L.LeakyReLU(),
            L.BatchNormalization(axis=1),
            L.Dense(3),
            L.Softmax(),
        ]
    )


def functional_masking():
    x = K.Input((None, 3))
    y = L.Masking(mask_value=-5.0)(x)
    y = L.LSTM(8, return_sequences=True)(y)
    y = K.Sequential(
        [K.Input((None, 8)), L.TimeDistributed(L.Dense(6, activation="swish")), L.Dropout(0.1)], name="inner"
    )(y)
    y = L.RNN(
        L.StackedRNNCells([L.LSTMCell(5, recurrent_activation="hard_sigmoid"), L.GRUCell(4)]), return_sequences=True
    )(y)
    y = L.RNN(L.SimpleRNNCell(4), return_sequences=True)(y)
    return K.Model(x, L.Dense(2)(y))


def mixed_float16():
    policy = {"dtype": K.mixed_precision.Policy("mixed_float16")}
    return K.Sequential(
        [
            K.Input((5, 3)),
            L.Normalization(mean=[100.0, 0.0, -2.0], variance=[9.0, 0.5, 4.0]),
            L.LSTM(8, return_sequences=True, **policy),
            L.GRU(8, **policy),
            L.Rescaling(3.0, offset=0.5),
            L.Dense(2, dtype="float32"),
        ]
    )


def activations():
    names = (
        "relu",
        "elu",
        "selu",
        "softplus",
        "softsign",
        "swish",
        "gelu",
        "mish",
        "exponential",
        "tanh",
        "sigmoid",
        "linear",
    )
    nn = (tf.nn.relu6, tf.nn.leaky_relu, tf.nn.silu, tf.nn.relu)
    return K.Sequential(
        [
            K.Input((None, 3)),
            L.LSTM(8, activation="softsign", return_sequences=True),
            *(L.Dense(8, activation=a) for a in (*names, *nn)),
            L.Dense(2, activation="softmax"),
        ]
    )


def time_major():
    return K.Sequential([K.Input((4, 3)), L.LSTM(4, time_major=True, return_sequences=True)])


def adapted_normalization():
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(1).normal([1016, 0.01], [10, 0.001], (1000, 2)).astype("float32")[None])
    return K.Sequential([K.Input((None, 2)), layer, L.LSTM(8), L.Dense(1)])


def inputs(name, model):
    rng = np.random.default_rng(3)
    x = 2 * rng.standard_normal((STEPS, model.input_shape[-1])).astype(np.float32)
    if name == "mixed_float16":
        x = x * [3, 0.7, 2] + [100, 0, -2]
    if name == "adapted_normalization":
        x = x * [10, 0.001] + [1016, 0.01]
    if name == "functional_masking":
        x[[0, 1, 7, 8, 20, 39]] = -5
    return x.astype(np.float32)


def outputs(model, x):
    """The whole model on every prefix; on the last steps it was built for, where its length is fixed."""
    steps = model.input_shape[1]
    rows = []
    for t in range(1, len(x) + 1):
        model.reset_states()
        window = x[:t] if steps is None else np.resize(x[:t], (steps, x.shape[1]))
        y = np.asarray(model(window[None], training=False), np.float32)[0]
        rows.append(y[-1] if y.ndim == 2 else y)
    return np.array(rows)


def main():
    for build in (
        lstm_hard_sigmoid,
        gru_and_activation_layers,
        functional_masking,
        mixed_float16,
        activations,
        adapted_normalization,
    ):
        name, model = build.__name__, enlarge(build())
        x = inputs(name, model)
        suffixes = [".h5", ".keras"] if name in ("lstm_hard_sigmoid", "functional_masking") else [".h5"]
        for suffix in suffixes:
            model.save(HERE / f"{name}{suffix}")
        if name == "mixed_float16":  # In half precision Keras's own outputs are too coarse to compare with.
            weights = model.get_weights()
            K.backend.clear_session()
            config = model.get_config()
            for layer in config["layers"]:
                layer["config"]["dtype"] = "float32"
            config["layers"][0]["config"]["batch_input_shape"] = (None, None, 3)
            model = K.Sequential.from_config(config)
            model.set_weights(weights)
        np.savez_compressed(HERE / f"{name}.npz", x=x, y=outputs(model, x))
    enlarge(time_major()).save(HERE / "time_major.h5")
    lstm_hard_sigmoid().save_weights(HERE / "weights_only.h5")


if __name__ == "__main__":
    main()
