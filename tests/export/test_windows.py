"""Models trained on windows: the window is known, and a state that cannot be carried past it is not carried."""

from __future__ import annotations

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import Bundle, UnsupportedModelError, load

from tests.export.interpreters import snr_db
from tests.toolkit.conftest import call

WINDOW = 24


def runaway(steps: int | None = WINDOW):
    """A relu cell that doubles its state every few timesteps: fine over a window, beyond float32 over 500."""
    import keras

    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((steps, 1)), keras.layers.LSTM(6, activation="relu"), keras.layers.Dense(1, name="head")]
    )
    rng = np.random.default_rng(3)
    kernel, recurrent, bias = (rng.normal(0, 0.3, w.shape) for w in model.layers[0].get_weights())
    recurrent[:, 12:18] = np.eye(6) * 0.35
    bias[6:12] = 3  # remember
    model.layers[0].set_weights([kernel, recurrent, bias])
    return model


def waves(steps: int) -> np.ndarray:
    return np.sin(np.arange(steps) / 5)[:, None].astype(np.float32)


def test_a_fixed_length_is_the_window():
    import keras

    layers = keras.layers
    assert read_keras(runaway()).window == WINDOW
    assert read_keras(runaway(None)).window is None
    keras.utils.set_random_seed(3)
    stateful = [keras.Input((5, 3), batch_size=1), layers.LSTM(4, stateful=True)]
    assert read_keras(keras.Sequential(stateful)).window is None


def test_the_model_is_one_that_runs_away():
    """What the other tests rest on, by Keras alone."""
    free = runaway(None)
    within, beyond = (np.abs(np.array(free(waves(steps)[None]))).max() for steps in (WINDOW, 600))
    assert within < 1e3
    assert not beyond < 1e12


def test_it_is_proved_and_streamed_within_its_window(tmp_path):
    model, xs = runaway(), waves(400)
    precisions = ["float32", "float16", "dynamic", "int16x8"]
    bundle = export(model, tmp_path / "x.edge", precisions=precisions, calibration=xs)
    assert len(bundle.manifest.artifacts) == 9
    assert (bundle.manifest.window, bundle.manifest.carries_state) == (WINDOW, False)
    golden = bundle.golden()
    assert len(golden.inputs) >= 1000
    assert max(len(sequence) for sequence in golden.sequences()) == WINDOW
    want = np.array(model(np.stack([xs[t - WINDOW : t] for t in range(WINDOW, 200)])))
    for backend in ("tflite", "onnx", "numpy"):
        ys = load(bundle.path, backend).stream(window=WINDOW).run(xs[:199])
        assert snr_db(ys[WINDOW - 1 :], want) >= 100, backend


def test_without_a_window_it_is_refused_with_the_remedy(tmp_path):
    for arguments in ({}, {"precisions": ["int8"], "calibration": waves(400)}):
        with pytest.raises(Exception, match=r"--window T") as raised:
            export(runaway(None), tmp_path / "x.edge", **arguments)
        assert "grow" in str(raised.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnsupportedModelError, match="grow without bound"):
        export(runaway(None), tmp_path / "x.edge")


def test_models_that_carry_their_state_are_proved_over_long_sequences(tmp_path):
    from tests.zoo import zoo_model

    bundle = export(zoo_model("tutorial_stacked"), tmp_path / "x.edge", formats=["onnx"])
    assert (bundle.manifest.window, bundle.manifest.carries_state) == (3, True)
    assert max(len(sequence) for sequence in bundle.golden().sequences()) >= 500


def test_on_the_command_line(tmp_path):
    model, data = tmp_path / "x.keras", tmp_path / "x.csv"
    runaway().save(model)
    np.savetxt(data, waves(700))
    done = call("export", model, "-o", tmp_path / "x.edge")
    assert done.status == 0
    assert f"Stream it with window={WINDOW}" in done.out
    assert Bundle.open(tmp_path / "x.edge").manifest.carries_state is False
    assert "grows without bound past the window" in call("inspect", tmp_path / "x.edge").out
    assert call("verify", tmp_path / "x.edge").status == 0
    done = call("verify", tmp_path / "x.edge", "--against", model, "--data", data, "--steps", 2000)
    assert done.status == 0
    assert f"with a reset every {WINDOW}" in done.out
    state = tmp_path / "state"
    done = call("run", tmp_path / "x.edge", data, "--state", state, "--save-every", 0)
    assert done.status == 2
    assert f"--window {WINDOW}" in done.err.splitlines()[-1]
    assert "nan" not in done.out
    saved = load(tmp_path / "x.edge").stream()
    saved.restore(state.read_bytes())
    assert saved.healthy
    done = call("run", tmp_path / "x.edge", data, "--window", WINDOW)
    assert done.status == 0
    assert len(done.out.splitlines()) == 700
