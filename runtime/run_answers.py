"""The answers of `run` as lines: of one that is a sequence the last row, or all of them, each with its number."""

from __future__ import annotations

from collections.abc import Sequence

from .backends import Float32Array
from .errors import InputError
from .model import Model
from .rows import json_columns, json_object

# Which rows of an answer that is a sequence are written.
LAST, ALL = ROWS = ("last", "all")
# The column that says which row of an answer a line is, from 1 on.
ROW = "row"


def check_rows(model: Model, all_rows: bool, as_message: bool) -> None:
    """Raise `InputError` where all rows of each answer were asked for, and there is one, or no name for its number."""
    if not all_rows:
        return
    if model.rows is None:
        raise InputError("--rows all: each answer of this model is a single row; leave it out")
    if ROW in model.outputs and not as_message:
        raise InputError(
            f"--rows all: an output is called {ROW!r}, as the column is that numbers the rows; export the model with "
            "another name for it (--outputs)"
        )


def columns(outputs: Sequence[str], all_rows: bool) -> tuple[str, ...]:
    """The header of lines of CSV."""
    return (ROW, *outputs) if all_rows else tuple(outputs)


def lines_of_answer(
    y: Float32Array, outputs: Sequence[str], all_rows: bool, as_object: bool, as_message: bool
) -> list[str]:
    """An answer as lines.

    Args:
        y: (outputs,), or (rows, outputs).
        outputs: their names.
        all_rows: whether to write all rows.
        as_object: as JSON objects instead of CSV.
        as_message: as one object, in which each output has the list of its values.
    """
    if all_rows and as_message:
        return [json_columns(outputs, y)]
    rows: list[tuple[dict[str, int], Float32Array]] = [({}, y if y.ndim == 1 else y[-1])]
    if all_rows:
        rows = [({ROW: number}, row) for number, row in enumerate(y, 1)]
    if as_object:
        return [json_object(outputs, row, first) for first, row in rows]
    return [",".join(map(str, (*first.values(), *row))) for first, row in rows]
