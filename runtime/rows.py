"""Timesteps as text: reads CSV with or without a header, or JSON lines, one per line; writes answers as JSON."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from .backends import Float32Array
from .errors import InputError
from .lines import lines_of, longest_line
from .notes import listed, quoted


class HeaderError(InputError):
    """A header, but not of the features and each of them once: all that follows would be misread."""


@dataclass(frozen=True)
class Layout:
    """What lines are, as seen from the first.

    Attributes:
        kind: `json` or `csv`.
        delimiter: of CSV.
        header: the names of the columns, where there was a line with them.
    """

    kind: str
    delimiter: str = ","
    header: tuple[str, ...] | None = None


class RowReader:
    """Turns lines into timesteps of a model's features, in their order.

    What the lines are is seen from the first: JSON objects by feature name, JSON arrays in order, CSV with a header
    (columns are found by name, others are left out), or CSV without one (exactly the features, in order).

    Attributes:
        layout: what they are, or None before the first good line.
    """

    def __init__(self, features: Sequence[str], source: str, named: bool = True, before: Layout | None = None) -> None:
        """Read for these features.

        Args:
            features: their names in order.
            source: what to call the input in an error.
            named: False if nobody ever named them, so that a header's names cannot be matched and its order counts.
            before: what earlier lines of the same table were: if the first is a row of that, it goes on.
        """
        self._features = tuple(features)
        self._source = source
        self._named = named
        self._before = before
        self._columns: list[int] | None = None
        self._width = len(self._features)
        self.layout: Layout | None = None

    @property
    def kind(self) -> str | None:
        """`json`, `csv`, or None before the first good line."""
        return None if self.layout is None else self.layout.kind

    @property
    def header(self) -> tuple[str, ...] | None:
        """The names of CSV's columns, if it had a line with them."""
        return None if self.layout is None else self.layout.header

    @property
    def in_order(self) -> bool:
        """Whether there was a header, and its names are those of no features, so that its order counts."""
        return self.header is not None and self._columns is None

    def resume(self, layout: Layout) -> None:
        """Go on with lines that are of a layout, as found before.

        Raises:
            InputError: its header is of other columns.
        """
        if layout.header is not None:
            self._columns = self._found(layout.header, layout.header, "the lines before")
            self._width = len(layout.header)
        self.layout = layout

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
        if self.layout is not None:
            if self.layout.kind == "json":
                return self._json(text, number)
            return self._csv(self._cells(text, self.layout.delimiter, number), number)
        if text[0] in "{[":
            row = self._json(text, number)
            self.layout = Layout("json")
            return row
        if self._before is not None and self._before.header is not None:
            try:
                self.resume(self._before)
                return self.parse(line, number)
            except InputError:
                self._columns, self._width, self.layout = None, len(self._features), None
        delimiter = max(",;\t", key=text.count)
        cells = self._cells(text, delimiter, number)
        if all(map(is_number, cells)):
            row = self._csv(cells, number)
            self.layout = Layout("csv", delimiter)
            return row
        names = tuple(cell.strip() for cell in cells)
        self._columns = self._found(names, cells, f"line {number}")
        self.layout, self._width = Layout("csv", delimiter, names), len(names)
        return None

    def _found(self, names: Sequence[str], cells: Sequence[str], where: str) -> list[int] | None:
        """The columns of the features by a header's names; None if it names columns of which nobody named any."""
        times = Counter(names)
        missing = [feature for feature in self._features if feature not in times]
        if not missing:
            if twice := [feature for feature in self._features if times[feature] > 1]:
                raise HeaderError(f"{self._source}: {where}: the header has {listed(twice)} more than once")
            return [names.index(feature) for feature in self._features]
        # Names of as many columns as there are features, none of them a number or twice: no noise is like that, and
        # what follows would be taken for the features.
        whole = len(names) == len(self._features) == len(times) and all(map(_is_name, names))
        whole = whole and ",".join(cells).isprintable()
        if self._named or not whole:
            message = f"{self._source}: {where}: no column {listed(missing)}; the header has {listed(names)}"
            strange = next((cell for cell in cells if _is_nearly_number(cell) and not is_number(cell)), None)
            if strange is not None:
                message += f" ({quoted(strange)} is not a number as others write them)"
            raise (HeaderError if whole and len(names) > 1 else InputError)(message)
        return None

    def _csv(self, cells: Sequence[str], number: int) -> list[float]:
        if len(cells) != self._width:
            raise InputError(
                f"{self._source}: line {number}: {len(cells)} values where {self._width} belong"
                + (f" ({', '.join(self._features)})" if self.header is None else "")
            )
        chosen = cells if self._columns is None else [cells[i] for i in self._columns]
        return [self._number(cell, name, number) for cell, name in zip(chosen, self._features, strict=True)]

    def _json(self, text: str, number: int) -> list[float]:
        try:
            return json_values(parse_json(text), self._features)
        except InputError as error:
            raise InputError(f"{self._source}: line {number}: {error}") from error

    def _number(self, value: str, name: str, number: int) -> float:
        try:
            return _number(value, name)
        except InputError as error:
            raise InputError(f"{self._source}: line {number}: {error}") from error

    def _cells(self, text: str, delimiter: str, number: int) -> list[str]:
        try:
            return next(csv.reader([text], delimiter=delimiter))
        except csv.Error as error:
            why = "a carriage return stands within it" if "\r" in text else str(error)
            raise InputError(f"{self._source}: line {number}: not a line of CSV: {why}") from error


def read_table(path: Path, features: Sequence[str], named: bool = True) -> Float32Array:
    """A whole file of timesteps: (T, features).

    Raises:
        InputError: the file cannot be read, is malformed or holds no timestep.
    """
    reader = RowReader(features, str(path), named)
    rows: list[list[float]] = []
    try:
        with path.open("rb") as file:
            for line in lines_of(file.fileno(), str(path), longest_line(features)):
                row = reader.parse(line.text, line.number)
                if row is not None:
                    rows.append(row)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise InputError(f"{path}: holds no timesteps")
    return np.array(rows, np.float32)


def parse_json(text: str) -> Any:
    """JSON as it was written.

    Raises:
        InputError: it is none, or a name stands in one object twice, of which parsers take one or the other. The
            message does not say where; the caller knows.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from error
    except ValueError as error:  # A limit of Python's.
        raise InputError("not JSON of ours: a whole number in it has thousands of digits") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = Counter(name for name, _ in pairs)
        raise InputError(f"{listed([name for name in found if times[name] > 1])} is there more than once")
    return found


def json_values(value: Any, features: Sequence[str]) -> list[float]:
    """The values of a timestep from parsed JSON: an object with the features by name, or an array of them in order.

    Raises:
        InputError: one is missing or no number. The message does not say where; the caller knows.
    """
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        missing = [feature for feature in features if feature not in given]
        if missing:
            raise InputError(f"no {listed(missing)}")
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
    return _object(names, [_json_number(value) for value in values], first)


def json_columns(names: Sequence[str], rows: Float32Array, first: Mapping[str, int] | None = None) -> str:
    """An answer that is a sequence as a JSON object: each output with the list of its values, oldest first.

    Args:
        names: of the outputs.
        rows: (rows, outputs).
        first: what stands in front of them.
    """
    return _object(names, [f"[{', '.join(map(_json_number, column))}]" for column in rows.T], first)


def _object(names: Sequence[str], values: Sequence[str], first: Mapping[str, int] | None) -> str:
    pairs = [f"{json.dumps(name)}: {value}" for name, value in (first or {}).items()]
    pairs += [f"{json.dumps(name)}: {value}" for name, value in zip(names, values, strict=True)]
    return "{" + ", ".join(pairs) + "}"


def _json_number(value: object) -> str:
    text = str(value)
    return text if text.lstrip("-")[:1].isdigit() else "null"


def _number(value: Any, name: str) -> float:
    if isinstance(value, str) and not is_number(value):
        pass
    elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise InputError(f"{name} is {quoted(value)}, not a number")


def is_number(cell: str) -> bool:
    """Whether a text is a number, as most languages write it: in ASCII, decimal, without separators; or NaN, infinity.

    Python takes more, such as 1_000 and the digits of every script. For others these are none, or noise.
    """
    text = cell.strip(" \t\r")
    return text.isascii() and text.isprintable() and "_" not in text and _is_nearly_number(text)


def _is_nearly_number(cell: str) -> bool:
    """Whether Python takes a text for a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_name(cell: str) -> bool:
    """Whether a cell can be a column's name: not a number, nor what begins as one does."""
    return bool(cell) and not _is_nearly_number(cell) and not cell.lstrip("+-.")[:1].isnumeric()
