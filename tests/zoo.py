"""The Keras models that all tests share, and inputs that suit them.

`ZOO` maps names to functions that build a model; its weights are the same every time, and large enough that gates
saturate. `zoo_inputs` makes sequences for one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ZOO: dict[str, Callable[[], Any]] = {}

# Units where a weight changes the output by a jump: a rounding error can make any difference.
DISCONTINUOUS = frozenset({"jumps"})
# Those that the inner loop tries: an LSTM, a GRU, one with a mask, one model in another.
FEW = ("tutorial_stacked", "gru_reset_before", "masking", "nested")
MASK_VALUE = {"masking": -10.0, "masking_last": 0.0, "wide_masking": -10.0}
# Mean and deviation of the raw inputs of models that normalise inside.
RAW_SCALE = {
    "normalization": ([1016.0, 0.01, -40.0], [10.0, 0.001, 15.0]),
    "rescaling": ([127.5, 180.0, -2.5], [90.0, 50.0, 5.0]),
}


def zoo_names() -> list[Any]:
    """All names as a test's parameters, most of them marked slow."""
    import pytest

    return [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in ZOO]


@cache
def zoo_model(name: str) -> Any:
    """The model of this name, built once per process; do not change it."""
    return ZOO[name]()


def saved_in_both_formats(folder: Path) -> Path:
    """The folder, with `m.keras` and `m.h5` of one small model of layers "l" and "d"."""
    import keras

    keras.utils.set_random_seed(1)
    L = keras.layers
    model = keras.Sequential([keras.Input((None, 2)), L.LSTM(4, return_sequences=True, name="l"), L.Dense(1, name="d")])
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    return folder


def zoo_inputs(name: str, steps: int, seed: int) -> np.ndarray:
    """A sequence (steps, features) float32 for a model of the zoo: noise, drifts, plateaus and bursts, and masked
    timesteps where it masks."""
    rng = np.random.default_rng(seed)
    features = zoo_model(name).inputs[0].shape[-1]
    noise = rng.standard_normal((steps, features))
    plateaus = np.repeat(rng.normal(0, 1.5, (steps // 20 + 1, features)), 20, axis=0)[:steps]
    waves = np.sin(np.arange(steps)[:, None] * rng.uniform(0.01, 0.5, features) + rng.uniform(0, 6, features))
    strength = np.repeat(rng.choice([0.1, 0.7, 1.5], (steps // 30 + 1, 1)), 30, axis=0)[:steps]
    x = strength * (0.5 * noise + plateaus + waves)
    mean, deviation = RAW_SCALE.get(name, (0.0, 1.0))
    x = x * deviation + mean
    if name in MASK_VALUE:
        x[rng.random(steps) < 0.15] = MASK_VALUE[name]
        x[:2] = MASK_VALUE[name]
    return x.astype(np.float32)


def with_large_weights(model: Any, gain: float = 3.0, recurrent: float = 0.8) -> Any:
    """Give a model weights that saturate its gates, the same every time.

    Args:
        model: a built `keras.Model`, changed in place.
        gain: of the kernels of recurrent layers; 1 would keep the variance of independent inputs.
        recurrent: of their recurrent kernels, below 1 so that rounding errors die out instead of growing.
    """
    rng = np.random.default_rng(2024)
    variables = {variable.path: variable for variable in model.weights}
    for path, variable in variables.items():
        shape, (owner, _, kind) = variable.shape, path.rpartition("/")
        in_rnn = f"{owner}/recurrent_kernel" in variables
        if kind == "kernel":
            value = rng.normal(0, (gain if in_rnn else 1.5) / np.sqrt(shape[0]), shape)
        elif kind == "recurrent_kernel":
            value = recurrent * _orthogonal(rng, *shape)
        elif kind == "bias":
            value = rng.normal(0, gain / 2 if in_rnn else 0.5, shape)
        elif kind in ("gamma", "moving_variance"):
            value = rng.uniform(0.2, 2, shape)
        elif kind in ("beta", "moving_mean"):
            value = rng.normal(0, 0.5, shape)
        elif kind == "alpha":
            value = rng.uniform(0.05, 0.5, shape)
        else:
            continue
        variable.assign(value)
    return model


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return np.concatenate([np.linalg.qr(rng.normal(size=(rows, rows)))[0] for _ in range(columns // rows)], axis=1)


def _zoo(features: int = 3, gain: float = 3.0, recurrent: float = 0.8) -> Callable[[Callable[..., Any]], Any]:
    """Register a builder `(keras, keras.layers) → layers or a model` under its own name."""

    def register(builder: Callable[..., Any]) -> Callable[..., Any]:
        def build() -> Any:
            import keras

            keras.utils.set_random_seed(2024)
            made = builder(keras, keras.layers)
            if isinstance(made, list):
                made = keras.Sequential([keras.Input((None, features)), *made])
            return with_large_weights(made, gain, recurrent)

        ZOO[builder.__name__] = build
        return builder

    return register


# ---- As tutorials on stacked LSTMs write them ----


@_zoo()
def tutorial_last(K, L):
    model = K.Sequential()
    model.add(L.LSTM(1, input_shape=(3, 1)))
    return model


@_zoo()
def tutorial_sequence(K, L):
    model = K.Sequential()
    model.add(L.LSTM(1, return_sequences=True, input_shape=(3, 1)))
    return model


@_zoo()
def tutorial_stacked(K, L):
    model = K.Sequential()
    model.add(L.LSTM(10, return_sequences=True, input_shape=(3, 1)))
    model.add(L.LSTM(10))
    model.add(L.Dense(1))
    return model


@_zoo()
def tutorial_deep(K, L):
    model = K.Sequential()
    model.add(L.LSTM(units=30, return_sequences=True, input_shape=(60, 1)))
    model.add(L.Dropout(0.2))
    model.add(L.LSTM(units=30, return_sequences=True))
    model.add(L.Dropout(0.2))
    model.add(L.LSTM(units=30, return_sequences=True))
    model.add(L.Dropout(0.2))
    model.add(L.LSTM(units=30))
    model.add(L.Dropout(0.2))
    model.add(L.Dense(units=1))
    return model


# ---- Recurrent layers ----


@_zoo(features=16)
def wide(K, L):
    return [L.LSTM(64, return_sequences=True), L.LSTM(64, return_sequences=True), L.Dense(8)]


@_zoo(gain=1.5)
def wide_cells(K, L):
    """All their matrices are large enough to be integer."""
    return [
        L.GRU(32, return_sequences=True),
        L.GRU(32, return_sequences=True),
        L.GRU(24, reset_after=False, return_sequences=True),
        L.SimpleRNN(32, return_sequences=True),
        L.Dense(2),
    ]


@_zoo(gain=1.5)
def wide_masking(K, L):
    masks = [L.Masking(MASK_VALUE["wide_masking"]), L.LSTM(24, return_sequences=True), L.GRU(32, return_sequences=True)]
    return [*masks, L.SimpleRNN(32), L.Dense(2)]


@_zoo()
def gru(K, L):
    return [L.GRU(12, return_sequences=True), L.GRU(8, return_sequences=True), L.Dense(2)]


@_zoo()
def gru_reset_before(K, L):
    return [L.GRU(12, reset_after=False, return_sequences=True), L.GRU(8, reset_after=False), L.Dense(2)]


@_zoo()
def simple_rnn(K, L):
    return [L.SimpleRNN(12, return_sequences=True), L.SimpleRNN(8, activation="softsign"), L.Dense(2)]


@_zoo()
def cells(K, L):
    inner = L.StackedRNNCells([L.GRUCell(7, reset_after=False), L.SimpleRNNCell(5)])
    return [L.RNN([L.LSTMCell(8), inner], return_sequences=True), L.RNN(L.GRUCell(6)), L.Dense(2)]


@_zoo()
def no_bias(K, L):
    return [
        L.LSTM(8, use_bias=False, return_sequences=True),
        L.GRU(8, use_bias=False, return_sequences=True),
        L.SimpleRNN(8, use_bias=False, return_sequences=True),
        L.Dense(2, use_bias=False),
    ]


@_zoo()
def stateful(K, L):
    return K.Sequential(
        [K.Input((None, 3), batch_size=1), L.LSTM(8, stateful=True, return_sequences=True), L.GRU(6, stateful=True)]
    )


# ---- Ways to build a model ----


@_zoo()
def functional(K, L):
    x = K.Input((None, 3), name="sensor")
    sequence, *_ = L.LSTM(8, return_sequences=True, return_state=True, name="lstm-1")(x)
    last, _ = L.GRU(6, return_state=True)(sequence)
    return K.Model({"sensor": x}, {"y": L.Dense(2, name="head.1")(last)})


@_zoo()
def nested(K, L):
    encoder = K.Sequential([K.Input((None, 3)), L.LSTM(8, return_sequences=True), L.Dropout(0.5)], name="encoder")
    z = K.Input((None, 8))
    middle = K.Model(z, L.GRU(8, return_sequences=True, name="lstm")(z), name="middle")
    return [encoder, middle, K.Sequential([L.LSTM(6), L.Dense(4), K.Sequential([L.Dense(2, "tanh")])])]


@_zoo()
def shared(K, L):
    x = K.Input((None, 8))
    twice = L.LSTM(8, return_sequences=True)
    return K.Model(x, L.Dense(2)(twice(twice(x))))


@_zoo()
def fixed_batch_and_time(K, L):
    lstm = L.LSTM(8, unroll=True, return_sequences=True)
    return K.Sequential([K.Input((4, 3), batch_size=2), lstm, L.TimeDistributed(L.Dense(3))])


@_zoo()
def mixed_float16(K, L):
    policy = {"dtype": "mixed_float16"}
    return [
        L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1, 2, 3], **policy),
        L.LSTM(8, return_sequences=True, **policy),
        L.GRU(8, **policy),
        L.BatchNormalization(**policy),
        L.Dense(2, **policy),
    ]


@_zoo()
def float64(K, L):
    x = K.Input((None, 3), dtype="float64")
    y = L.LSTM(8, return_sequences=True, dtype="float64")(x)
    return K.Model(x, L.Dense(2, dtype="float64")(L.RNN([L.GRUCell(6, dtype="float64")], dtype="float64")(y)))


# ---- Activations ----


@_zoo(gain=2.0, recurrent=0.2)
def activations_of_lstms(K, L):
    return [
        L.LSTM(8, activation="softsign", recurrent_activation="softmax", return_sequences=True),
        L.Rescaling(8.0),
        L.LSTM(8, activation="hard_tanh", recurrent_activation="sparse_sigmoid", return_sequences=True),
        L.LSTM(8, activation="silu", return_sequences=True),
        L.Dense(2),
    ]


@_zoo(gain=2.0, recurrent=0.6)
def activations_of_rnns(K, L):
    return [
        L.GRU(8, activation="elu", recurrent_activation="hard_sigmoid", return_sequences=True),
        L.GRU(8, activation="softmax", reset_after=False, return_sequences=True),
        L.SimpleRNN(8, activation="relu", return_sequences=True),
        L.SimpleRNN(8, activation="gelu", return_sequences=True),
        L.Dense(2),
    ]


@_zoo()
def smooth_activations(K, L):
    names = ("softsign", "exponential", "gelu", "tanh_shrink", "silu", "mish", "softplus", "log_sigmoid", "squareplus")
    return [L.LSTM(8, return_sequences=True), *(L.Dense(8, name) for name in names), L.Dense(2, "log_softmax")]


@_zoo(gain=1.5)
def piecewise_activations(K, L):
    names = (
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "hard_silu",
        "hard_tanh",
        "soft_shrink",
        "sparse_plus",
    )
    return [L.LSTM(8, return_sequences=True), *(L.Dense(8, name) for name in names), L.Dense(2, "sparse_sigmoid")]


@_zoo()
def activation_layers(K, L):
    return [
        L.LSTM(8, return_sequences=True),
        L.Dense(8, activation=L.LeakyReLU(0.1)),
        L.ReLU(max_value=4, negative_slope=0.2),
        L.PReLU(shared_axes=[1]),
        L.LSTM(8),
        L.PReLU(),
        L.Dense(8),
        L.ELU(0.5),
        L.LeakyReLU(),
        L.Activation("swish"),
        L.Dense(3),
        L.Softmax(),
    ]


@_zoo()
def jumps(K, L):
    return [L.LSTM(8, return_sequences=True), L.Dense(8, "hard_shrink"), L.Dense(8), L.ReLU(threshold=1), L.Dense(2)]


# ---- Normalisation, scaling, regularisation, masking ----


@_zoo()
def batch_normalization(K, L):
    return [
        L.BatchNormalization(),
        L.LSTM(8, return_sequences=True),
        L.BatchNormalization(center=False, epsilon=0.01),
        L.TimeDistributed(L.BatchNormalization(scale=False)),
        L.LSTM(8),
        L.BatchNormalization(),
        L.Dense(2),
    ]


@_zoo()
def layer_normalization(K, L):
    return [
        L.LSTM(8, return_sequences=True),
        L.LayerNormalization(),
        L.LSTM(8),
        L.LayerNormalization(center=False, scale=False, epsilon=0.1),
        L.Dense(2),
    ]


@_zoo()
def normalization(K, L):
    mean, deviation = RAW_SCALE["normalization"]
    adapted = L.Normalization()
    adapted.adapt(np.random.default_rng(5).normal(mean, deviation, (4000, 3)).astype(np.float32)[None])
    back = L.Normalization(mean=[20.0, -3.0], variance=[25.0, 0.04], invert=True)
    return [adapted, L.LSTM(8, return_sequences=True), L.Dense(2), back]


@_zoo()
def rescaling(K, L):
    scaled = L.Rescaling([1 / 127.5, 1 / 60, 0.2], offset=[-1, -3.0, 0.5])
    return [scaled, L.LSTM(8), L.Flatten(), L.Dense(2), L.Rescaling(1000.0)]


@_zoo()
def regularised(K, L):
    return [
        L.SpatialDropout1D(0.2),
        L.GaussianNoise(0.1),
        L.LSTM(8, dropout=0.3, recurrent_dropout=0.2, return_sequences=True, kernel_regularizer="l2"),
        L.GaussianDropout(0.2),
        L.AlphaDropout(0.1),
        L.ActivityRegularization(0.01),
        L.Identity(),
        L.GRU(8, dropout=0.3),
        L.Dense(2, kernel_constraint="max_norm"),
    ]


@_zoo()
def masking(K, L):
    inner = K.Sequential([K.Input((None, 8)), L.Dropout(0.1), L.GRU(8, return_sequences=True)])
    return [
        L.Masking(MASK_VALUE["masking"]),
        L.Dense(8, "tanh"),
        L.LSTM(8, return_sequences=True),
        L.BatchNormalization(),
        inner,
        L.RNN([L.SimpleRNNCell(8), L.LSTMCell(6)], return_sequences=True),
        L.TimeDistributed(L.Dense(2)),
    ]


@_zoo()
def masking_last(K, L):
    x = K.Input((None, 3))
    y = L.GRU(8, return_sequences=True)(L.Masking()(L.Dropout(0.2)(x)))
    return K.Model(x, L.Dense(2, "softmax")(L.LSTM(8)(y)))


@_zoo(features=6)
def softmax_classifier(K, L):
    return [L.LSTM(16, return_sequences=True), L.LSTM(16), L.Dense(12, "relu"), L.Dense(5, "softmax")]
