"""Loading Keras models: from a file of Keras 2 or 3, or as they are.

What a file holds is checked before Keras sees it (`untrusted`), and what Keras sees is what was checked.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import EdgeLSTMError, InputError, UnsupportedModelError, reason_of
from . import old_weights, untrusted
from .foreign import refused_file, refused_folder, refused_weights, refused_zip
from .functions import keras2_functions, operations
from .hdf5_trial import survive
from .keras2 import upgrade_config

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_COPY = "copy the file again"


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
        raise refused_folder(path)
    try:
        if not path.is_file() and path.exists():
            raise InputError(f"{path}: is no regular file; give the path of a .keras or .h5 file")
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
    raise refused_file(path)


def _load_zip(path: Path) -> LoadedModel:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, _WEIGHTS)
        try:
            with zipfile.ZipFile(path) as archive:
                if not {_CONFIG, _WEIGHTS} <= set(archive.namelist()):
                    raise refused_zip(path, archive)
                config = _json_of(archive, _CONFIG, path)
                metadata = _json_of(archive, _METADATA, path) if _METADATA in archive.namelist() else {}
                with archive.open(untrusted.member(archive, _WEIGHTS, path)) as packed, weights.open("wb") as file:
                    shutil.copyfileobj(packed, file)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise InputError(
                    f"{path}: there is no room in {folder} to unpack its weights ({error.strerror}); make room, or "
                    "name another folder in the environment variable TMPDIR"
                ) from error
            raise InputError(f"{path}: is damaged or cut short ({error}); {_COPY}") from error
        version = str(metadata.get("keras_version", "3"))
        numbers = _check_weights_file(weights, path)
        if _major(version) >= 3:
            _drop_training(config)
            untrusted.check_config(config, path)
            whole = Path(folder, "model.keras")
            with zipfile.ZipFile(whole, "w") as archive:
                archive.writestr(_CONFIG, json.dumps(config))
                archive.writestr(_METADATA, json.dumps({"keras_version": version}))
                archive.write(weights, _WEIGHTS)

            def build(keras: Any) -> Any:
                untrusted.check_weights(config, keras.saving.deserialize_keras_object, numbers, path)
                return _load_keras3(keras, whole)

            model = _guarded(path, version, build)
        else:
            model = _load_keras2(path, version, config, weights, numbers)
    return LoadedModel(model, path.stem, path, version)


def _json_of(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    info = untrusted.member(archive, name, path, untrusted.MAX_CONFIG)
    return untrusted.parsed(archive.read(info), path, name)


def _check_weights_file(weights: Path, path: Path) -> int:
    """Check an HDF5 file of weights; say how many numbers it holds, and bring what Keras 2 wrote up to date."""
    survive(weights, path)
    with _hdf5(weights, path) as file:
        numbers = untrusted.check_hdf5(file, path, weights.stat().st_size)
        old = old_weights.needs_update(file)
    if old:
        with _hdf5(weights, path, "a") as file:
            old_weights.update(file)
    return numbers


@contextmanager
def _hdf5(weights: Path, path: Path, mode: str = "r") -> Iterator[Any]:
    """An open HDF5 file; whatever h5py raises of a damaged one becomes an `InputError`."""
    import h5py

    try:
        with h5py.File(weights, mode) as file:
            yield file
    except EdgeLSTMError:
        raise
    except Exception as error:  # h5py raises OSError, RuntimeError, KeyError, ValueError and TypeError.
        reason = reason_of(error)
        raise InputError(f"{path}: is damaged or cut short ({reason}); {_COPY}") from error


def _load_hdf5(path: Path) -> LoadedModel:
    survive(path, path)
    with _hdf5(path, path) as file:
        numbers = untrusted.check_hdf5(file, path, path.stat().st_size)
        config, version = (_text(file.attrs.get(key)) for key in ("model_config", "keras_version"))
        if config is None:
            raise refused_weights(path, legacy="layer_names" in file.attrs)
        if "model_weights" not in file:
            raise InputError(f"{path}: has layers, but no weights; save the whole model again")
        old = old_weights.needs_update(file["model_weights"])
    version = version or "1"
    parsed = untrusted.parsed(config, path, "configuration")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "model.h5")
        if old:
            shutil.copyfile(path, weights)
            _check_weights_file(weights, path)
        else:  # Keras goes by the suffix.
            weights.symlink_to(path.resolve())
        if _major(version) >= 3:
            untrusted.check_config(parsed, path)

            def build(keras: Any) -> Any:
                untrusted.check_weights(parsed, _model_of_hdf5, numbers, path)
                return _load_keras3(keras, weights)

            model = _guarded(path, version, build)
        else:
            model = _load_keras2(path, version, parsed, weights, numbers)
    return LoadedModel(model, path.stem, path, version)


def _load_keras3(keras: Any, path: Path) -> Any:
    # A Masking layer's mask lies in an .h5 as two operations.
    with keras.saving.custom_object_scope(operations()):
        return keras.models.load_model(path, compile=False)


def _model_of_hdf5(config: Any) -> Any:
    """A model from the configuration that Keras 3 writes into an `.h5`, without its weights."""
    import keras
    from keras.src.legacy.saving import saving_utils
    from keras.src.legacy.saving.saving_options import keras_option_scope

    with keras.saving.custom_object_scope(operations()), keras_option_scope(use_legacy_config=True):
        return saving_utils.model_from_config(config)


def _load_keras2(path: Path, version: str, config: dict[str, Any], weights: Path, numbers: int) -> Any:
    if _major(version) < 2:
        raise UnsupportedModelError(
            f"{path}: was written by Keras {version}, which is too old; build the same layers in Keras 3 and copy "
            "the weights"
        )
    try:
        upgraded = upgrade_config(config, str(path))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: is damaged: its configuration is not that of a Keras model ({type(error).__name__}: {error}); "
            f"{_COPY}"
        ) from error
    untrusted.check_config(upgraded, path)

    def build(keras: Any) -> Any:
        with keras2_functions():
            untrusted.check_weights(upgraded, keras.saving.deserialize_keras_object, numbers, path)
            model = keras.saving.deserialize_keras_object(upgraded)
        model.load_weights(weights)
        for layer in model._flatten_layers():
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        return model

    return _guarded(path, version, build)


def _guarded(path: Path, version: str, build: Callable[[Any], Any]) -> Any:
    """Build a model, and turn whatever Keras raises into one clear error."""
    import keras

    try:
        return build(keras)
    except EdgeLSTMError:
        raise
    except Exception as error:
        reason = reason_of(error)
        if isinstance(error, (OSError, KeyError)) or ("layer" in reason.lower() and "weight" in reason):
            raise InputError(f"{path}: its weights are damaged or do not fit its layers ({reason}); {_COPY}") from error
        raise UnsupportedModelError(
            f"{path}: Keras {keras.__version__} cannot rebuild this model of Keras {version} ({reason}); "
            "build it in Python, call model.load_weights(...) with this file, and pass the keras.Model"
        ) from error


def _drop_training(config: Any) -> None:
    """Leave out, in place, what a configuration says of training: losses and optimisers, which may be anybody's."""
    if isinstance(config, dict):
        config.pop("compile_config", None)
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        _drop_training(value)


def _major(version: str) -> int:
    head = version.split(".", 1)[0]
    return int(head) if head.isdecimal() else 0


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else None
