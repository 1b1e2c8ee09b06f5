"""Hostile `.keras` and `.h5` files: no code runs, no other file is read, no memory is taken, and a sentence says so.

Each case is a file that Keras wrote, changed as an enemy would. The same checks hold whatever Keras is installed.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from edgelstm.export import read_keras
from edgelstm.runtime import InputError, UnsupportedModelError

from tests.zoo import saved_in_both_formats

KERAS2 = Path(__file__).parent / "keras2" / "gru_and_activation_layers.h5"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved_in_both_formats(tmp_path_factory.mktemp("plain"))


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


# ---- Configurations ----


def layer(module: Any, kind: Any, registered: Any = None, **config: Any) -> Callable[[dict], None]:
    entry = {"module": module, "class_name": kind, "config": config, "registered_name": registered}
    return lambda model: model["config"]["layers"].append(entry)


def setting(key: str, value: Any) -> Callable[[dict], None]:
    return lambda model: model["config"]["layers"][-1]["config"].update({key: value})


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


CONFIGS: dict[str, tuple[Callable[[dict], Any], str]] = {
    "os.system": (layer("os", "system", command="touch PWNED"), "custom system"),
    "popen": (layer("subprocess", "Popen", args=["touch", "PWNED"]), "custom Popen"),
    "any module": (layer("antigravity", "Layer"), "custom Layer"),
    "a module of Keras": (layer("keras.utils", "PyDataset"), "custom PyDataset"),
    "a function as a class": (layer("keras.layers", "deserialize"), "custom deserialize"),
    "registered": (layer("keras.layers", "Dense", "mine>Dense", units=1), "custom Dense"),
    "a dotted class": (layer("keras.src.layers", "core.Dense"), r"custom core\.Dense"),
    "Lambda": (layer("keras.layers", "Lambda", function="x"), "a Lambda"),
    "Lambda in a wrapper": (
        layer("keras.layers", "TimeDistributed", layer={"class_name": "Lambda", "config": {}}),
        "a Lambda",
    ),
    "a lambda as a value": (setting("activation", {"class_name": "__lambda__", "config": {"value": "x"}}), "a Lambda"),
    "a type": (setting("activation", {"class_name": "__typespec__", "config": ["x"]}), "no layer needs"),
    "a SavedModel": (layer("keras.layers", "TFSMLayer", filepath="/tmp/x"), "TFSMLayer, which runs a SavedModel"),
    "a pickle": (layer("keras.layers", "TorchModuleWrapper"), "TorchModuleWrapper, which runs a pickle"),
    "eval": (setting("activation", function("builtins", "eval")), "custom eval"),
    "get_file": (setting("activation", function("keras.utils", "get_file")), "custom get_file"),
    "unsafe": (setting("kernel_initializer", function("keras.config", "enable_unsafe_deserialization")), "custom en"),
    "a vocabulary": (layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"), "vocabulary from another file"),
    "depth": (setting("junk", nested(500)), "nested too deeply"),
    "a name to print": (setting("name", "x\x1b]0;owned\x07"), "which is no name"),
    "a long name": (setting("name", "x" * 1000), "which is no name"),
    "no class": (layer("keras.layers", None), "a class in its configuration has no name"),
    "no function": (setting("activation", {"class_name": "function", "config": [1]}), "a function .* has no name"),
    "a huge input": (
        lambda model: model["config"]["layers"][0]["config"].update(batch_shape=[None, 10**9, 2]),
        "numbers at once",
    ),
    "huge layers": (setting("units", 200_000_000), "its layers need"),
    "a huge LSTM": (
        lambda model: model["config"]["layers"][1]["config"].update(units=60_000),
        "its layers need|rebuild",
    ),
    "a word for a number": (setting("units", "many"), "cannot rebuild"),
    "layers of another kind": (lambda model: model["config"].update(layers=7), "cannot rebuild"),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(plain, tmp_path, name, suffix, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edit, words = CONFIGS[name]
    path = Path(shutil.copy(plain / f"m{suffix}", tmp_path))
    if suffix == ".keras":
        files = members(path)
        config = json.loads(files["config.json"])
        edit(config)
        zipped(path, {**files, "config.json": json.dumps(config).encode()})
    else:
        with h5py.File(path, "a") as file:
            config = json.loads(file.attrs["model_config"])
            edit(config)
            file.attrs["model_config"] = json.dumps(config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((InputError, UnsupportedModelError), match=words) as raised:
        read_keras(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert not (tmp_path / "PWNED").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda config: config.pop("config"), "is damaged: its configuration"),
        (lambda config: config["config"].update(layers=7), "is damaged: its configuration"),
        (lambda config: config["config"].update(layers=[None]), "is damaged: its configuration"),
        (lambda config: config["config"]["layers"][1].update(class_name=["x"]), "is damaged"),
        (lambda config: config["config"]["layers"][1].update(class_name="Lambda"), "a Lambda"),
        (lambda config: config["config"]["layers"][1].update(class_name="Mine"), "custom Mine"),
        (lambda config: config["config"]["layers"][1]["config"].update(units=60_000), "its layers need"),
    ],
)
def test_configurations_of_keras_2(tmp_path, edit, words):
    path = Path(shutil.copy(KERAS2, tmp_path / "old.h5"))
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        edit(config)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises((InputError, UnsupportedModelError), match=words):
        read_keras(path)


def test_a_lambda_of_a_real_model_is_not_run(tmp_path, monkeypatch):
    """Keras 3.8 runs it from an `.h5`."""
    import keras

    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(15)
    scope: dict[str, Any] = {}
    exec("f = lambda x: (__import__('os').system('touch PWNED'), x)[1]", scope)
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.Lambda(scope["f"]), keras.layers.LSTM(4)])
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
    Path(shutil.copy("m.h5", "old.h5"))
    with h5py.File("old.h5", "a") as file:
        file.attrs["keras_version"] = "2.9.0"
    (tmp_path / "PWNED").unlink()
    for name in ("m.keras", "m.h5", "old.h5"):
        with pytest.raises(UnsupportedModelError, match=r"contains a Lambda.*Rescaling or Activation"):
            read_keras(tmp_path / name)
        assert not (tmp_path / "PWNED").exists()


# ---- Zip files ----


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        ("config.json", b"[1]", "no JSON object"),
        ("config.json", b"\x81\x82", "cannot be read"),
        ("metadata.json", b"[1]", "no JSON object"),
        ("config.json", b"{}" + b" " * 100_000_000, "would unpack to 100,000,002 bytes"),
        ("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100_000_000), "would unpack to 100,000,008 bytes"),
        ("model.weights.h5", b"no HDF5", "damaged or cut short"),
    ],
    ids=["deep", "a list", "no text", "a list as metadata", "a bomb", "a bomb of weights", "no weights"],
)
def test_members(plain, tmp_path, name, content, words):
    path = zipped(tmp_path / "m.keras", {**members(plain / "m.keras"), name: content})
    del content
    with pytest.raises(InputError, match=words):
        read_keras(path)


def test_members_that_are_there_twice_or_locked(plain, tmp_path):
    path = Path(shutil.copy(plain / "m.keras", tmp_path))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", "{}")
    with pytest.raises(InputError, match=r"config\.json 2 times"):
        read_keras(path)
    content = bytearray((plain / "m.keras").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    while content[at + 46 : at + 57] != b"config.json":
        at = content.rindex(b"PK\x01\x02", 0, at)
    content[at + 8] |= 1  # "encrypted", in the entry of the directory
    path.write_bytes(content)
    with pytest.raises(InputError, match="is encrypted"):
        read_keras(path)


def test_other_members_are_never_unpacked(plain, tmp_path):
    files = {"../../escaped": b"x", "/absolute": b"x", "assets/x": b"x"}
    path = zipped(tmp_path / "m.keras", {**members(plain / "m.keras"), **files})
    assert read_keras(path).outputs == 1
    assert {p.name for p in tmp_path.iterdir()} == {"m.keras"}


# ---- HDF5 ----

HDF5: dict[str, tuple[Callable[[h5py.Group, str, Path], Any], str]] = {}


def hostile(words: str) -> Callable:
    def register(function: Callable) -> Callable:
        HDF5[function.__name__] = (function, words)
        return function

    return register


@hostile("external storage")
def external_storage(group, name, folder):
    secret = folder / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes() + b"s" * 4096)
    group.create_dataset(name, (4, 1), np.float32, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


@hostile("is a link to something else")
def external_link(group, name, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.full((4, 1), 42, np.float32)
    group[name] = h5py.ExternalLink(str(folder / "other.h5"), "/x")


@hostile("is a link to something else")
def soft_link(group, name, folder):
    group[name] = h5py.SoftLink("/elsewhere")


@hostile("virtual dataset")
def virtual(group, name, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.full((4, 1), 42, np.float32)
    layout = h5py.VirtualLayout((4, 1), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (4, 1))
    group.create_virtual_dataset(name, layout)


@hostile("another name for something else")
def the_same_twice(group, name, folder):
    group[name] = group.file["/"]


@hostile("declares 800,000,000 bytes")
def never_written(group, name, folder):
    group.create_dataset(name, (200_000_000,), np.float32)


@hostile("declares 400,000,000 bytes")
def compressed(group, name, folder):
    group.create_dataset(name, (100_000_000,), np.float32, chunks=(1_000_000,), compression="gzip", fillvalue=0)


@hostile("something else than numbers")
def texts(group, name, folder):
    group[name] = "text"


@hostile("something else than numbers")
def a_type(group, name, folder):
    group[name] = np.dtype("f4")


@hostile("too deep")
def deep(group, name, folder):
    for _ in range(250):
        group = group.create_group("g")


@pytest.mark.parametrize("kind", ["m.keras", "m.h5", "old.h5"])
@pytest.mark.parametrize("name", HDF5)
def test_weights(plain, tmp_path, name, kind):
    make, words = HDF5[name]
    target = tmp_path / kind
    weights = tmp_path / "w.h5"
    if kind == "m.keras":
        weights.write_bytes(members(plain / "m.keras")["model.weights.h5"])
    else:
        shutil.copy(KERAS2 if kind == "old.h5" else plain / "m.h5", weights)
    with h5py.File(weights, "a") as file:
        names: list[str] = []
        file.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None)
        chosen = next(n for n in names if file[n].ndim == 2)
        parent, _, last = chosen.rpartition("/")
        del file[chosen]
        make(file[parent], last, tmp_path)
    if kind == "m.keras":
        zipped(target, {**members(plain / "m.keras"), "model.weights.h5": weights.read_bytes()})
    else:
        weights.rename(target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=words) as raised:
        read_keras(target)
    assert str(raised.value).startswith(f"{target}: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.slow
def test_weights_that_were_packed_are_read_after_saving_again(plain, tmp_path):
    """The remedy: compression hides how large a file is, and Keras does not compress."""
    import keras

    path = tmp_path / "m.h5"
    keras.utils.set_random_seed(14)
    L = keras.layers
    model = keras.Sequential([keras.Input((None, 2)), L.LSTM(700), L.Dense(1)])
    model.set_weights([np.zeros(array.shape) for array in model.get_weights()])
    model.save(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as source, h5py.File(path, "w") as target:
        for key, value in source.attrs.items():
            target.attrs[key] = value

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                target.create_dataset(name, data=item[()], compression="gzip" if item.ndim == 2 else None)
            else:
                made = target.require_group(name)
                for key, value in item.attrs.items():
                    made.attrs[key] = value

        source.visititems(copy)
    with pytest.raises(InputError, match="save the model again where it was trained"):
        read_keras(path)
    keras.models.load_model(path, compile=False).save(tmp_path / "again.keras")
    assert read_keras(tmp_path / "again.keras").outputs == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["m.keras", "m.h5"])
def test_any_flipped_byte_of_the_header_is_an_error_of_ours_or_harmless(plain, tmp_path, kind):
    """A short walk over the structures that h5py and zipfile parse."""
    content = (plain / kind).read_bytes()
    rng = np.random.default_rng(9)
    for at in rng.integers(0, min(len(content), 3000), 40):
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.integers(8)
        (tmp_path / kind).write_bytes(flipped)
        with contextlib.suppress(InputError, UnsupportedModelError):
            read_keras(tmp_path / kind)
