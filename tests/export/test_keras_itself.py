"""What Keras itself cannot compute, or computes in a way that cannot be followed: said so, with remedies that work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import UnsupportedModelError, load

from tests.export.interpreters import snr_db


def huge(kind: str, steps: int | None = 12, head: float = 3e38) -> Any:
    """A model whose head overflows float32, though each of its weights is finite."""
    import keras

    keras.utils.set_random_seed(1)
    constant = keras.initializers.Constant(head)
    inner = keras.layers.LSTM(4, return_sequences=True, bias_initializer="ones")
    layer = keras.layers.Bidirectional(inner) if kind == "both ways" else inner
    last = keras.layers.Dense(2, kernel_initializer=constant, bias_initializer=constant)
    return keras.Sequential([keras.Input((steps, 4)), layer, last])


def with_own_call(call: Callable[[Callable[[Any], Any], Any], Any]) -> Any:
    """A model whose head does in Python what Keras's own does not."""
    import keras

    keras.utils.set_random_seed(1)
    head = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((12, 4)), keras.layers.LSTM(4, return_sequences=True), head])
    own = head.call
    head.call = lambda x, training=None: call(own, x)
    return model


def refusal(model: Any, path: Path, formats: tuple[str, ...] = ("tflite",), **options: Any) -> str:
    with pytest.raises(UnsupportedModelError) as raised:
        export(model, path, formats, **options)
    assert not path.exists()
    assert "\x1b" not in str(raised.value)
    return str(raised.value)


def by_window(model: Any, path: Path, because: str) -> None:
    """It streams as Keras calls it, on twelve timesteps, and says why."""
    bundle = export(model, path, ["tflite"])
    assert because in bundle.manifest.streaming.whole.because
    x = np.random.default_rng(2).standard_normal((14, 4)).astype(np.float32)
    found = load(path).stream().run(x)
    assert snr_db(found, np.asarray(model(np.stack([x[t : t + 12] for t in range(3)])))) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"carry": True}, {"window": 12}], ids=str)
def test_outputs_beyond_float32(options, tmp_path):
    """The remedy is other weights."""
    message = refusal(huge("one way"), tmp_path / "x.edge", ("native",), **options)
    assert "not finite" in message
    assert "weights" in message
    assert export(huge("one way", head=3.0), tmp_path / "x.edge", ["native"], **options).manifest.artifacts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one way", "both ways"])
def test_outputs_beyond_float32_of_sequences(kind, tmp_path):
    message = refusal(huge(kind), tmp_path / "x.edge", graphs=["sequence"])
    assert "not finite; check its weights" in message
    export(huge(kind, head=3.0), tmp_path / "x.edge", ["tflite"], graphs=["sequence"])


@pytest.mark.slow
def test_a_layer_that_takes_whole_sequences_only(tmp_path):
    def whole(own: Callable[[Any], Any], x: Any) -> Any:
        if x.shape[1] != 12:
            raise ValueError("twelve timesteps, please")
        return own(x)

    by_window(with_own_call(whole), tmp_path / "x.edge", "twelve timesteps, please")


@pytest.mark.slow
def test_a_layer_that_answers_by_the_length(tmp_path):
    def by_length(own: Callable[[Any], Any], x: Any) -> Any:
        return own(x) * float(x.shape[1] or 3)

    by_window(with_own_call(by_length), tmp_path / "x.edge", "do not give what the whole model gives")


@pytest.mark.slow
def test_what_keras_cannot_call(tmp_path):
    def never(own: Callable[[Any], Any], x: Any) -> Any:
        raise ValueError("never")

    assert "never" in refusal(with_own_call(never), tmp_path / "x.edge")
    message = refusal(with_own_call(never), tmp_path / "x.edge", graphs=["sequence"])
    assert "Keras itself cannot call it" in message
    assert "never" in message
    model = huge("one way", head=1.0)
    model.call = lambda *_, **__: never(lambda x: x, None)
    with pytest.raises(UnsupportedModelError, match=r"Keras itself cannot call it .*never"):
        read_keras(model).reference(np.zeros((12, 4), np.float32))


@pytest.mark.slow
def test_outputs_of_a_width_that_nobody_knows(tmp_path):
    def transposed(steps: int | None) -> Any:
        import keras

        keras.utils.set_random_seed(1)
        recurrent = keras.layers.LSTM(4, return_sequences=True)
        return keras.Sequential([keras.Input((steps, 4)), recurrent, keras.layers.Permute((2, 1))])

    message = refusal(transposed(None), tmp_path / "x.edge", graphs=["sequence"])
    assert "fixed number of timesteps (Input((T, features)))" in message
    by_window(transposed(12), tmp_path / "x.edge", "exchanges timesteps and features")
