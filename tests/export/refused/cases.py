"""Models whose state cannot be carried: what the error must say, and its remedies, carried out.

`REFUSED` maps names to cases. A remedy that keeps the weights is a function of the model that shows, against Keras,
that it streams; one that takes training again (`instead`) is a model of the advised kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edgelstm.export import read_keras

from tests.export.interpreters import snr_db


@dataclass
class Case:
    build: Callable[[], Any]
    words: tuple[str, ...]
    remedies: list[Callable[[Any], None]] = field(default_factory=list)


REFUSED: dict[str, Case] = {}
Builder = Callable[..., Any]


def model_of(builder: Builder) -> Any:
    """The model of a builder `(keras, keras.layers) → layers or a model`, of the same weights every time."""
    import keras

    keras.utils.set_random_seed(11)
    made = builder(keras, keras.layers)
    return keras.Sequential([keras.Input((12, 4)), *made]) if isinstance(made, list) else made


def refused(*words: str, instead: Builder | None = None) -> Callable[[Builder], Builder]:
    """Register a builder whose refusal contains these words, and a model of the kind that it advises to train."""

    def register(builder: Builder) -> Builder:
        case = Case(lambda: model_of(builder), words)
        if instead is not None:
            case.remedies.append(lambda model: streams(model_of(instead)))
        REFUSED[builder.__name__] = case
        return builder

    return register


def remedy(of: Builder) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register what an error advises to do with the refused model itself."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        def seeded(model: Any) -> None:
            import keras

            keras.utils.set_random_seed(12)
            function(model)

        REFUSED[of.__name__].remedies.append(seeded)
        return function

    return register


def inputs(features: int, steps: int = 12) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((steps, features)).astype(np.float32)


def outputs_of_keras(model: Any, x: np.ndarray) -> np.ndarray:
    import keras

    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()
    (y,) = keras.tree.flatten(model(np.repeat(x[None], model.inputs[0].shape[0] or 1, 0), training=False))
    return np.asarray(y)[0]


def streams(model: Any, x: np.ndarray | None = None, want: np.ndarray | None = None) -> np.ndarray:
    """Read a model, stream it, and compare with Keras's own call, or with other numbers."""
    if x is None:
        x = inputs(model.inputs[0].shape[-1], model.inputs[0].shape[1] or 9)
    network = read_keras(model)
    want = outputs_of_keras(model, x) if want is None else want
    ys = network.run(x)
    found = ys if network.return_sequences else ys[-1]
    assert snr_db(found.reshape(want.shape), want) >= 100
    return ys


def last(K, L):
    return [L.LSTM(4), L.Dense(1)]


def sequence(K, L):
    return [L.LSTM(4, return_sequences=True), L.Dense(1)]
