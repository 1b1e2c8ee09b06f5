"""Reading models of Keras 3: what `Network.step` computes is what Keras computes, and the rest is refused by name."""

from __future__ import annotations

import functools
import json
import zipfile

import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime import InputError, UnsupportedModelError

from tests.export.interpreters import snr_db
from tests.zoo import FEW, ZOO, zoo_inputs, zoo_model, zoo_names

# In half precision Keras's own outputs are coarse.
LEAST_SNR = {"mixed_float16": 35}


def written(network) -> bytes:
    """All that a network is, as bytes."""
    return native_step_file(network, "float32", {"name": network.name})


def outputs_of_keras(model, x: np.ndarray) -> np.ndarray:
    """The whole model, called as users call it: (T, features) → (T or 1, outputs)."""
    import keras

    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()
    batch = np.repeat(x[None], model.inputs[0].shape[0] or 1, axis=0)
    by_name = not isinstance(model, keras.Sequential) and isinstance(model.input, dict)
    y = model({model.inputs[0].name: batch} if by_name else batch, training=False)
    (y,) = keras.tree.flatten(y)
    return np.atleast_2d(np.array(y)[0])


@pytest.mark.parametrize("name", zoo_names())
def test_steps_follow_the_whole_model(name):
    model, network = zoo_model(name), read_keras(zoo_model(name))
    fixed = model.inputs[0].shape[1]
    lengths = (1, 2, 21) if fixed is None else [fixed] * (2 if fixed > 10 else 5)
    wanted, found = [], []
    for seed, length in enumerate(lengths):
        x = zoo_inputs(name, length, seed)
        want = outputs_of_keras(model, x)
        state, ys = network.zero_state(), []
        for row in x:
            y, state = network.step(state, row)
            ys.append(y)
        wanted.append(want)
        found.append(np.array(ys)[-len(want) :])
        assert len(want) == (length if network.return_sequences else 1)
    assert snr_db(np.concatenate(found), np.concatenate(wanted)) >= LEAST_SNR.get(name, 100)


# Those that are built in every way there is; what is in their layers is written in one way.
IN_H5 = ("tutorial_deep", "functional", "nested", "stateful", "normalization")
FILES = [
    *(pytest.param(name, ".keras", marks=() if name in FEW else pytest.mark.slow) for name in ZOO),
    *(pytest.param(name, ".h5", marks=() if name == "nested" else pytest.mark.slow) for name in ZOO),
]


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_files_give_the_same_network(name, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    zoo_model(name).save(path)
    from_file, from_memory = (read_keras(source, name="same") for source in (path, zoo_model(name)))
    assert written(from_file) == written(from_memory)
    assert read_keras(path).name == "model"


@pytest.mark.slow
def test_the_reference_gives_every_prefix():
    """Also of a model that gives its last output only, over more timesteps than it was built for."""
    name = "tutorial_stacked"
    xs = zoo_inputs(name, 14, 9)
    ys = read_keras(zoo_model(name)).reference(xs)
    import keras

    keras.utils.set_random_seed(0)
    free = keras.Sequential([keras.Input((None, 1)), *map(type_and_config, zoo_model(name).layers)])
    free.set_weights(zoo_model(name).get_weights())
    want = np.concatenate([outputs_of_keras(free, xs[: t + 1]) for t in range(len(xs))])
    np.testing.assert_allclose(ys, want, rtol=1e-5, atol=1e-6)


def type_and_config(layer):
    return type(layer).from_config(layer.get_config())


def test_names_of_states_are_identifiers_and_differ():
    states = [f"{s.layer}_{s.kind}" for s in read_keras(zoo_model("functional")).states]
    assert states[:2] == ["lstm_1_h", "lstm_1_c"]
    nested = [layer.name for layer in read_keras(zoo_model("nested")).recurrent_layers]
    assert len(set(nested)) == 3
    assert "lstm" in nested


def test_activations_with_parameters_of_their_own():
    import keras

    keras.utils.set_random_seed(0)
    partial = functools.partial(keras.activations.leaky_relu, negative_slope=0.35)
    model = keras.Sequential(
        [keras.Input((None, 2)), keras.layers.LSTM(4, activation=partial), keras.layers.Dense(3, partial)]
    )
    x = np.random.default_rng(1).standard_normal((9, 2)).astype(np.float32) * 3
    np.testing.assert_allclose(read_keras(model).run(x)[-1:], outputs_of_keras(model, x), rtol=1e-5, atol=1e-6)


# ---- Files that cannot be read ----


def save(tmp_path, suffix=".keras"):
    path = tmp_path / f"model{suffix}"
    zoo_model("tutorial_stacked").save(path)
    return path


def test_no_such_file_and_no_keras_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_keras(tmp_path / "absent.keras")
    (tmp_path / "empty.keras").touch()
    with pytest.raises(InputError, match="is empty"):
        read_keras(tmp_path / "empty.keras")
    (tmp_path / "notes.h5").write_text("not a model")
    with pytest.raises(InputError, match="is not a Keras file"):
        read_keras(tmp_path / "notes.h5")
    with pytest.raises(InputError, match="is a folder"):
        read_keras(tmp_path)
    with pytest.raises(InputError, match=r"keras\.Model, got dict"):
        read_keras({})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.pkl", b"\x80\x04\x95abc", "a pickle"),
        ("model.json", b'{"class_name": "Sequential"}', "no weights"),
        ("model.tflite", b"\x1c\x00\x00\x00TFL3", "already exported"),
    ],
)
def test_files_of_another_kind_say_what_they_are(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=words):
        read_keras(tmp_path / name)


def test_a_saved_model_folder(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match=r"SavedModel.*model\.h5"):
        read_keras(tmp_path)


def test_a_bundle_and_another_zip(tmp_path):
    for name, member, words in [("a.edge", "manifest.json", "already exported"), ("b.zip", "x", "is a zip, but no")]:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, "{}")
        with pytest.raises(InputError, match=words):
            read_keras(tmp_path / name)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_truncated_files(tmp_path, suffix):
    path = save(tmp_path, suffix)
    content = path.read_bytes()
    for length in np.linspace(10, len(content) - 1, 8).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises((InputError, UnsupportedModelError), match=str(path)):
            read_keras(path)


def test_flipped_bits_in_a_keras_file_are_noticed(tmp_path):
    path = save(tmp_path)
    content, before = path.read_bytes(), written(read_keras(path))
    for at in np.random.default_rng(3).integers(0, len(content), 40):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        try:
            network = read_keras(path)
        except (InputError, UnsupportedModelError):
            continue
        assert written(network) == before


def test_a_file_with_the_wrong_suffix_is_read_by_its_content(tmp_path):
    path = save(tmp_path)
    moved = path.rename(tmp_path / "model.h5")
    assert read_keras(moved).outputs == 1


def test_a_custom_layer_in_a_file_is_named(tmp_path):
    path = save(tmp_path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    config["config"]["layers"][1].update(module="mine", class_name="Peephole", registered_name="mine>Peephole")
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(UnsupportedModelError, match=r"custom Peephole.*custom_objects"):
        read_keras(path)


def test_a_lambda_in_a_file_is_not_run(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((None, 3)), keras.layers.Lambda(lambda x: x), keras.layers.LSTM(2)]).save(path)
    with pytest.raises(UnsupportedModelError, match="Lambda"):
        read_keras(path)


def test_weights_that_are_not_finite(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(2, name="broken")])
    weights = model.get_weights()
    weights[0][0, 0] = np.nan
    model.set_weights(weights)
    with pytest.raises(UnsupportedModelError, match=r"broken.*finite"):
        read_keras(model)


def test_a_name_that_tensorflow_does_not_take(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(2, name="Größe 1")])
    with pytest.raises(UnsupportedModelError, match=r"Größe 1.*another name"):
        read_keras(model)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(2, name="_1-a.b>c"), keras.layers.Dense(1)])
    assert export(model, tmp_path / "x.edge", ["onnx"]).manifest.artifacts
