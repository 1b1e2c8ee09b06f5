"""Reads timesteps from text: CSV with or without a header, or JSON lines; one timestep per line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from .backends import Float32Array
from .errors import InputError


class RowReader:
    """Turns lines into timesteps of a model's features, in their order.

    What the lines are is seen from the first: JSON objects by feature name, JSON arrays in order, CSV with a header
    (columns are found by name, others are left out), or CSV without one (exactly the features, in order).

    Attributes:
        kind: `json`, `csv`, or None before the first line.
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

    def parse(self, line: str, number: int) -> list[float] | None:
        """The values of a timestep, or None for a header or a blank line.

        Args:
            line: one line of text.
            number: its number, from 1, for errors.

        Raises:
            InputError: it is malformed.
        """
        text = line.strip().removeprefix("\ufeff")
        if not text:
            return None
        if self.kind is None:
            self.kind = "json" if text[0] in "{[" else "csv"
            if self.kind == "csv":
                self._delimiter = max(",;\t", key=text.count)
                if self._is_header(text):
                    self._read_header(text, number)
                    return None
        return self._json(text, number) if self.kind == "json" else self._csv(text, number)

    def _is_header(self, text: str) -> bool:
        return any(not _is_number(cell) for cell in self._cells(text))

    def _read_header(self, text: str, number: int) -> None:
        names = [cell.strip() for cell in self._cells(text)]
        self.header, self._width = True, len(names)
        missing = [feature for feature in self._features if feature not in names]
        if not missing:
            self._columns = [names.index(feature) for feature in self._features]
        elif self._named or len(names) != len(self._features):
            raise InputError(
                f"{self._source}: line {number}: no column {', '.join(map(repr, missing))}; "
                f"the header has {', '.join(map(repr, names))}"
            )

    def _csv(self, text: str, number: int) -> list[float]:
        cells = self._cells(text)
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
        except ValueError as error:
            raise InputError(f"{self._source}: line {number}: not JSON ({error})") from error
        if isinstance(value, dict):
            given = cast("dict[str, Any]", value)
            missing = [feature for feature in self._features if feature not in given]
            if missing:
                raise InputError(f"{self._source}: line {number}: no {', '.join(map(repr, missing))}")
            values = [given[feature] for feature in self._features]
        else:
            values = cast("list[Any]", value if isinstance(value, list) else [value])
            if len(values) != len(self._features):
                raise InputError(
                    f"{self._source}: line {number}: {len(values)} values where {len(self._features)} belong"
                )
        return [self._number(v, name, number) for v, name in zip(values, self._features, strict=True)]

    def _number(self, value: Any, name: str, number: int) -> float:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except (ValueError, OverflowError):
                pass
        raise InputError(f"{self._source}: line {number}: {name} is {value!r}, not a number")

    def _cells(self, text: str) -> list[str]:
        return next(csv.reader([text], delimiter=self._delimiter))


def numbered_lines(stream: Iterable[bytes], source: str) -> Iterator[tuple[int, str]]:
    """Lines of a binary stream as text, each with its number from 1.

    Raises:
        InputError: a line is not UTF-8.
    """
    for number, line in enumerate(stream, 1):
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{source}: line {number}: not UTF-8 text") from error


def read_table(path: Path, features: Sequence[str], named: bool = True) -> Float32Array:
    """A whole file of timesteps: (T, features).

    Raises:
        InputError: the file cannot be read, is malformed or holds no timestep.
    """
    reader = RowReader(features, str(path), named)
    rows: list[list[float]] = []
    try:
        with path.open("rb") as file:
            for number, line in numbered_lines(file, str(path)):
                row = reader.parse(line, number)
                if row is not None:
                    rows.append(row)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise InputError(f"{path}: holds no timesteps")
    return np.array(rows, np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
