"""Nineteen models in int8 and int16x8 over timesteps that no export has seen, against Keras, with the default leasts.

Four have the layers of RTNeural's examples, nine are of the zoo, four learned from real tables, two have 258 inputs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgelstm.export import read_keras
from edgelstm.export.calibration import record
from edgelstm.export.to_tflite import tflite_step_graph
from edgelstm.runtime.network import Network
from edgelstm.runtime.parity import TOLERANCES, Parity, compare

from tests.export.interpreters import litert_steps
from tests.zoo import MASK_VALUE, zoo_inputs, zoo_model

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / "shared" / "data"
MELBOURNE = Path(__file__).parents[2] / "toolkit" / "demo_data" / "melbourne_min_temperatures.csv"
STEPS = 3000
# Cells whose states have no bound: beyond what calibration saw of them they are clipped, at any margin.
UNBOUNDED = frozenset({"activations_of_rnns", "activations_of_lstms", "beijing_relu", "relu_258"})


@dataclass(frozen=True, eq=False)
class Case:
    """A Keras model, calibration data (N, T, features), and a sequence (timesteps, features) that is neither."""

    model: Any
    calibration: np.ndarray
    unseen: np.ndarray


STUDY: dict[str, Callable[[], Case]] = {}


def study(builder: Callable[[Any, Any], Case]) -> Callable[[Any, Any], Case]:
    """Register a builder `(keras, keras.layers) → Case` under its own name."""

    def make() -> Case:
        import keras

        keras.utils.set_random_seed(1)
        return builder(keras, keras.layers)

    STUDY[builder.__name__] = make
    return builder


# ---- As RTNeural's examples: audio, one number a timestep. The stacks are as wide as a guitar amplifier's ----


def audio(layers: list[Any]) -> Case:
    import keras

    rng = np.random.default_rng(9)
    calibration, unseen = rng.uniform(-1, 1, (10, 200, 1)), rng.uniform(-1, 1, (STEPS, 1))
    model = keras.Sequential([keras.Input((None, 1)), *layers])
    return Case(model, calibration.astype(np.float32), unseen.astype(np.float32))


def recurrent(layer: Any, units: int) -> Any:
    # The initialisers that RTNeural's examples have.
    return layer(units, return_sequences=True, recurrent_initializer="orthogonal", bias_initializer="random_normal")


@study
def audio_lstm(K, L) -> Case:
    return audio([recurrent(L.LSTM, 8), L.Dense(1, kernel_initializer="orthogonal")])


@study
def audio_gru(K, L) -> Case:
    return audio([recurrent(L.GRU, 8), L.Dense(8, "sigmoid"), L.Dense(1, kernel_initializer="orthogonal")])


@study
def audio_lstm_stack(K, L) -> Case:
    return audio([L.Dense(8, "tanh", bias_initializer="random_normal"), recurrent(L.LSTM, 40), L.Dense(1)])


@study
def audio_gru_stack(K, L) -> Case:
    front = L.Dense(8, "tanh", bias_initializer="random_normal")
    return audio([front, recurrent(L.GRU, 40), L.Dense(8, "relu"), L.Dense(1)])


# ---- Of the zoo: weights that saturate gates ----


def of_the_zoo(name: str) -> Callable[[], Case]:
    def make() -> Case:
        calibration = np.stack([zoo_inputs(name, 400, 100 + i) for i in range(8)])
        return Case(zoo_model(name), calibration, zoo_inputs(name, STEPS, 1))

    return make


for chosen in (
    *("tutorial_stacked", "wide", "gru", "gru_reset_before", "activations_of_rnns", "masking", "masking_last"),
    *("softmax_classifier", "activations_of_lstms"),
):
    STUDY[chosen] = of_the_zoo(chosen)


# ---- Learned from tables; where one is not beside the repository, from one that is made up ----


def standardised(rows: np.ndarray) -> np.ndarray:
    return ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)


def smooth(steps: int, features: int, seed: int) -> np.ndarray:
    """Noise, each feature with a memory of its own: (steps, features), variance 1."""
    rng = np.random.default_rng(seed)
    keep, noise = rng.uniform(0, 0.95, features), rng.standard_normal((steps, features))
    rows = np.zeros((steps, features))
    for t in range(1, steps):
        rows[t] = keep * rows[t - 1] + np.sqrt(1 - keep**2) * noise[t]
    return rows.astype(np.float32)


@cache
def beijing_table() -> np.ndarray:
    """Hourly PM2.5 and weather: (20000, 5)."""
    path, names = DATA / "beijing_pm25.csv", ("pm2.5", "DEWP", "TEMP", "PRES", "Iws")
    if not path.exists():
        return standardised(np.exp(smooth(20_000, 5, 2) * [1, 0.3, 0.3, 0.01, 1.5]))
    with path.open() as file:
        rows = [[row[name] for name in names] for row in csv.DictReader(file)][24:20_024]
    return standardised(np.array([[0.0 if cell == "NA" else float(cell) for cell in row] for row in rows]))


def fitted(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, rate: float, loss: str = "mse") -> Any:
    import keras

    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


def forecaster(rows: np.ndarray, layers: list[Any], steps: int, stride: int, epochs: int, rate: float) -> Any:
    """A model that learned the next value of the first column."""
    import keras

    starts = range(0, len(rows) - steps - 1, stride)
    x = np.stack([rows[i : i + steps] for i in starts])
    y = np.stack([rows[i + 1 : i + 1 + steps, :1] for i in starts])
    return fitted(keras.Sequential([keras.Input((None, rows.shape[1])), *layers]), x, y, epochs, rate)


@study
def beijing(K, L) -> Case:
    rows = beijing_table()
    layers = [L.LSTM(32, return_sequences=True), L.LSTM(16, return_sequences=True), L.Dense(1)]
    return Case(forecaster(rows[:16_000], layers, 48, 16, 3, 5e-3), rows[None, :8000], rows[16_500 : 16_500 + STEPS])


@study
def beijing_relu(K, L) -> Case:
    rows = beijing_table()
    # Its states have no bound; with larger recurrent weights they would grow without end over the calibration data.
    small = K.constraints.MaxNorm(0.4)
    layers = [L.LSTM(n, activation="relu", recurrent_constraint=small, return_sequences=True) for n in (32, 16)]
    model = forecaster(rows[:16_000], [*layers, L.Dense(1)], 48, 16, 3, 2e-3)
    return Case(model, rows[None, :8000], rows[16_500 : 16_500 + STEPS])


@study
def melbourne(K, L) -> Case:
    with MELBOURNE.open() as file:
        rows = standardised(np.array([[float(row["Temp"])] for row in csv.DictReader(file)]))
    layers = [L.GRU(24, return_sequences=True), L.Dense(1)]
    return Case(forecaster(rows[:2600], layers, 40, 4, 8, 5e-3), rows[None, :2600], rows[-STEPS:])


@cache
def movements() -> tuple[list[np.ndarray], np.ndarray]:
    """Strength of four radio signals, sequences (T, 4), and whether somebody changed rooms: (sequences,)."""
    path = DATA / "indoor_movement.csv"
    if not path.exists():
        rng = np.random.default_rng(3)
        labels = rng.integers(0, 2, 314)
        drift = np.linspace(0, 0.6, 42)[:, None]
        rows = [np.tanh(0.4 * smooth(42, 4, i) + drift * label) for i, label in enumerate(labels)]
        return [each.astype(np.float32) for each in rows], labels
    found: dict[str, list[list[float]]] = {}
    changed: dict[str, int] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            found.setdefault(row["sequence"], []).append([float(row[f"rss{i}"]) for i in range(1, 5)])
            changed[row["sequence"]] = int(row["label"] == "changed_room")
    return [np.array(rows, np.float32) for rows in found.values()], np.array(list(changed.values()))


@study
def indoor(K, L) -> Case:
    sequences, labels = movements()
    order = np.random.default_rng(0).permutation(len(sequences))
    sequences, labels = [sequences[i] for i in order], labels[order]
    longest = max(map(len, sequences))
    x = np.stack([np.pad(rows, ((longest - len(rows), 0), (0, 0))) for rows in sequences])
    y = np.repeat(np.eye(2)[labels][:, None], longest, 1)
    layers = [L.LSTM(16, return_sequences=True), L.LSTM(16, return_sequences=True), L.Dense(2, "softmax")]
    model = K.Sequential([K.Input((None, 4)), *layers])
    fitted(model, x[:220], y[:220], 8, 5e-3, "categorical_crossentropy")
    stream = np.concatenate(sequences)
    return Case(model, stream[None, :8000], stream[-STEPS:])


# ---- 258 inputs, of the size of a spectrum ----


@study
def wide_258(K, L) -> Case:
    size = np.random.default_rng(7).lognormal(0, 1.5, 258).astype(np.float32)
    layers = [L.LSTM(units, return_sequences=True) for units in (64, 128, 64)]
    heads = [L.Dense(32, "relu"), L.Dense(10, "softmax")]
    model = K.Sequential([K.Input((None, 258)), L.BatchNormalization(), *layers, *heads])
    gamma, beta, mean, _ = model.layers[0].get_weights()
    model.layers[0].set_weights([gamma, beta, mean, size**2])
    return Case(model, smooth(STEPS, 258, 3)[None] * size, smooth(STEPS, 258, 4) * size)


@study
def relu_258(K, L) -> Case:
    size = np.random.default_rng(7).uniform(0.2, 1, 258).astype(np.float32)
    layers = [L.LSTM(units, activation="relu", return_sequences=True) for units in (64, 32)]
    model = K.Sequential([K.Input((None, 258)), *layers, L.Dense(16, "relu"), L.Dense(5, "softmax")])
    return Case(model, smooth(STEPS, 258, 3)[None] * size, smooth(STEPS, 258, 4) * size)


# ---- What each must reach ----


@cache
def case(name: str) -> tuple[Network, Case]:
    made = STUDY[name]()
    return read_keras(made.model, name=name), made


def parities(network: Network, calibration: np.ndarray, xs: np.ndarray) -> dict[str, Parity]:
    """That of each integer precision's own answers with Keras's."""
    recorded, want = record(network, calibration), network.reference(xs)
    return {
        precision: compare(litert_steps(tflite_step_graph(network, precision, {}, recorded), xs), want)
        for precision in ("int8", "int16x8")
    }


def test_there_are_nineteen():
    assert len(STUDY) == 19


@pytest.mark.parametrize("name", STUDY)
def test_unseen_timesteps(name):
    network, made = case(name)
    assert len(made.unseen) == STEPS
    for precision, parity in parities(network, made.calibration, made.unseen).items():
        assert parity.snr_db >= TOLERANCES[precision], precision
        assert parity.worst_output_snr_db >= TOLERANCES[precision] - 10, precision


@pytest.mark.parametrize("name", [name for name in STUDY if name not in UNBOUNDED])
def test_calibration_that_saw_too_little(name):
    """Inputs twice as large as in calibration, and a calibration of 60 timesteps."""
    network, made = case(name)
    xs = made.unseen[:1000]
    doubled = np.where(xs == MASK_VALUE[name], xs, 2 * xs) if name in MASK_VALUE else 2 * xs
    for precision, parity in parities(network, made.calibration, doubled).items():
        assert parity.snr_db >= 35, precision
    for precision, parity in parities(network, made.calibration[:1, :60], xs).items():
        assert parity.snr_db >= 35, precision
