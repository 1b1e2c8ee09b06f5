"""Loading Keras models: from a file of Keras 2 or 3, or as they are."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import InputError, UnsupportedModelError
from .functions import keras2_functions
from .keras2 import upgrade_config

_SAVE = 'save the whole model with model.save("model.keras")'
_FOREIGN = {
    b"TFL3": (4, "a TFLite file, which is already exported; pass the Keras model it was made from"),
    b"\x80": (0, "a pickle, which may run any code when it is read"),
    b"{": (0, "JSON, such as model.to_json() gives, which has no weights"),
}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A Keras model and where it comes from.

    Attributes:
        model: the `keras.Model`.
        name: the file's stem, or the model's own name.
        path: the file, if it was one.
        keras_version: the version of Keras that wrote it.
    """

    model: Any
    name: str
    path: Path | None
    keras_version: str


def load(source: Any) -> LoadedModel:
    """Load a Keras model from a file, or take one as it is.

    Args:
        source: the path of a `.keras` or `.h5` file of Keras 2 or 3, told apart by their content; or a `keras.Model`.

    Raises:
        InputError: there is no such file, or it is damaged or not a Keras file.
        UnsupportedModelError: it is a kind of Keras file that does not hold a whole model, or Keras cannot rebuild it.
    """
    if isinstance(source, (str, Path)):
        return _load_file(Path(source))
    import keras

    if not isinstance(source, keras.Model):
        hint = (
            "; a model of tf_keras or Keras 2 has to be saved and given as its file"
            if hasattr(source, "layers")
            else ""
        )
        raise InputError(f"expected the path of a Keras file or a keras.Model, got {type(source).__name__}{hint}")
    return LoadedModel(source, source.name, None, keras.__version__)


def _load_file(path: Path) -> LoadedModel:
    if path.is_dir():
        raise _folder(path)
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a .keras or .h5 file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if head.startswith(b"PK"):
        return _load_zip(path)
    if head == b"\x89HDF\r\n\x1a\n":
        return _load_hdf5(path)
    for magic, (at, what) in _FOREIGN.items():
        if head[at:].startswith(magic):
            raise UnsupportedModelError(f"{path}: is {what}; {_SAVE}")
    what = "is empty" if not head else "is not a Keras file"
    raise InputError(f"{path}: {what}; {_SAVE} and give that file")


def _folder(path: Path) -> InputError | UnsupportedModelError:
    if (path / "saved_model.pb").exists():
        return UnsupportedModelError(
            f"{path}: is a SavedModel, which has no layers any more; where the model was trained, load it with "
            'tf.keras.models.load_model and save it with model.save("model.h5")'
        )
    files = sorted(p.name for p in path.iterdir() if p.suffix in (".keras", ".h5", ".hdf5"))
    there = f"; it contains {', '.join(files)}" if files else ""
    return InputError(f"{path}: is a folder{there}; give the path of a .keras or .h5 file")


def _load_zip(path: Path) -> LoadedModel:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if not {"config.json", "model.weights.h5"} <= names:
                what = (
                    "is an EdgeLSTM bundle, already exported" if "manifest.json" in names else "is a zip, but no .keras"
                )
                raise InputError(f"{path}: {what} file; {_SAVE} and give that file")
            damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path}: is damaged ({damaged} inside it fails its checksum); copy the file again")
            config = json.loads(archive.read("config.json"))
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
            version = str(metadata.get("keras_version", "3"))
            if _major(version) >= 3:
                model = _guarded(path, version, config, lambda keras: _load_keras3(keras, path, ".keras"))
            else:
                with tempfile.TemporaryDirectory() as folder:
                    weights = Path(archive.extract("model.weights.h5", folder))
                    model = _load_keras2(path, version, config, weights)
    except (zipfile.BadZipFile, json.JSONDecodeError, EOFError) as error:
        raise InputError(f"{path}: is damaged or cut short ({error}); copy the file again") from error
    return LoadedModel(model, path.stem, path, version)


def _load_hdf5(path: Path) -> LoadedModel:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config, version = (_text(file.attrs.get(key)) for key in ("model_config", "keras_version"))
            if config is None:
                raise UnsupportedModelError(
                    f"{path}: holds weights only, without the layers they belong to; {_SAVE} where it was trained, or "
                    "build the model in Python, call model.load_weights(...) and pass the model"
                )
    except OSError as error:
        raise InputError(f"{path}: is damaged or cut short ({error}); copy the file again") from error
    version = version or "1"
    parsed = json.loads(config)
    if _major(version) >= 3:
        model = _guarded(path, version, parsed, lambda keras: _load_keras3(keras, path, ".h5"))
    else:
        model = _load_keras2(path, version, parsed, path)
    return LoadedModel(model, path.stem, path, version)


def _load_keras3(keras: Any, path: Path, suffix: str) -> Any:
    from keras.src.ops import numpy as operations

    # Keras writes a Masking layer's mask into an .h5 as two operations, which it does not find again by itself.
    found = {"NotEqual": operations.NotEqual, "Any": operations.Any}
    with keras.saving.custom_object_scope(found), tempfile.TemporaryDirectory() as folder:
        if path.suffix != suffix:  # Keras goes by the suffix.
            link = Path(folder, f"model{suffix}")
            link.symlink_to(path.resolve())
            path = link
        return keras.models.load_model(path, compile=False)


def _load_keras2(path: Path, version: str, config: Any, weights: Path) -> Any:
    if _major(version) < 2:
        raise UnsupportedModelError(
            f"{path}: was written by Keras {version}, which is too old; load and save it again with Keras 2"
        )
    upgraded = upgrade_config(config, str(path))

    def build(keras: Any) -> Any:
        with keras2_functions():
            model = keras.saving.deserialize_keras_object(upgraded)
        # Keras goes by the suffix here too.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "old.h5" if weights == path else "model.weights.h5")
            link.symlink_to(weights.resolve())
            model.load_weights(link)
        for layer in model._flatten_layers():
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        return model

    return _guarded(path, version, config, build)


def _guarded(path: Path, version: str, config: Any, build: Any) -> Any:
    """Build a model, and turn whatever Keras raises into one clear error."""
    import keras

    try:
        return build(keras)
    except Exception as error:
        custom = sorted(set(_custom_classes(config)))
        if custom:
            raise UnsupportedModelError(
                f"{path}: contains the custom {' and '.join(custom)}, whose code is not in the file; replace it by "
                "layers of Keras, or load the model in Python with custom_objects and pass the keras.Model"
            ) from error
        reason = " ".join(str(error).split())
        if "Lambda" in reason:
            raise UnsupportedModelError(
                f"{path}: contains a Lambda layer, whose Python code is not run from a file; replace it by a layer of "
                "Keras such as Rescaling or Activation"
            ) from error
        if isinstance(error, (OSError, KeyError)) or ("layers" in reason and "weight" in reason):
            raise InputError(f"{path}: its weights are damaged or do not fit its layers ({reason[:300]})") from error
        raise UnsupportedModelError(
            f"{path}: Keras {keras.__version__} cannot rebuild this model of Keras {version} ({reason[:300]}); load it "
            "where it was trained and save it again, or load it in Python and pass the keras.Model"
        ) from error


def _custom_classes(config: Any) -> Iterator[str]:
    """Names of classes and functions in a configuration that are not Keras's."""
    if isinstance(config, dict):
        registered, module = config.get("registered_name"), config.get("module") or ""
        if registered and not module.startswith(("keras", "builtins")):
            yield str(config.get("config") if config.get("class_name") == "function" else config.get("class_name"))
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _custom_classes(value)


def _major(version: str) -> int:
    head = version.split(".", 1)[0]
    return int(head) if head.isdigit() else 0


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
