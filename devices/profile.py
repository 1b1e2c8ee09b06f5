"""Device profiles: what is known of a target. Each is a TOML file in `profiles/`, with the source of every figure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..runtime.errors import InputError

CLASSES = ("linux", "microcontroller", "phone", "browser")


@dataclass(frozen=True)
class DeviceProfile:
    """A target.

    Attributes:
        id: what to call it on the command line.
        name: what it is called in full.
        kind: `linux`, `microcontroller`, `phone` or `browser`.
        processor: its maker's name for it, and the cores.
        architecture: of its instructions, such as `aarch64` or `armv7em`.
        extensions: of these that the engine or a runtime can use.
        clock_hz: of the fastest cores.
        cores: how many of them.
        ram: in bytes; of the smallest variant sold.
        flash: program memory in bytes; 0 where there is a file system of gigabytes.
        system: what it runs.
        wheel: platform tag of its wheels; empty where there is no Python.
        formats: artifacts that can run there.
        backends: of the Python runtime that exist there.
        compiler: a command for C on it; empty where Debian packages none.
        emulator: a command that runs such code; empty where there is none.
        core: whose instructions were counted for estimates (`instructions.toml`); empty if nobody's.
        notes: what to know besides.
        sources: where each figure is from.
    """

    id: str
    name: str
    kind: str
    processor: str
    architecture: str
    extensions: tuple[str, ...]
    clock_hz: int
    cores: int
    ram: int
    flash: int
    system: str
    wheel: str
    formats: tuple[str, ...]
    backends: tuple[str, ...]
    compiler: str
    emulator: str
    core: str
    notes: str
    sources: Mapping[str, str]

    @property
    def pointer(self) -> int:
        """Bytes of a pointer."""
        return 8 if self.architecture == "aarch64" else 4


def read_profile(path: Path) -> DeviceProfile:
    """Read a profile from a file, of this package or the user's own.

    Raises:
        InputError: it cannot be read, or a key is missing, unknown or of the wrong kind.
    """
    try:
        return _profile(path.stem, path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def profiles() -> dict[str, DeviceProfile]:
    """All profiles of this package, by their ids."""
    return dict(_all())


def find_profile(name: str) -> DeviceProfile:
    """A profile by its id, or from the user's own `.toml` file.

    Raises:
        InputError: there is none.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    known = _all()
    if name not in known:
        near = [other for other in known if name.lower() in other] or list(known)
        raise InputError(f"no device {name!r}; there are {', '.join(near)}, or a .toml file of your own")
    return known[name]


@cache
def _all() -> dict[str, DeviceProfile]:
    folder = files("edgelstm.devices") / "profiles"
    entries = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    texts = {name.removesuffix(".toml"): (folder / name).read_text(encoding="utf-8") for name in entries}
    return {name: _profile(name, text, name) for name, text in texts.items()}


def _profile(name: str, text: str, source: str) -> DeviceProfile:
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not TOML ({error})") from error
    if "class" in raw:
        raw["kind"] = raw.pop("class")
    expected = {field.name: str(field.type) for field in fields(DeviceProfile) if field.name != "id"}
    if odd := sorted(set(raw) ^ set(expected)):
        what = ", ".join(f"{'missing' if key in expected else 'unknown'} {key!r}" for key in odd)
        raise InputError(f"{source}: {what.replace(chr(39) + 'kind' + chr(39), repr('class'))}")
    values: dict[str, Any] = {}
    for key, kind in expected.items():
        value = raw[key]
        if kind.startswith("tuple") and isinstance(value, list):
            value = tuple(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
        fits = {"str": str, "int": int}.get(kind, tuple if kind.startswith("tuple") else dict)
        if not isinstance(value, fits) or isinstance(value, bool):
            raise InputError(f"{source}: {key} = {raw[key]!r} is not what a profile has there")
        values[key] = value
    if values["kind"] not in CLASSES:
        raise InputError(f"{source}: class = {values['kind']!r} is none of {', '.join(CLASSES)}")
    return DeviceProfile(id=name, **values)
