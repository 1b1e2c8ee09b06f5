"""Models trained on windows: the window is known, and a state that cannot be carried past it is not carried."""

from __future__ import annotations

import re

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import InputError, UnsupportedModelError, load

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


@pytest.mark.slow
def test_the_model_is_one_that_runs_away():
    """What the other tests rest on, by Keras alone."""
    free = runaway(None)
    within, beyond = (np.abs(np.array(free(waves(steps)[None]))).max() for steps in (WINDOW, 600))
    assert within < 1e3
    assert not beyond < 1e12


@pytest.mark.slow
def test_one_that_runs_away_streams_by_window_and_is_proved_so(tmp_path):
    model, xs = runaway(), waves(400)
    precisions = ["float32", "float16", "dynamic", "int16x8"]
    bundle = export(model, tmp_path / "x.edge", precisions=precisions, calibration=xs)
    assert len(bundle.manifest.artifacts) == 9
    streaming = bundle.manifest.streaming
    assert (streaming.mode, streaming.window, streaming.hop, streaming.bounded) == ("window", WINDOW, 1, False)
    assert streaming.carried_snr_db < 0
    golden = bundle.golden()
    assert golden.window.timesteps == WINDOW
    want = on_keras(model, xs[:199])
    for backend in ("native", "tflite", "onnx", "numpy"):
        assert snr_db(load(bundle.path, backend).stream().run(xs[:199]), want) >= 100, backend


@pytest.mark.slow
def test_carried_all_the_same_it_is_proved_within_its_window(tmp_path):
    model, xs = runaway(), waves(400)
    bundle = export(model, tmp_path / "x.edge", formats=["tflite"], calibration=xs, carry=True)
    streaming = bundle.manifest.streaming
    assert (streaming.mode, streaming.window, streaming.bounded) == ("carry", WINDOW, False)
    golden = bundle.golden()
    assert golden.window is None
    assert max(len(sequence) for sequence in golden.sequences()) == WINDOW
    assert load(bundle.path).stream().window is None
    assert snr_db(load(bundle.path).stream(window=WINDOW).run(xs[:199]), on_keras(model, xs[:199])) >= 100


@pytest.mark.slow
def test_without_a_window_it_is_refused_with_the_remedy(tmp_path):
    for arguments in ({}, {"precisions": ["int8"], "calibration": waves(400)}):
        with pytest.raises(Exception, match=r"--window T") as raised:
            export(runaway(None), tmp_path / "x.edge", **arguments)
        assert "grow" in str(raised.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnsupportedModelError, match="grow without bound"):
        export(runaway(None), tmp_path / "x.edge")


def on_keras(model, xs: np.ndarray, window: int = WINDOW, hop: int = 1) -> np.ndarray:
    """Keras itself on every window, the last answer where it gives many."""
    ends = range(window, len(xs) + 1, hop)
    ys = np.array(model(np.stack([xs[end - window : end] for end in ends])))
    return ys[:, -1] if ys.ndim == 3 else ys


@pytest.mark.parametrize(
    ("name", "arguments", "mode", "window", "hop"),
    [
        ("tutorial_stacked", {}, "window", 3, 1),
        pytest.param("tutorial_stacked", {"hop": 2}, "window", 3, 2, marks=pytest.mark.slow),
        pytest.param("tutorial_stacked", {"carry": True}, "carry", 3, 1, marks=pytest.mark.slow),
        pytest.param("tutorial_stacked", {"window": 5}, "window", 5, 1, marks=pytest.mark.slow),
        pytest.param("tutorial_stacked", {"window": 5, "carry": True}, "carry", 5, 1, marks=pytest.mark.slow),
        pytest.param("tutorial_sequence", {}, "carry", 3, 1, marks=pytest.mark.slow),
        pytest.param("tutorial_sequence", {"window": 3, "hop": 3}, "window", 3, 3, marks=pytest.mark.slow),
        pytest.param("gru", {}, "carry", None, 1, marks=pytest.mark.slow),
        pytest.param("gru", {"window": 7, "hop": 2}, "window", 7, 2, marks=pytest.mark.slow),
        pytest.param("masking_last", {"window": 4}, "window", 4, 1, marks=pytest.mark.slow),
    ],
)
def test_what_is_exported_answers_as_keras_does_on_what_it_was_trained_on(tmp_path, name, arguments, mode, window, hop):
    from tests.zoo import zoo_inputs, zoo_model

    model = zoo_model(name)
    bundle = export(model, tmp_path / "x.edge", formats=["tflite"], **arguments)
    streaming = bundle.manifest.streaming
    assert (streaming.mode, streaming.window, streaming.hop) == (mode, window, hop)
    assert (streaming.carried_snr_db is None) == (window is None)
    xs = zoo_inputs(name, 60, 5)
    free = with_free_length(model)
    if mode == "window":
        want = on_keras(free, xs, window, hop)
    else:
        want = np.array(with_free_length(model, answers_at_every_timestep=True)(xs[None]))[0]
    for backend in ("native", "tflite"):
        assert snr_db(load(bundle.path, backend).stream().run(xs), want) >= 100, backend
    if window is not None and mode == "window":
        carried = load(bundle.path).stream(carry=True).run(xs)[window - 1 :: hop]
        assert snr_db(carried, want) < 100


def with_free_length(model, answers_at_every_timestep: bool = False):
    """The same layers and weights on an input of any length; an answer at a timestep is that on all before it."""
    import keras

    config = model.get_config()
    for layer in config["layers"]:
        shape = layer["config"].get("batch_shape")
        if shape:
            layer["config"]["batch_shape"] = (None, None, *shape[2:])
        if answers_at_every_timestep and "return_sequences" in layer["config"]:
            layer["config"]["return_sequences"] = True
    config.pop("build_input_shape", None)
    free = type(model).from_config(config)
    if not free.built:
        free.build((None, None, model.inputs[0].shape[-1]))
    free.set_weights(model.get_weights())
    assert isinstance(free, keras.Model)
    return free


@pytest.mark.slow
def test_the_distance_is_that_of_keras_from_itself(tmp_path):
    """A long memory, and windows shorter than it: what carrying changes is told as it is."""
    import keras

    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.LSTM(8), keras.layers.Dense(1)])
    bundle = export(model, tmp_path / "x.edge", formats=["native"])
    xs = next(bundle.golden().sequences())
    carried = np.array(with_free_length(model, answers_at_every_timestep=True)(xs[None]))[0, 3:]
    assert bundle.manifest.streaming.carried_snr_db == pytest.approx(snr_db(carried, on_keras(model, xs, 4)), abs=0.1)


@pytest.mark.slow
def test_a_vector_that_the_model_makes_a_sequence_is_a_vector(tmp_path):
    """A Reshape behind the last Dense layer: the numbers side by side, in their order."""
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6, 2)), layers.LSTM(5), layers.Dense(12), layers.Reshape((4, 3))])
    export(model, tmp_path / "x.edge", ["native", "tflite"])
    xs = np.random.default_rng(6).standard_normal((20, 2)).astype(np.float32)
    want = np.array(model(np.stack([xs[t : t + 6] for t in range(15)])))
    for backend in ("native", "tflite"):
        assert snr_db(load(tmp_path / "x.edge", backend).stream().run(xs).reshape(want.shape), want) >= 100


@pytest.mark.slow
def test_a_model_of_one_timestep_has_no_memory(tmp_path):
    import keras

    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((1, 2)), keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(1)])
    model.save(tmp_path / "one.keras")
    done = call("export", tmp_path / "one.keras", "-o", tmp_path / "one.edge", "--format", "native")
    assert done.status == 0
    assert "it has no memory" in done.out
    xs = np.random.default_rng(6).standard_normal((20, 2)).astype(np.float32)
    want = np.array(model(xs[:, None]))[:, 0]
    assert snr_db(load(tmp_path / "one.edge").stream().run(xs), want) >= 100
    done = call("export", tmp_path / "one.keras", "-o", tmp_path / "carried.edge", "--format", "native", "--carry")
    assert "carried on for ever" in done.out
    assert (
        snr_db(load(tmp_path / "carried.edge").stream().run(xs), np.array(with_free_length(model)(xs[None]))[0]) >= 100
    )


def test_a_hop_needs_a_window(tmp_path):
    import keras

    keras.utils.set_random_seed(6)
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(4)])
    for arguments in ({"hop": 2}, {"hop": 2, "carry": True}):
        with pytest.raises(InputError, match="a hop goes with a window"):
            export(model, tmp_path / "x.edge", **arguments)
    export(model, tmp_path / "x.edge", formats=["native"], window=4, hop=2)


@pytest.mark.slow
def test_on_the_command_line(tmp_path):
    model, data = tmp_path / "x.keras", tmp_path / "x.csv"
    runaway().save(model)
    np.savetxt(data, waves(700))
    done = call("export", model, "-o", tmp_path / "x.edge", "--format", "native")
    assert done.status == 0
    assert f"streams by window: each timestep, Keras's answer on the last {WINDOW} timesteps" in done.out
    assert "grows without bound" in done.out
    assert re.search(r"carrying the state would answer differently: (-\d+ dB|the two have nothing in common)", done.out)
    assert f"on the last {WINDOW}" in call("inspect", tmp_path / "x.edge").out
    assert call("verify", tmp_path / "x.edge").status == 0
    done = call("verify", tmp_path / "x.edge", "--against", model, "--data", data, "--steps", 2000)
    assert done.status == 0
    assert f"by windows of {WINDOW}" in done.out
    done = call("run", tmp_path / "x.edge", data)
    assert done.status == 0
    want = on_keras(runaway(), waves(700))
    got = np.array([[float(line)] for line in done.out.splitlines()])
    assert got.shape == want.shape == (700 - WINDOW + 1, 1)
    assert snr_db(got, want) >= 100
    hops = call("run", tmp_path / "x.edge", data, "--hop", 10).out.splitlines()
    assert hops == done.out.splitlines()[::10]
    partial = call("run", tmp_path / "x.edge", data, "--partial").out.splitlines()
    assert len(partial) == 700
    assert partial[WINDOW - 1 :] == done.out.splitlines()


@pytest.mark.slow
def test_carried_on_the_command_line_it_stops_before_it_prints_nonsense(tmp_path):
    model, data, state = tmp_path / "x.keras", tmp_path / "x.csv", tmp_path / "state"
    runaway().save(model)
    np.savetxt(data, waves(700))
    assert call("export", model, "-o", tmp_path / "x.edge", "--format", "native", "--carry").status == 0
    done = call("run", tmp_path / "x.edge", data, "--state", state, "--save-every", 0)
    assert done.status == 2
    assert f"--window {WINDOW}" in done.err.splitlines()[-1]
    assert "nan" not in done.out
    saved = load(tmp_path / "x.edge").stream()
    saved.restore(state.read_bytes())
    assert saved.healthy
    assert call("run", tmp_path / "x.edge", data, "--window", WINDOW).status == 0


@pytest.mark.slow
def test_a_state_goes_on_in_the_middle_of_a_window(tmp_path):
    model, state = tmp_path / "x.keras", tmp_path / "state"
    runaway().save(model)
    xs = waves(100)
    call("export", model, "-o", tmp_path / "x.edge", "--format", "native", "--hop", 5)
    lines = []
    for part in np.split(xs, [10, 31, 60]):
        np.savetxt(tmp_path / "part.csv", part)
        done = call("run", tmp_path / "x.edge", tmp_path / "part.csv", "--state", state)
        assert done.status == 0, done.err
        lines += done.out.splitlines()
    got = np.array([[float(line)] for line in lines])
    assert snr_db(got, on_keras(runaway(), xs, hop=5)) >= 100
