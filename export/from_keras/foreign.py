"""What a file or folder that is no whole Keras model is, and what to do about it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from ...runtime.errors import InputError, UnsupportedModelError

SAVE = 'save the whole model with model.save("model.keras")'
_PASS_KERAS = "pass the Keras model that it was made from"
_REBUILD = "build the same layers in Keras, copy the weights, and pass that model"
_HEAD = 4096
_NO_LAYERS = (
    'which has no layers any more; where the model was trained, save it with model.save("model.h5") and pass that file'
)


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a SavedModel of TensorFlow."""
    return (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file()


def refused_folder(path: Path) -> InputError | UnsupportedModelError:
    """The error for a folder."""
    if is_saved_model(path):
        return UnsupportedModelError(f"{path}: is a SavedModel, {_NO_LAYERS}")
    if (path / "manifest.json").is_file():
        return InputError(f"{path}: is an EdgeLSTM bundle, already exported; {_PASS_KERAS}")
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        return InputError(f"{path}: cannot be read ({error.strerror})")
    files = [p.name for p in inside if p.suffix in (".keras", ".h5", ".hdf5")]
    if files:
        listed = ", ".join(files[:10]) + (f" and {len(files) - 10} more" if len(files) > 10 else "")
        return InputError(f"{path}: is a folder; it contains {listed}; give the path of one, such as {path / files[0]}")
    models = [p.name for p in inside if p.is_dir() and is_saved_model(p)]
    if models:
        return InputError(f"{path}: is a folder; it contains the SavedModel {models[0]}, {_NO_LAYERS}")
    if any(p.suffix == ".index" or p.name == "checkpoint" for p in inside):
        return UnsupportedModelError(f"{path}: is a folder with {_CHECKPOINT}")
    return InputError(f"{path}: is a folder; give the path of a .keras or .h5 file")


_CHECKPOINT = (
    "a TensorFlow checkpoint, which has weights and no layers; build the model in Python, restore it there "
    f"(tf.train.Checkpoint), and {SAVE}"
)


def refused_file(path: Path) -> InputError | UnsupportedModelError:
    """The error for a file that is neither a zip nor HDF5 by its first bytes."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return InputError(f"{path}: is empty; {SAVE} and give that file")
    what = _kind(path, head)
    if what is None:
        return InputError(f"{path}: is not a Keras file; {SAVE} and give that file")
    return UnsupportedModelError(f"{path}: is {what}")


def refused_zip(path: Path, archive: zipfile.ZipFile) -> InputError | UnsupportedModelError:
    """The error for a zip that is no `.keras` file."""
    names = archive.namelist()
    if "manifest.json" in names:
        return InputError(f"{path}: is an EdgeLSTM bundle, already exported; {_PASS_KERAS}")
    if any(name.endswith("data.pkl") for name in names):
        return UnsupportedModelError(f"{path}: is a PyTorch file; {_REBUILD}")
    if names and all(name.endswith(".npy") for name in names):
        return InputError(
            f"{path}: is a .npz file of NumPy, which has arrays and no layers; build the model in Python, "
            f"call model.set_weights(...), and {SAVE}"
        )
    if any(name.endswith("saved_model.pb") for name in names):
        return InputError(f"{path}: is a zip with a SavedModel in it; pass the .keras or .h5 file it was made from")
    if any(name.endswith((".keras", ".h5", ".hdf5")) for name in names):
        return InputError(f"{path}: is a zip with a Keras file in it; unpack it and give that file")
    if "config.json" in names:
        return InputError(f"{path}: is a .keras file without its weights; {SAVE} and give that file")
    return InputError(f"{path}: is a zip, but no .keras file; {SAVE} and give that file")


def _kind(path: Path, head: bytes) -> str | None:
    if head[4:8] == b"TFL3":
        return f"a TFLite file, which is already exported; {_PASS_KERAS}"
    if head.startswith(b"\x80"):
        torch = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # Its number, pickled: the old form of torch.save.
        if torch in head[:32]:
            return f"a PyTorch file; {_REBUILD}"
        return (
            "a pickle, which may run any code when it is read; where you trust it, load the model from it in Python, "
            f"and {SAVE}"
        )
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, in place of the file itself; fetch it with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "a page of HTML or XML, such as a download that asked for a login; download the file itself"
    if head.startswith(b"\x93NUMPY"):
        return (
            "an array of NumPy, which has no layers; build the model in Python, call model.set_weights(...), "
            f"and {SAVE}"
        )
    if head.startswith((b"EDGELSTM", b"ELSTM")) or path.suffix == ".elm":
        return f"a native file of EdgeLSTM, which is already exported; {_PASS_KERAS}"
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and b"onnx" in head[:64].lower()):
        return f"an ONNX file, which has operators and no layers of Keras; {_PASS_KERAS}"
    if path.suffix == ".pb" or path.name == "saved_model.pb":
        return f"a graph of TensorFlow, which has operations and no layers; {_PASS_KERAS}"
    if path.suffix == ".index" or ".data-0" in path.name or path.name == "checkpoint":
        return _CHECKPOINT
    if head[8:9] == b"{" and b'"dtype"' in head:
        return f"a safetensors file, which has arrays and no layers; {_REBUILD}"
    if head.lstrip()[:1] in (b"{", b"["):
        return _json(path)
    if b"class_name:" in head and b"config:" in head:
        return (
            "YAML, such as model.to_yaml() of Keras 2 gives, which has no weights; pass the .keras or .h5 file of the "
            "whole model"
        )
    return None


def _json(path: Path) -> str:
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size < 1 << 28 else None
    except (ValueError, RecursionError, OSError):
        value = None
    if isinstance(value, dict):
        layers = value.get("layers")
        if "in_shape" in value and isinstance(layers, list):
            return (
                "RTNeural's JSON, which no Keras can read; build its layers in Keras (keras.Sequential), call "
                'layer.set_weights(...) with the "weights" of each, and pass that model'
            )
        if "state_dict" in value:
            return f"the JSON of a PyTorch model, as NAM, Proteus and GuitarML write it; {_REBUILD}"
        if "modelTopology" in value:
            return f"a model of TensorFlow.js; {_PASS_KERAS}"
        if "class_name" in value:
            return (
                "JSON, such as model.to_json() gives, which has no weights; build the model with "
                "keras.models.model_from_json(...), call model.load_weights(...), "
                f"and {SAVE}"
            )
    return f"JSON, which is no Keras model; {SAVE} and give that file"


def refused_weights(path: Path, legacy: bool) -> UnsupportedModelError:
    """The error for an HDF5 file with weights and no layers.

    Args:
        path: the file.
        legacy: whether it is in the form in which `.h5` has been written since Keras 1, not that of `.weights.h5`.
    """
    named = path.name.endswith(".weights.h5")
    copy = ""
    if legacy and named:
        copy = f'copy it to "{path.name.removesuffix(".weights.h5")}.h5" (Keras 3 goes by the suffix), '
    elif not legacy and not named:
        copy = f'copy it to "{path.stem}.weights.h5" (Keras 3 goes by the suffix), '
    return UnsupportedModelError(
        f"{path}: holds weights only, without the layers they belong to; {copy}build the model in Python, call "
        f"model.load_weights(...) and pass the model, or {SAVE}"
    )
