"""Models for the engine's tests: the zoo's, and shapes that fill no block, with goldens from Keras."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from edgelstm.export import read_keras
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime.network import Network
from edgelstm.runtime.parity import TOLERANCES

from tests.zoo import DISCONTINUOUS, ZOO, with_large_weights, zoo_inputs, zoo_model

# Units of the layers, features, outputs: below, at and above what blocks of 8 and 16 hold.
SHAPES = [
    ("LSTM", [1], 1, 1),
    ("LSTM", [7, 8], 2, 3),
    ("LSTM", [9, 15], 5, 1),
    ("LSTM", [16, 17], 16, 8),
    ("LSTM", [24, 25], 17, 9),
    ("LSTM", [31, 33], 33, 16),
    ("LSTM", [100, 61], 3, 17),
    ("LSTM", [32, 32], 8, 4),
    ("GRU", [7, 9], 3, 2),
    ("GRU", [33, 16], 9, 20),
    ("SimpleRNN", [5, 24], 4, 2),
    ("SimpleRNN", [40, 17], 13, 33),
]
# Signal-to-noise ratios that every model must reach.
LEAST = {precision: TOLERANCES[precision] for precision in ("float32", "float16", "int8")}
SHAPE_NAMES = [f"{kind} {features} {' '.join(map(str, units))} {outputs}" for kind, units, features, outputs in SHAPES]
NAMES = [*ZOO, *SHAPE_NAMES]


@cache
def network(name: str) -> Network:
    """By its name."""
    if name in ZOO:
        return read_keras(zoo_model(name))
    import keras

    keras.utils.set_random_seed(2024)
    kind, units, features, outputs = SHAPES[SHAPE_NAMES.index(name)]
    layers = [getattr(keras.layers, kind)(n, return_sequences=True) for n in units]
    model = keras.Sequential([keras.Input((None, features)), *layers, keras.layers.Dense(outputs)])
    return read_keras(with_large_weights(model, 2.0))


def inputs(name: str, steps: int, seed: int = 1) -> np.ndarray:
    """(steps, features) float32."""
    if name in ZOO:
        return zoo_inputs(name, steps, seed)
    rng = np.random.default_rng(seed)
    features = network(name).features
    slow = np.repeat(rng.normal(0, 1, (steps // 25 + 1, features)), 25, axis=0)[:steps]
    return (slow + 0.5 * rng.standard_normal((steps, features))).astype(np.float32)


@cache
def golden(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and what Keras answers."""
    xs = inputs(name, steps)
    return xs, network(name).reference(xs)


def precisions(name: str) -> list[str]:
    """Those that promise anything: where one bit decides over a jump, smaller weights cannot follow."""
    return ["float32"] if name in DISCONTINUOUS else list(LEAST)


@cache
def elm(name: str, precision: str) -> bytes:
    """The model's file."""
    return native_step_file(network(name), precision, {"name": name})


def write(folder: Path, name: str, precision: str, steps: int) -> tuple[Path, Path, str]:
    """What `check_model` takes: a model, its golden vectors, and the least ratio."""
    stem = name.replace(" ", "-")
    model, vectors = folder / f"{stem}.{precision}.elm", folder / f"{stem}.{steps}.golden"
    model.write_bytes(elm(name, precision))
    if not vectors.exists():
        xs, ys = golden(name, steps)
        shape = np.array([steps, xs.shape[1], ys.shape[1]], np.uint32)
        vectors.write_bytes(shape.tobytes() + xs.astype(np.float32).tobytes() + ys.astype(np.float32).tobytes())
    return model, vectors, str(LEAST[precision])
