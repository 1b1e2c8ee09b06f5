"""Files and folders that hold no whole model: what they are is said, the same everywhere, and the remedy works."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from edgelstm.export import export, read_keras
from edgelstm.runtime import InputError, UnsupportedModelError
from edgelstm.toolkit.cli import main

from tests.export.interpreters import snr_db
from tests.export.test_keras2 import FOLDER
from tests.zoo import zoo_inputs, zoo_model

NAME = "tutorial_stacked"
Write = Callable[[Path], Path]
CASES: dict[str, tuple[Write, tuple[str, ...], Callable[[Path, Path], Any]]] = {}


def model() -> Any:
    return zoo_model(NAME)


def again() -> Any:
    """The same layers with weights of their own."""
    import keras

    return keras.models.model_from_json(model().to_json())


def same(source: Any) -> None:
    """Reads, and streams what Keras gives for the model."""
    x = zoo_inputs(NAME, 3, 1)
    assert snr_db(read_keras(source).run(x)[-1:], np.asarray(model()(x[None]))) >= 100


def saved(source: Any, folder: Path) -> Path:
    source.save(folder / "saved_again.keras")
    return folder / "saved_again.keras"


def case(*words: str, remedy: Callable[[Path, Path], Any]) -> Callable[[Write], Write]:
    """Register a function that writes a file into a folder, words of the error, and (path, folder) → what reads."""

    def register(write: Write) -> Write:
        CASES[write.__name__] = (write, words, remedy)
        return write

    return register


def the_original(path: Path, folder: Path) -> Any:
    return saved(model(), folder)


def rebuilt(path: Path, folder: Path) -> Any:
    built = again()
    built.set_weights(model().get_weights())
    return built


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


# ---- Folders ----


@case("is a SavedModel", "no layers any more", 'model.save("model.h5")', remedy=lambda path, folder: _as_h5(folder))
def saved_model(folder: Path) -> Path:
    made = folder / "saved"
    made.mkdir()
    written(made, "saved_model.pb", b"\x08\x01")
    return made


def _as_h5(folder: Path) -> Path:
    model().save(folder / "model.h5")
    return folder / "model.h5"


@case("is a folder", "best.keras, last.h5", "give the path of one", remedy=lambda path, folder: path / "best.keras")
def checkpoints(folder: Path) -> Path:
    made = folder / "checkpoints"
    made.mkdir()
    model().save(made / "best.keras")
    written(made, "last.h5", b"x")
    return made


@case("contains the SavedModel pump", "no layers", 'model.save("model.h5")', remedy=lambda path, folder: _as_h5(folder))
def folder_with_a_saved_model(folder: Path) -> Path:
    (folder / "models" / "pump").mkdir(parents=True)
    written(folder / "models" / "pump", "saved_model.pb", b"\x08\x01")
    return folder / "models"


@case(
    "a TensorFlow checkpoint", "tf.train.Checkpoint", "model.save", remedy=lambda path, folder: _restored(path, folder)
)
def tensorflow_checkpoint(folder: Path) -> Path:
    import tensorflow as tf

    tf.train.Checkpoint(model=model()).save(folder / "ckpt" / "weights")
    return folder / "ckpt"


def _restored(path: Path, folder: Path) -> Path:
    import tensorflow as tf

    built = again()
    tf.train.Checkpoint(model=built).restore(tf.train.latest_checkpoint(path)).expect_partial()
    return saved(built, folder)


@case("is an EdgeLSTM bundle, already exported", "Keras model that it was made from", remedy=the_original)
def bundle_folder(folder: Path) -> Path:
    (folder / "pump").mkdir()
    written(folder / "pump", "manifest.json", b"{}")
    return folder / "pump"


# ---- Configurations and weights alone ----


@case("no weights", "model_from_json", "model.load_weights", remedy=lambda path, folder: _from_json(path, folder))
def architecture(folder: Path) -> Path:
    model().save_weights(folder / "kept.weights.h5")
    return written(folder, "model.json", model().to_json().encode())


def _from_json(path: Path, folder: Path) -> Path:
    import keras

    built = keras.models.model_from_json(path.read_text())
    built.load_weights(folder / "kept.weights.h5")
    return saved(built, folder)


def _loaded(path: Path, folder: Path) -> Any:
    built = again()
    built.load_weights(path)
    return built


@case("weights only", "model.load_weights(...) and pass the model", remedy=_loaded)
def weights_of_keras_3(folder: Path) -> Path:
    model().save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


def _renamed(name: str) -> Callable[[Path, Path], Any]:
    def remedy(path: Path, folder: Path) -> Any:
        return _loaded(Path(shutil.copy(path, folder / name)), folder)

    return remedy


@case("weights only", 'copy it to "w.weights.h5"', "load_weights", remedy=_renamed("w.weights.h5"))
def weights_of_keras_3_by_another_name(folder: Path) -> Path:
    model().save_weights(folder / "x.weights.h5")
    return (folder / "x.weights.h5").rename(folder / "w.h5")


@case("weights only", "model.load_weights(...) and pass the model", remedy=_loaded)
def weights_of_keras_2(folder: Path) -> Path:
    """The group of weights of a whole `.h5`, which is what Keras 2's save_weights wrote."""
    model().save(folder / "whole.h5")
    with h5py.File(folder / "whole.h5") as whole, h5py.File(folder / "w.h5", "w") as weights:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", weights)
        for key, value in whole["model_weights"].attrs.items():
            weights.attrs[key] = value
    return folder / "w.h5"


@case("weights only", 'copy it to "v.h5"', "load_weights", remedy=_renamed("v.h5"))
def weights_of_keras_2_by_another_name(folder: Path) -> Path:
    return weights_of_keras_2(folder).rename(folder / "v.weights.h5")


@case("without its weights", "model.save", remedy=the_original)
def keras_file_without_weights(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        archive.writestr("config.json", model().to_json())
    return folder / "m.keras"


def _arrays(path: Path, folder: Path) -> Path:
    built = again()
    with np.load(path) as arrays:
        built.set_weights([arrays[name] for name in arrays.files])
    return saved(built, folder)


@case(".npz file of NumPy", "set_weights", "model.save", remedy=_arrays)
def arrays_of_numpy(folder: Path) -> Path:
    np.savez(folder / "weights.npz", *model().get_weights())
    return folder / "weights.npz"


# ---- Other libraries' files ----


@case("RTNeural's JSON", "layer.set_weights", '"weights" of each', remedy=lambda path, folder: _from_rtneural(path))
def rtneural(folder: Path) -> Path:
    """As RTNeural's model_utils write it."""
    layers = [
        {
            "type": type(layer).__name__.lower(),
            "activation": "",
            "shape": [None, None, layer.units],
            "weights": [array.tolist() for array in layer.get_weights()],
        }
        for layer in model().layers
    ]
    return written(folder, "rtneural.json", json.dumps({"in_shape": [None, None, 1], "layers": layers}).encode())


def _from_rtneural(path: Path) -> Any:
    import keras

    described = json.loads(path.read_text())["layers"]
    built = again()
    assert isinstance(built, keras.Sequential)
    for layer, entry in zip(built.layers, described, strict=True):
        layer.set_weights([np.array(array) for array in entry["weights"]])
    return built


@case("a pickle", "any code", "model.save", remedy=lambda path, folder: saved(pickle.loads(path.read_bytes()), folder))
def pickled(folder: Path) -> Path:
    return written(folder, "model.pkl", pickle.dumps(model()))


@case("TFLite file", "already exported", "Keras model that it was made from", remedy=the_original)
def tflite(folder: Path) -> Path:
    return written(folder, "m.tflite", b"\x1c\x00\x00\x00TFL3")


@case("ONNX file", "no layers of Keras", "Keras model that it was made from", remedy=the_original)
def onnx(folder: Path) -> Path:
    from onnx import helper

    graph = helper.make_graph([], "g", [], [])
    return written(folder, "m.bin", helper.make_model(graph, producer_name="onnx-test").SerializeToString())


@case("native file of EdgeLSTM", "already exported", remedy=the_original)
def native(folder: Path) -> Path:
    return written(folder, "m", b"EDGELSTM\x01\x00")


def _zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


@case("a PyTorch file", "copy the weights", remedy=rebuilt)
def pytorch(folder: Path) -> Path:
    return _zip(folder / "m.pt", "archive/data.pkl", "archive/data/0")


@case("a PyTorch file", "copy the weights", remedy=rebuilt)
def old_pytorch(folder: Path) -> Path:
    return written(folder, "m.pth", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")


@case("JSON of a PyTorch model", "copy the weights", remedy=rebuilt)
def guitar_json(folder: Path) -> Path:
    return written(folder, "amp.json", json.dumps({"model_data": {"unit_type": "LSTM"}, "state_dict": {}}).encode())


@case("safetensors", "copy the weights", remedy=rebuilt)
def safetensors(folder: Path) -> Path:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return written(folder, "m.safetensors", len(header).to_bytes(8, "little") + header + bytes(4))


@case("TensorFlow.js", "Keras model that it was made from", remedy=the_original)
def tensorflow_js(folder: Path) -> Path:
    return written(folder, "model.json", b'{"format": "layers-model", "modelTopology": {}}')


@case("a graph of TensorFlow", "no layers", remedy=the_original)
def frozen_graph(folder: Path) -> Path:
    return written(folder, "frozen.pb", b"\x0a\x10")


@case("a pointer of Git LFS", "git lfs pull", remedy=the_original)
def git_lfs(folder: Path) -> Path:
    return written(folder, "m.keras", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


@case("a page of HTML", "download the file itself", remedy=the_original)
def html(folder: Path) -> Path:
    return written(folder, "m.h5", b"<!DOCTYPE html><html>")


@case("is YAML", "no weights", "whole model", remedy=the_original)
def yaml(folder: Path) -> Path:
    return written(folder, "m.yaml", b"backend: tensorflow\nclass_name: Sequential\nconfig:\n  name: s\n")


@case("array of NumPy", "set_weights", remedy=rebuilt)
def array(folder: Path) -> Path:
    np.save(folder / "w.npy", np.zeros(3))
    return folder / "w.npy"


@case("is no Keras model", "model.save", remedy=the_original)
def other_json(folder: Path) -> Path:
    return written(folder, "m.json", b"[1, 2]")


@case("is a zip, but no .keras file", "model.save", remedy=the_original)
def other_zip(folder: Path) -> Path:
    return _zip(folder / "m.zip", "notes.txt")


def _unpacked(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        return Path(archive.extract("best.keras", folder / "unpacked"))


@case("a zip with a Keras file in it", "unpack it", remedy=_unpacked)
def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.zip", "w") as archive:
        archive.write(saved(model(), folder), "best.keras")
    return folder / "m.zip"


@case("is an EdgeLSTM bundle, already exported", remedy=the_original)
def exported(folder: Path) -> Path:
    return export(model(), folder / "m.edge", ["native"]).path


@case("is empty", "model.save", remedy=the_original)
def empty(folder: Path) -> Path:
    return written(folder, "m.keras", b"")


@case("is not a Keras file", "model.save", remedy=the_original)
def text(folder: Path) -> Path:
    return written(folder, "m.h5", b"not a model")


@case("no such file", "a .keras or .h5 file", remedy=the_original)
def absent(folder: Path) -> Path:
    return folder / "absent.keras"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_it_is_and_what_to_do(name, tmp_path, capsys):
    write, words, remedy = CASES[name]
    path = write(tmp_path)
    with pytest.raises((InputError, UnsupportedModelError)) as raised:
        read_keras(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    for word in words:
        assert word in message
    # The command line says the same, whatever is asked of it.
    commands = [["export", str(path), "-o", str(tmp_path / "out.edge")]]
    if name not in ("exported", "bundle_folder", "tflite", "onnx", "native"):  # `inspect` is for these.
        commands.append(["inspect", str(path)])
    for command in commands:
        assert main(command) == 2
        assert f"error: {message}" in capsys.readouterr().err
    same(remedy(path, tmp_path))


@pytest.mark.slow
def test_verify_against_a_file_that_is_no_model(tmp_path, capsys):
    path = saved_model(tmp_path)
    bundle = exported(tmp_path)
    assert main(["verify", str(bundle), "--against", str(path)]) == 2
    assert "is a SavedModel, which has no layers any more" in capsys.readouterr().err


# ---- Whole files that Keras 3 cannot read ----


def edited(folder: Path, edit: Callable[[dict], None]) -> Path:
    """A `.keras` file with another configuration."""
    path = saved(model(), folder)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    edit(config)
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_what_keras_cannot_build_is_built_by_hand(tmp_path):
    path = edited(tmp_path, lambda config: config["config"]["layers"][1]["config"].update(of_a_later_keras=1))
    with pytest.raises(UnsupportedModelError, match=r"cannot rebuild .* model\.load_weights\(\.\.\.\) with this file"):
        read_keras(path)
    same(_loaded(path, tmp_path))


def custom(path: Path) -> Any:
    import keras

    class Peephole(keras.layers.LSTM):
        pass

    return keras.models.load_model(path, custom_objects={"Peephole": Peephole}, compile=False)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [pytest.param(".keras", marks=pytest.mark.slow), ".h5"])
def test_a_custom_layer_is_named_and_can_be_passed(tmp_path, suffix):
    """In an `.h5` too, where a message once said to save the model again."""
    import keras

    class Peephole(keras.layers.LSTM):
        pass

    keras.utils.set_random_seed(0)
    built = keras.Sequential([keras.Input((6, 3)), Peephole(4), keras.layers.Dense(1)])
    path = tmp_path / f"m{suffix}"
    built.save(path)
    with pytest.raises(UnsupportedModelError, match=r"the custom Peephole.*custom_objects"):
        read_keras(path)
    bundle = export(custom(path), tmp_path / "m.edge", ["onnx"], graphs=["sequence"])
    import onnxruntime

    session = onnxruntime.InferenceSession(bundle.read(bundle.manifest.artifacts[0]))
    x = np.random.default_rng(0).standard_normal((1, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], np.asarray(built(x)), atol=1e-5)


def test_keras_1_and_operations_of_keras_2(tmp_path):
    path = _as_h5(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "1.2.2"
    with pytest.raises(UnsupportedModelError, match=r"Keras 1\.2\.2.*build the same layers in Keras 3 and copy"):
        read_keras(path)
    same(rebuilt(path, tmp_path))
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "2.9.0"
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].insert(1, {"class_name": "TFOpLambda", "config": {"name": "times"}})
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(UnsupportedModelError, match=r'"times" \(TFOpLambda\).*express it with a layer of Keras'):
        read_keras(path)


def test_time_major_weights_stay_the_same():
    """What `time_major.h5` needs: built without it, with the weights of the file."""
    import keras

    keras.utils.set_random_seed(13)
    built = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(4, return_sequences=True)])
    built.load_weights(FOLDER / "time_major.h5")
    with h5py.File(FOLDER / "time_major.h5") as file:
        stored: list[np.ndarray] = []
        file.visititems(lambda name, item: stored.append(item[()]) if name.endswith(":0") else None)
    assert {a.shape for a in stored} == {a.shape for a in built.get_weights()}
    x = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    assert snr_db(read_keras(built).run(x), np.asarray(built(x[None]))[0]) >= 100


def test_a_fifo_is_refused_at_once(tmp_path):
    import os

    os.mkfifo(tmp_path / "m.keras")
    with pytest.raises(InputError, match="no regular file"):
        read_keras(tmp_path / "m.keras")
