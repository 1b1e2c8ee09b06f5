"""Models whose state cannot be carried: each answer is the untouched Keras model on the last T inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgelstm.export import WindowModel, export, read_for_sequences, read_model, read_sequences
from edgelstm.runtime import Bundle, InputError, ParityError, UnsupportedModelError, load

from tests.export.interpreters import snr_db
from tests.toolkit.conftest import call
from tests.zoo import with_large_weights

T = 12
MODELS: dict[str, Callable[..., Any]] = {}
Builder = Callable[..., Any]


def model_of(*shape: int | None, ids: int | None = None) -> Callable[[Builder], Builder]:
    """Register a builder `(keras, keras.layers) → layers or a model` for inputs of a shape."""

    def register(builder: Builder) -> Builder:
        @cache
        def build() -> Any:
            import keras

            keras.utils.set_random_seed(2024)
            made = builder(keras, keras.layers)
            if isinstance(made, list):
                made = keras.Sequential([keras.Input(shape), *made])
            return with_large_weights(made, gain=2.0)

        build.ids = ids
        MODELS[builder.__name__] = build
        return builder

    return register


@model_of(T, 4)
def bidirectional(K, L):
    return [L.Bidirectional(L.LSTM(8), name="both_ways"), L.Dense(2)]


@model_of(T, 3)
def autoencoder(K, L):
    back = [L.LSTM(6, return_sequences=True), L.TimeDistributed(L.Dense(3))]
    return [L.LSTM(8), L.RepeatVector(T), *back]


@model_of(T, ids=40)
def words(K, L):
    return [
        L.Embedding(40, 8, mask_zero=True),
        L.Bidirectional(L.LSTM(6, return_sequences=True)),
        L.GlobalMaxPooling1D(),
        L.Dense(1, "sigmoid"),
    ]


@model_of(T, 4)
def convolution(K, L):
    front = [L.Conv1D(8, 3, activation="relu"), L.MaxPooling1D(2)]
    return [L.Normalization(mean=[5.0, 0, 0, 0], variance=[4.0, 1, 1, 1]), *front, L.LSTM(8), L.Dense(3, "softmax")]


@model_of(T, 3)
def flattened(K, L):
    return [L.LSTM(6, return_sequences=True), L.Flatten(), L.Dense(12), L.Reshape((4, 3))]


@model_of(T, 3)
def attention(K, L):
    x = K.Input((T, 3))
    h = L.LSTM(6, return_sequences=True)(x)
    weights = L.Softmax()(L.Flatten()(L.Dense(1, activation="tanh")(h)))
    weighted = L.Multiply()([h, L.Permute((2, 1))(L.RepeatVector(6)(weights))])
    return K.Model(x, L.Dense(1)(L.Lambda(lambda y: K.ops.sum(y, 1), output_shape=(6,))(weighted)))


@model_of(T)
def flat_window(K, L):
    return [L.Reshape((T, 1)), L.LSTM(6), L.Dense(2)]


@model_of(5, 6, 6, 1)
def frames(K, L):
    see = [L.TimeDistributed(L.Conv2D(3, 3, activation="relu")), L.TimeDistributed(L.Flatten())]
    return [*see, L.LSTM(6), L.Dense(2)]


@model_of(None, 4)
def open_length(K, L):
    x = K.Input((None, 4))
    h = L.LSTM(4, return_sequences=True)(x)
    return K.Model(x, L.Dense(2)(L.Add()([x, h])))


def steps_of(name: str) -> int:
    return MODELS[name]().inputs[0].shape[1] or 7


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Callable[[str], Path]:
    """Each model exported once, in both formats."""
    folder = tmp_path_factory.mktemp("by_window")

    @cache
    def made(name: str) -> Path:
        window = steps_of(name) if name == "open_length" else None
        return export(MODELS[name](), folder / f"{name}.edge", window=window).path

    return made


def rows_for(name: str, steps: int, seed: int = 1) -> np.ndarray:
    """Rows of a stream: (steps, features)."""
    rng = np.random.default_rng(seed)
    ids = MODELS[name].ids
    if ids is not None:
        # Runs of zeros, which are masked.
        return np.where(rng.random((steps, 1)) < 0.2, 0, rng.integers(ids, size=(steps, 1))).astype(np.float32)
    shape = MODELS[name]().inputs[0].shape
    width = int(np.prod(shape[2:])) if len(shape) > 2 else 1
    return (rng.standard_normal((steps, width)) + 5 * (name == "convolution") * (np.arange(width) == 0)).astype("f4")


def keras_on(name: str, xs: np.ndarray, hop: int = 1) -> np.ndarray:
    """Keras itself on every window that comes due."""
    window, shape = steps_of(name), MODELS[name]().inputs[0].shape
    ends = range(window, len(xs) + 1, hop)
    batch = np.stack([xs[end - window : end] for end in ends]).reshape(len(ends), window, *shape[2:])
    return np.asarray(MODELS[name]()(batch, training=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["tflite", "onnx"])
def test_every_window_is_what_keras_gives(name, backend, bundles):
    model, xs = load(bundles(name), backend), rows_for(name, 300)
    want, window = keras_on(name, xs), steps_of(name)
    assert model.streaming.window == window
    assert model.ids == MODELS[name].ids
    for hop in (1, 7, window):
        stream = model.stream(hop=hop)
        found = stream.run(xs)
        assert found.shape == want[::hop].shape
        assert snr_db(found, want[::hop]) >= 100
        # In chunks and after a reset the same, and from the middle of a window and behind it.
        size = {1: 64, 7: 7}.get(hop, 1)
        stream.reset()
        np.testing.assert_array_equal(
            np.concatenate([stream.run(xs[i : i + size]) for i in range(0, 300, size)]), found
        )
        for at in (window // 2, window + 3):
            stream.reset()
            first, other = stream.run(xs[:at]), model.stream(hop=hop)
            other.restore(stream.snapshot())
            both = np.concatenate([first, other.run(xs[at:100])])
            np.testing.assert_array_equal(both, found[: len(range(window, 101, hop))])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("bidirectional", "tflite"), ("autoencoder", "onnx")])
def test_two_thousand_windows(name, backend, bundles):
    xs = rows_for(name, 2000, seed=2)
    found, want = load(bundles(name), backend).stream().run(xs), keras_on(name, xs)
    assert found.shape == want.shape
    assert snr_db(found, want) >= 100
    worst = np.square(found - want).reshape(len(want), -1).sum(1)
    assert (worst <= 1e-8 * np.square(want).reshape(len(want), -1).sum(1).max()).all()


@pytest.mark.slow
def test_the_file_without_this_package(bundles):
    """By LiteRT's own call: a window in, an answer out."""
    from ai_edge_litert.interpreter import Interpreter

    bundle = Bundle.open(bundles("autoencoder"))
    content = bundle.read(next(a for a in bundle.manifest.artifacts if a.format == "tflite"))
    run = Interpreter(model_content=content).get_signature_runner("window")
    xs = rows_for("autoencoder", T)
    assert snr_db(run(x=xs[None])["y"], keras_on("autoencoder", xs)) >= 100


@pytest.mark.slow
def test_precisions(tmp_path):
    import keras

    keras.utils.set_random_seed(5)
    L = keras.layers
    layers = [L.Conv1D(32, 3, padding="same", activation="relu"), L.Bidirectional(L.LSTM(24)), L.Dense(16), L.Dense(2)]
    model = with_large_weights(keras.Sequential([keras.Input((T, 8)), *layers]), gain=1.5)
    data = np.random.default_rng(3).standard_normal((4, 60, 8)).astype(np.float32)
    left: dict[str, str] = {}
    bundle = export(
        model,
        tmp_path / "x.edge",
        precisions=["float32", "float16", "dynamic", "int8"],
        calibration=data,
        left_out=lambda target, reason: left.setdefault(str(target), reason),
    )
    sizes = {a.label.removesuffix(" (window)"): a.size for a in bundle.manifest.artifacts}
    assert set(sizes) == {f"{f} {p}" for f in ("tflite", "onnx") for p in ("float32", "float16", "dynamic")}
    assert sizes["onnx float16"] < 0.7 * sizes["onnx float32"]
    assert sizes["onnx dynamic"] < 0.5 * sizes["onnx float32"]
    assert sizes["tflite float16"] < 0.8 * sizes["tflite float32"]
    assert sizes["tflite dynamic"] < 0.7 * sizes["tflite float32"]
    assert "a loop, and a recurrent layer is one" in left["tflite int8 (window)"]
    xs = data[0]
    want = np.asarray(model(np.stack([xs[t : t + T] for t in range(len(xs) - T + 1)])))
    for format_ in ("tflite", "onnx"):
        for precision, least in (("float32", 100), ("float16", 50), ("dynamic", 28)):
            assert snr_db(load(bundle.path, format_, precision).stream().run(xs), want) >= least, (format_, precision)


@pytest.mark.slow
def test_int8_without_a_loop(tmp_path):
    """TensorFlow finds ranges where no recurrent layer is; without data it cannot."""
    import keras

    keras.utils.set_random_seed(5)
    L = keras.layers
    layers = [L.Conv1D(32, 3, activation="relu"), L.Conv1D(32, 3, activation="relu"), L.Flatten(), L.Dense(4)]
    model = keras.Sequential([keras.Input((T, 8)), *layers])
    data = np.random.default_rng(3).standard_normal((4, 200, 8)).astype(np.float32)
    with pytest.raises(InputError, match="needs calibration data"):
        export(model, tmp_path / "x.edge", ["tflite"], ["int8"])
    export(model, tmp_path / "x.edge", ["tflite"], ["int8"], calibration=data, min_snr=20)
    want = np.asarray(model(np.stack([data[0][t : t + T] for t in range(50)])))
    assert snr_db(load(tmp_path / "x.edge").stream().run(data[0][: T + 49]), want) >= 20
    with pytest.raises(ParityError, match="tflite int8"):
        export(model, tmp_path / "y.edge", ["tflite"], ["int8"], calibration=data, min_snr=90)


@pytest.mark.slow
def test_how_it_is_read():
    found = read_model(MODELS["bidirectional"]())
    assert isinstance(found, WindowModel)
    assert (found.timesteps, found.shape, found.answer) == (T, (4,), (2,))
    assert found.because == (
        'layer "both_ways" (Bidirectional): half of it begins at the end of the sequence, so that no answer is known '
        "before the last timestep"
    )
    shapes = {name: (read_model(build(), window=steps_of(name)).shape) for name, build in MODELS.items()}
    assert shapes["words"] == ()
    assert shapes["flat_window"] == (1,)
    assert shapes["frames"] == (6, 6, 1)
    assert read_model(MODELS["flattened"]()).answer == (4, 3)
    assert read_model(MODELS["words"]()).leading.ids == 40


def test_an_open_number_of_timesteps_needs_the_window(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"joins the outputs .*--window T"):
        export(MODELS["open_length"](), tmp_path / "x.edge")
    for window in (0, -1, 2**40):
        with pytest.raises(InputError, match="window"):
            read_model(MODELS["open_length"](), window=window)
    with pytest.raises(InputError, match="takes 12 timesteps at a time, so its window cannot be of 13"):
        read_model(MODELS["bidirectional"](), window=13)
    with pytest.raises(UnsupportedModelError, match="has 40,000,000 numbers in a window, and 16,777,216 is the most"):
        read_model(MODELS["open_length"](), window=10_000_000)


@pytest.mark.slow
def test_what_it_is_not(tmp_path):
    with pytest.raises(InputError, match=r"cannot be carried, because of layer \"both_ways\""):
        export(MODELS["bidirectional"](), tmp_path / "x.edge", carry=True)
    with pytest.raises(InputError, match=r"streams by window alone, .*tflite: float32, float16, dynamic, int8; onnx"):
        export(MODELS["bidirectional"](), tmp_path / "x.edge", ["native"])
    with pytest.raises(InputError, match="the model's ids, the whole numbers 0 to 39"):
        export(MODELS["words"](), tmp_path / "x.edge", calibration=np.full((20, T), 40))
    for hop in (0, -1, 2**40):
        with pytest.raises(InputError, match="a hop has at least 1 timestep"):
            export(MODELS["bidirectional"](), tmp_path / "x.edge", hop=hop)
    with pytest.raises(InputError, match="was read with a window of 12, not 20"):
        export(read_model(MODELS["bidirectional"]()), tmp_path / "x.edge", window=20)
    for graphs in (["step"], ["step", "sequence"]):
        with pytest.raises(InputError, match=r"was read for sequence graphs alone; .*graphs=\['sequence'\]"):
            export(read_for_sequences(MODELS["bidirectional"]()), tmp_path / "x.edge", graphs=graphs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_ids_of_a_file_are_checked(tmp_path, kind):
    path, fit = tmp_path / f"ids.{kind}", read_model(MODELS["words"]()).calibration
    for last, known in ((39, True), (40, False)):
        np.savetxt(path, [3, last], "%d") if kind == "csv" else np.save(path, [[3, last]])
        if known:
            assert read_sequences(path, 1, fit).tolist() == [[[3], [39]]]
        else:
            with pytest.raises(InputError, match="the model's ids, the whole numbers 0 to 39"):
                read_sequences(path, 1, fit)


def test_a_state_that_goes_on_between_calls_is_no_window(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    inner = keras.layers.LSTM(4, stateful=True)
    model = keras.Sequential(
        [keras.Input((T, 3), batch_size=1), keras.layers.Bidirectional(inner), keras.layers.Dense(1)]
    )
    with pytest.raises(UnsupportedModelError, match=r"stateful, and a window begins from zero.*--window T"):
        read_model(model)
    assert isinstance(read_model(model, window=T), WindowModel)


@pytest.mark.slow
def test_stateful_all_the_same(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    L = keras.layers
    model = keras.Sequential([keras.Input((T, 3), batch_size=1), L.Bidirectional(L.LSTM(4, stateful=True)), L.Dense(1)])
    plain = keras.Sequential([keras.Input((T, 3)), L.Bidirectional(L.LSTM(4)), L.Dense(1)])
    plain.set_weights(model.get_weights())
    export(model, tmp_path / "x.edge", ["tflite"], window=T)
    xs = np.random.default_rng(2).standard_normal((40, 3)).astype(np.float32)
    want = np.asarray(plain(np.stack([xs[t : t + T] for t in range(29)])))
    assert snr_db(load(tmp_path / "x.edge").stream().run(xs), want) >= 100


def test_random_layers_are_refused():
    import keras

    keras.utils.set_random_seed(1)
    x = keras.Input((T, 3))
    y = keras.layers.Bidirectional(keras.layers.LSTM(4))(keras.layers.Dropout(0.5)(x, training=True))
    with pytest.raises(UnsupportedModelError, match="training=True, so its output is random"):
        read_model(keras.Model(x, y))


@pytest.mark.slow
def test_what_mixes_a_batch_is_refused(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    x = keras.Input((T, 3))
    mixed = keras.layers.Lambda(lambda y: y - keras.ops.mean(y, 0, keepdims=True), output_shape=(T, 3))(x)
    with pytest.raises(UnsupportedModelError, match="depends on what else is in its batch"):
        export(keras.Model(x, keras.layers.LSTM(4)(mixed)), tmp_path / "x.edge", ["tflite"])


@pytest.mark.slow
def test_what_no_converter_takes(tmp_path):
    """Keras computes it; the remedy is the other format, which has the operator, or other layers."""
    import keras

    @keras.saving.register_keras_serializable("edgelstm_tests")
    class Determinant(keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.linalg.det(tf.matmul(x, x, transpose_a=True) + tf.eye(3))[:, None]

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((T, 3)), Determinant(), keras.layers.Dense(2)])
    with pytest.raises(UnsupportedModelError, match=r"no window graph can be made of it.*--format tflite,onnx"):
        export(model, tmp_path / "x.edge", ["tflite"])
    left: list[str] = []
    export(model, tmp_path / "x.edge", ["tflite", "onnx"], left_out=lambda target, _: left.append(str(target)))
    assert left == ["tflite float32 (window)"]
    xs = np.random.default_rng(2).standard_normal((T + 3, 3)).astype(np.float32)
    want = np.asarray(model(np.stack([xs[t : t + T] for t in range(4)])))
    assert snr_db(load(tmp_path / "x.edge").stream().run(xs), want) >= 100


@pytest.mark.slow
def test_on_the_command_line(tmp_path):
    name = "autoencoder"
    MODELS[name]().save(tmp_path / "m.keras")
    xs = rows_for(name, 60)
    np.savetxt(tmp_path / "x.csv", xs, delimiter=",")
    done = call("export", tmp_path / "m.keras", "-o", tmp_path / "m.edge", "--format", "tflite,native", "--hop", 5)
    assert done.status == 0, done.err
    assert "left out: native float32" in done.err
    assert (
        f"every 5 timesteps, Keras's answer ({T} rows) on the last {T} timesteps at once, because of layer" in done.out
    )
    assert "(RepeatVector)" in done.out
    want = keras_on(name, xs, 5)
    done = call("run", tmp_path / "m.edge", tmp_path / "x.csv", "--rows", "all")
    found = np.array([[float(cell) for cell in line.split(",")] for line in done.out.splitlines()])
    assert snr_db(found[:, 1:].reshape(want.shape), want) >= 100
    for command in (["inspect", tmp_path / "m.keras"], ["inspect", tmp_path / "m.edge"]):
        shown = call(*command).out
        assert f"on the last {T}" in shown
        assert "(RepeatVector)" in shown
    assert call("verify", tmp_path / "m.edge").status == 0
    done = call(
        "verify", tmp_path / "m.edge", "--against", tmp_path / "m.keras", "--data", tmp_path / "x.csv", "--json"
    )
    assert done.status == 0, done.err
    assert [check["passed"] for check in json.loads(done.out)["checks"]] == [True]
    done = call("bench", tmp_path / "m.edge", "--steps", 200, "--no-start")
    assert done.status == 0, done.err
    assert "tflite float32 (window)" in done.out
    done = call("fit", tmp_path / "m.edge", "--device", "raspberry-pi-4b-64")
    assert done.status == 0, done.err
    done = call("export", tmp_path / "m.keras", "--format", "c")
    assert done.status == 2
    assert "(RepeatVector)" in done.err
    assert "--format tflite,onnx" in done.err
