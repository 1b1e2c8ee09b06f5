"""Timesteps as text: reads CSV with or without a header, or JSON lines, one per line; writes answers as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from .backends import Float32Array
from .errors import InputError
from .lines import lines_of_file, numbered_lines


class HeaderError(InputError):
    """A header of as many columns as there are features, but of others: all that follows would be misread."""


class RowReader:
    """Turns lines into timesteps of a model's features, in their order.

    What the lines are is seen from the first: JSON objects by feature name, JSON arrays in order, CSV with a header
    (columns are found by name, others are left out), or CSV without one (exactly the features, in order).

    Attributes:
        kind: `json`, `csv`, or None before the first good line.
        header: whether the CSV had a header.
    """

    def __init__(self, features: Sequence[str], source: str, named: bool = True) -> None:
        """Read for these features.

        Args:
            features: their names in order.
            source: what to call the input in an error.
            named: False if nobody ever named them, so that a header's names cannot be matched and its order counts.
        """
        self._features = tuple(features)
        self._source = source
        self._named = named
        self._delimiter = ","
        self._columns: list[int] | None = None
        self._width = len(self._features)
        self.kind: str | None = None
        self.header = False

    def parse(self, line: str | InputError, number: int) -> list[float] | None:
        """The values of a timestep, or None for a header or a blank line.

        A line that is refused changes nothing: what the lines are is seen from the first that is not.

        Args:
            line: one line of text, or what is wrong with it.
            number: its number, from 1, for errors.

        Raises:
            HeaderError: it is a header of other columns.
            InputError: it is malformed.
        """
        if isinstance(line, InputError):
            raise line
        text = line.strip().removeprefix("\ufeff")
        if not text:
            return None
        if self.kind is not None:
            return self._json(text, number) if self.kind == "json" else self._csv(text, number)
        if text[0] in "{[":
            row = self._json(text, number)
            self.kind = "json"
            return row
        self._delimiter = max(",;\t", key=text.count)
        row = None
        if any(not _is_number(cell) for cell in self._cells(text, number)):
            self._read_header(text, number)
        else:
            row = self._csv(text, number)
        self.kind = "csv"
        return row

    def _read_header(self, text: str, number: int) -> None:
        names = [cell.strip() for cell in self._cells(text, number)]
        missing = [feature for feature in self._features if feature not in names]
        if not missing:
            self._columns = [names.index(feature) for feature in self._features]
        elif self._named or len(names) != len(self._features) or any(map(_is_number, names)):
            message = (
                f"{self._source}: line {number}: no column {', '.join(map(repr, missing))}; "
                f"the header has {', '.join(map(repr, names))}"
            )
            # Names of as many columns as there are features, and none of them a number: no noise is like that, and
            # what follows would be taken for the features.
            whole = len(names) == len(self._features) > 1 and not any(_is_number(name) or not name for name in names)
            raise (HeaderError if whole and text.isprintable() else InputError)(message)
        self.header, self._width = True, len(names)

    def _csv(self, text: str, number: int) -> list[float]:
        cells = self._cells(text, number)
        if len(cells) != self._width:
            raise InputError(
                f"{self._source}: line {number}: {len(cells)} values where {self._width} belong"
                + ("" if self.header else f" ({', '.join(self._features)})")
            )
        chosen = cells if self._columns is None else [cells[i] for i in self._columns]
        return [self._number(cell, name, number) for cell, name in zip(chosen, self._features, strict=True)]

    def _json(self, text: str, number: int) -> list[float]:
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self._source}: line {number}: not JSON ({error})") from error
        try:
            return json_values(value, self._features)
        except InputError as error:
            raise InputError(f"{self._source}: line {number}: {error}") from error

    def _number(self, value: str, name: str, number: int) -> float:
        try:
            return _number(value, name)
        except InputError as error:
            raise InputError(f"{self._source}: line {number}: {error}") from error

    def _cells(self, text: str, number: int) -> list[str]:
        try:
            return next(csv.reader([text], delimiter=self._delimiter))
        except csv.Error as error:  # A carriage return within the line, say: noise on a serial port.
            raise InputError(f"{self._source}: line {number}: not a line of CSV ({error})") from error


def read_table(path: Path, features: Sequence[str], named: bool = True) -> Float32Array:
    """A whole file of timesteps: (T, features).

    Raises:
        InputError: the file cannot be read, is malformed or holds no timestep.
    """
    reader = RowReader(features, str(path), named)
    rows: list[list[float]] = []
    try:
        with path.open("rb") as file:
            for number, line in numbered_lines(lines_of_file(file), str(path)):
                row = reader.parse(line, number)
                if row is not None:
                    rows.append(row)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise InputError(f"{path}: holds no timesteps")
    return np.array(rows, np.float32)


def json_values(value: Any, features: Sequence[str]) -> list[float]:
    """The values of a timestep from parsed JSON: an object with the features by name, or an array of them in order.

    Raises:
        InputError: one is missing or no number. The message does not say where; the caller knows.
    """
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        missing = [feature for feature in features if feature not in given]
        if missing:
            raise InputError(f"no {', '.join(map(repr, missing))}")
        values = [given[feature] for feature in features]
    else:
        values = cast("list[Any]", value if isinstance(value, list) else [value])
        if len(values) != len(features):
            raise InputError(f"{len(values)} values where {len(features)} belong")
    return [_number(v, name) for v, name in zip(values, features, strict=True)]


def json_object(names: Sequence[str], values: Float32Array, first: Mapping[str, int] | None = None) -> str:
    """An answer as a JSON object; the shortest decimals that give the same float32 again.

    JSON has no NaN or infinity; a model that overflows gives them all the same, and they are written as null.

    Args:
        names: of the outputs.
        values: (outputs,).
        first: what stands in front of them.
    """
    pairs = [f"{json.dumps(name)}: {value}" for name, value in (first or {}).items()]
    for name, value in zip(names, values, strict=True):
        text = str(value)
        pairs.append(f"{json.dumps(name)}: {text if text.lstrip('-')[:1].isdigit() else 'null'}")
    return "{" + ", ".join(pairs) + "}"


def _number(value: Any, name: str) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool) and not _has_separator(value):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise InputError(f"{name} is {value!r}, not a number")


def _has_separator(value: object) -> bool:
    """Whether it is a number as Python has it only, such as 1_000: for others it is no number, or noise."""
    return isinstance(value, str) and "_" in value


def _is_number(cell: str) -> bool:
    if _has_separator(cell):
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True
