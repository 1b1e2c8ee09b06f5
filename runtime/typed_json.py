"""JSON objects as dataclasses, and back: every field of the type that the dataclass gives it, and no other field.

What comes from a file or from another machine may hold anything. A dataclass says what belongs there, its
`__post_init__` which values make sense; whatever else is there is a `ValueError` that names the place.
"""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

# Deeper than any object of ours, and far from what a recursion can bear.
_DEEPEST = 20


def from_json(kind: type[T], value: object, where: str = "") -> T:
    """A dataclass from parsed JSON.

    Args:
        kind: a dataclass. Its fields are `bool`, `int`, `float`, `str`, dataclasses, tuples and dictionaries of one
            such type, unions of one with `None`, or `Any`.
        value: what `json.loads` gave.
        where: what to call it in an error.

    Raises:
        ValueError: a field is missing, unknown, of another type, or refused by the dataclass itself.
    """
    return cast(T, _read(kind, value, where or kind.__name__, 0))


def _read(kind: Any, value: object, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        _check_depth(value, where, depth)
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _read(kind, value, where, depth)
    if is_dataclass(kind):
        return _read_object(cast(type, kind), value, where, depth)
    if origin is tuple:
        items = _of(list, value, where)
        return tuple(_read(arguments[0], item, f"{where}[{i}]", depth + 1) for i, item in enumerate(items))
    if origin is dict:
        entries = _of(dict, value, where)
        return {key: _read(arguments[1], item, f"{where}.{key}", depth + 1) for key, item in entries.items()}
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where} is {_named(value)}, not a number")
        try:
            return _number(float(value), where)
        except OverflowError as error:
            raise ValueError(f"{where} is {_named(value)}, larger than any number here") from error
    if kind is int and isinstance(value, bool):
        raise ValueError(f"{where} is {_named(value)}, not a whole number")
    return _of(kind, value, where)


def _read_object(kind: type, value: object, where: str, depth: int) -> Any:
    given = _of(dict, value, where)
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(str(key) for key in given if key not in known):
        raise ValueError(f"{where} has the unknown field {unknown[0][:100]!r}")
    missing = [
        name for name, f in known.items() if name not in given and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks the field {missing[0]!r}")
    read = {name: _read(hints[name], item, f"{where}.{name}", depth + 1) for name, item in given.items()}
    try:
        return kind(**read)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _of(kind: Any, value: object, where: str) -> Any:
    if type(value) is not kind:
        names = {list: "a list", dict: "an object", str: "a text", int: "a whole number", bool: "true or false"}
        raise ValueError(f"{where} is {_named(value)}, not {names.get(kind, kind.__name__)}")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{where} is {_named(value)}, which is half of a character and cannot be written")
    return value


def _check_depth(value: object, where: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(value, list):
        for item in cast(list[object], value):
            _check_depth(item, where, depth + 1)
    elif isinstance(value, dict):
        for item in cast(dict[str, object], value).values():
            _check_depth(item, where, depth + 1)


def _number(value: float, where: str) -> float:
    if math.isnan(value):
        raise ValueError(f"{where} is NaN, not a number")
    return value


def _named(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} …"
