"""Checks of a model file before Keras sees it.

A model file may come from anybody. What is in it decides which classes Keras looks up and which bytes HDF5 reads: a
Lambda is code, a module's name imports it, a link or an external storage reads another file of this machine, and a
declared size takes memory that the file itself never had. Keras guards against some of this in some of its versions.
Here it is refused whatever the version.
"""

from __future__ import annotations

import copy
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...runtime.errors import InputError, UnsupportedModelError
from .functions import operations

MAX_CONFIG = 4 << 20  # Bytes; that of a model of a thousand layers takes one.
MAX_DEPTH = 200  # Of a configuration; each nested model takes four.
MAX_NAME = 255
MAX_OBJECTS = 100_000  # In an HDF5 file.
MAX_INPUT = 1 << 26  # Numbers in one sequence.
_GROWTH = 20  # What compression may save at most: trained weights hardly shrink.
_SLACK = 1 << 20
_FILTERS = (1, 2, 3, 32000)  # deflate, shuffle, fletcher32, lzf: the others are plug-ins of the machine.

_CODE_OR_FILES = {
    "TFSMLayer": "a SavedModel beside it",
    "TorchModuleWrapper": "a pickle",
    "JaxLayer": "a function of Python",
    "FlaxLayer": "a function of Python",
}
_ROOMS = ("layers", "models", "ops", "initializers", "regularizers", "constraints", "dtype_policies", "random")
_TRAINING = ("optimizers", "losses", "metrics", "quantizers", "activations")
_AT_THE_ROOT = ("Sequential", "Model", "Functional", "DTypePolicy", "FloatDTypePolicy")
_VALUES = ("__tensor__", "__numpy__", "__keras_tensor__", "__bytes__", "__ellipsis__", "__slice__")
_WIDTHS = ("units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "head_dim", "num_groups")


def member(archive: zipfile.ZipFile, name: str, path: Path, limit: int | None = None) -> zipfile.ZipInfo:
    """The entry of a zip file by this name.

    Args:
        archive: the file.
        name: of the entry.
        path: of the file, for the error, and for its size.
        limit: the most bytes that it may have; by default in proportion to the file.

    Raises:
        InputError: the entry is there twice, encrypted, or declares more bytes than such a file can hold.
    """
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        raise InputError(f"{path}: holds {name} {len(found)} times; save the model again")
    (info,) = found
    if info.flag_bits & 1:
        raise InputError(f"{path}: is encrypted; unpack it with its password and zip it again without one")
    most = path.stat().st_size * _GROWTH + _SLACK if limit is None else limit
    if info.file_size > most:
        raise InputError(
            f"{path}: {name} in it would unpack to {info.file_size:,} bytes, more than a model's can be; "
            "do not trust this file, and save the model again where it was trained"
        )
    return info


def parsed(text: bytes | str, path: Path, what: str) -> dict[str, Any]:
    """A JSON object of a model file.

    Raises:
        InputError: it is none, or too long or too deep to be a model's.
    """
    if len(text) > MAX_CONFIG:
        raise InputError(f"{path}: its {what} has {len(text):,} bytes, more than a model's can have")
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError(f"{path}: its {what} is nested too deeply to be a model's") from None
    except ValueError as error:  # Of JSON or of UTF-8.
        raise InputError(f"{path}: is damaged: its {what} cannot be read ({error}); copy the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: is damaged: its {what} is no JSON object; copy the file again")
    return value


def check_config(config: Any, path: Path) -> None:
    """Refuse a configuration that names anything but Keras's own layers, functions and settings.

    Args:
        config: of a model, in the words of Keras 3.
        path: the file, for the error.

    Raises:
        UnsupportedModelError: it has a Lambda, or classes that are not Keras's.
        InputError: it is made to do something else than to describe a model.
    """
    custom: set[str] = set()
    for value in _objects(config, path):
        name = value.get("name")
        if isinstance(name, str) and (len(name) > MAX_NAME or not name.isprintable()):
            raise InputError(f"{path}: has a layer with the name {name[:40]!r}, which is no name; rename the layer")
        if isinstance(value.get("vocabulary"), str):
            raise UnsupportedModelError(
                f"{path}: reads its vocabulary from another file, {value['vocabulary'][:80]!r}; do this outside of "
                "the model"
            )
        for key in ("batch_shape", "batch_input_shape"):
            _check_shape(value.get(key), path)
        if "class_name" in value:
            custom |= _unknown(value, path)
    if custom:
        raise UnsupportedModelError(
            f"{path}: contains the custom {' and '.join(sorted(custom))}, whose code is not in the file; replace it "
            "by layers of Keras, or load the model in Python with custom_objects and pass the keras.Model"
        )


def _objects(config: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Every dictionary in a configuration."""
    stack: list[tuple[Any, int]] = [(config, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise InputError(f"{path}: its configuration is nested too deeply to be a model's")
        if isinstance(value, dict):
            yield value
            stack.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend((inner, depth + 1) for inner in value)


def _check_shape(shape: Any, path: Path) -> None:
    numbers = 1
    for size in shape if isinstance(shape, (list, tuple)) else ():
        numbers *= size if isinstance(size, int) and size > 0 else 1
    if numbers > MAX_INPUT:
        raise InputError(f"{path}: takes an input of {numbers:,} numbers at once, more than {MAX_INPUT:,}")


def _unknown(entry: dict[str, Any], path: Path) -> set[str]:
    """What an object of the configuration is called, where it is not Keras's own."""
    kind, module, registered = (entry.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(kind, str) or not all(isinstance(value, (str, type(None))) for value in (module, registered)):
        raise InputError(f"{path}: is damaged: a class in its configuration has no name; copy the file again")
    shown = kind[:80]
    if kind in ("Lambda", "__lambda__"):
        raise UnsupportedModelError(
            f"{path}: contains a Lambda, whose Python code is not run from a file; replace it by a layer of Keras "
            "such as Rescaling or Activation"
        )
    if kind in _CODE_OR_FILES:
        raise UnsupportedModelError(
            f"{path}: contains a {kind}, which runs {_CODE_OR_FILES[kind]}, and nothing is run from a file; replace "
            "it by layers of Keras"
        )
    if kind == "function":
        name = entry.get("config")
        if not isinstance(name, str):
            raise InputError(f"{path}: is damaged: a function in its configuration has no name; copy the file again")
        return set() if _is_function_of_keras(name, module) else {name[:80]}
    if kind.startswith("__"):
        if kind not in _VALUES:
            raise InputError(f"{path}: has {shown!r} in its configuration, which no layer needs")
        return set()
    return set() if _is_class_of_keras(kind, module, registered) else {shown}


def _is_function_of_keras(name: str, module: str | None) -> bool:
    import keras

    known = (None, "builtins", "keras.activations", "keras.ops", "keras.losses", "keras.metrics")
    if module not in known and not str(module).startswith(("keras.src.activations", "keras.src.ops")):
        return False
    if name == "keras2_hard_sigmoid":  # Ours, for models of Keras 2.
        return True
    places = (keras.activations, keras.ops, keras.losses, keras.metrics)
    return name.isidentifier() and any(callable(getattr(place, name, None)) for place in places)


def _is_class_of_keras(kind: str, module: str | None, registered: str | None) -> bool:
    import keras

    if not kind.isidentifier() or not kind[0].isupper() or registered not in (None, kind):
        return False
    if module is None:
        places = (keras.layers, keras.initializers)
        return kind in (*_AT_THE_ROOT, *operations()) or any(isinstance(getattr(p, kind, None), type) for p in places)
    if module in ("keras", "keras.layers"):
        return kind in _AT_THE_ROOT if module == "keras" else isinstance(getattr(keras.layers, kind, None), type)
    parts = module.split(".")
    parts = parts[2:] if parts[:2] == ["keras", "src"] else parts[1:] if parts[0] == "keras" else []
    return bool(parts) and parts[0] in (*_ROOMS, *_TRAINING)


def check_hdf5(file: Any, path: Path, size: int) -> int:
    """Refuse an HDF5 file that reads other files, or declares more than it holds.

    Args:
        file: the open `h5py.File`.
        path: the file, for the error.
        size: of the file in bytes.

    Returns:
        How many numbers it holds.

    Raises:
        InputError: it has links, external or virtual data, filters that are plug-ins, or declares too much.
    """
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    def refused(where: str, reason: str) -> InputError:
        return InputError(
            f"{path}: {where[:200]!r} in it {reason}; a file that Keras wrote has nothing of the kind, so do not trust "
            "it, and save the model again where it was trained"
        )

    seen = {h5o.get_info(file["/"].id).addr}
    numbers = total = 0
    stack: list[tuple[Any, str]] = [(file["/"], "")]
    while stack:
        group, within = stack.pop()
        for name in group:
            where = f"{within}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise refused(where, "is a link to something else, perhaps in another file")
            item = group[name]
            address = h5o.get_info(item.id).addr
            if address in seen:
                raise refused(where, "is another name for something else in the file")
            seen.add(address)
            if len(seen) > MAX_OBJECTS or where.count("/") > MAX_DEPTH:
                raise refused(where, "is one object too many, or too deep")
            if isinstance(item, h5py.Group):
                stack.append((item, where))
                continue
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub":
                raise refused(where, "holds something else than numbers")
            if item.external:
                raise refused(where, "reads its numbers from another file (external storage)")
            if item.is_virtual:
                raise refused(where, "reads its numbers from other places (a virtual dataset)")
            settings = item.id.get_create_plist()
            filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
            if not set(filters) <= set(_FILTERS):
                raise refused(where, "needs a plug-in of HDF5 to be read")
            total += item.nbytes
            numbers += math.prod(item.shape)
            stored = item.id.get_storage_size()
            if (not filters and stored < item.nbytes) or total > size * _GROWTH + _SLACK:
                raise refused(where, f"declares {item.nbytes:,} bytes, of which the file holds {stored:,}")
    return numbers


def check_weights(config: dict[str, Any], build: Callable[[Any], Any], numbers: int, path: Path) -> None:
    """Refuse a model whose layers would take far more memory than the file has weights for.

    Wide models only are looked at, since it takes as long as building them.

    Args:
        config: of the model, checked.
        build: makes a model of a configuration; what it raises is not caught.
        numbers: that the file holds.
        path: the file, for the error.

    Raises:
        InputError: they would.
    """
    import keras
    from keras.src.backend.common import global_state

    values = list(_objects(config, path))
    widths = [v for entry in values for key in _WIDTHS if isinstance(v := entry.get(key), int)]
    shapes = [s for entry in values for s in entry.get("batch_shape") or () if isinstance(s, int)]
    widest = max([1, *widths, *shapes])
    layers = sum("class_name" in entry for entry in values)
    if 8 * widest * widest * layers <= 16 * max(numbers, 1 << 20):
        return
    plain = copy.deepcopy(config)
    for entry in _objects(plain, path):
        if entry.get("stateful") is True:
            entry["stateful"] = False  # Its states would be made at once.
    try:
        # Variables get shapes in it, but no memory.
        with keras.StatelessScope(initialize_variables=False):
            variables = build(plain).variables
    finally:
        # Else the next such scope would give them memory.
        global_state.set_global_attribute("uninitialized_variables", [])
    needed = sum(math.prod(variable.shape) for variable in variables)
    if needed > numbers + (1 << 14):
        raise InputError(
            f"{path}: its layers need {needed:,} weights, and the file holds {numbers:,} numbers; it is damaged, or "
            "made to fill the memory; save the model again where it was trained"
        )
