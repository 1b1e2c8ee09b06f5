"""Reading a CSV into a time series or into labelled sequences, and dividing either without looking ahead."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.errors import InputError, reason_of

# pandas' own types say that every operation may give anything; a table is what the functions here take.
DataFrame: TypeAlias = Any
Floats = npt.NDArray[np.float32]
MISSING = ("fill", "drop", "refuse")
# Of a column's values: below, Keras's Normalization takes them for constant; above, their squares leave float32.
LEAST_SPREAD, LARGEST_SPREAD = 1e-6, 1e18


@dataclass(frozen=True)
class Series:
    """A time series ready for training.

    Attributes:
        features: names of the inputs, in order.
        values: (rows, features), without gaps inside a segment.
        target: (rows,) the value to forecast; NaN where it was not measured, so that no filled value is ever scored.
        segments: [start, stop) of runs of rows without a gap.
        sampling: the time column and its usual distance in seconds, if there is one.
        notes: what was left out or filled, for people.
    """

    features: tuple[str, ...]
    values: Floats
    target: Floats
    segments: tuple[tuple[int, int], ...]
    sampling: dict[str, Any] | None
    notes: tuple[str, ...]

    def between(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The segments' parts within [start, stop)."""
        parts = [(max(a, start), min(b, stop)) for a, b in self.segments]
        return [(a, b) for a, b in parts if b > a]


@dataclass(frozen=True)
class LabelledSequences:
    """Sequences of one label each.

    Attributes:
        features: names of the inputs, in order.
        sequences: each (timesteps, features).
        labels: the label of each sequence, as an index into `classes`.
        classes: the labels in order.
        notes: what was left out or filled, for people.
    """

    features: tuple[str, ...]
    sequences: tuple[Floats, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def read_series(
    path: Path,
    target: str,
    features: Sequence[str] | None = None,
    time: str | None = None,
    missing: str = "fill",
    fill_limit: int = 3,
) -> Series:
    """Read a time series from a CSV whose rows are in order of time.

    Args:
        path: the file.
        target: the column to forecast.
        features: the columns to forecast from; None takes every numeric column that tells something.
        time: a column of times to learn the sampling from; None looks for one.
        missing: `fill` carries the last value over gaps of up to `fill_limit` rows and cuts the series at longer
            ones; `drop` cuts it at every gap; `refuse` raises.
        fill_limit: in rows.

    Raises:
        InputError: the file or a column does not fit.
    """
    frame = read_frame(path)
    column(frame, target, path)
    numeric(frame, (target,), path)
    sampling = sampling_of(frame, time, path)
    names, notes = choose_features(frame, features, path, {sampling["column"]} if sampling else set())
    if features is None and target not in names:
        raise InputError(f"{path}: the target {target!r} has one value only; choose a column that varies")
    table = frame[list(names)]
    numeric(frame, names, path)
    gaps = table.isna().any(axis=1).to_numpy()
    _refuse_missing(frame[list(dict.fromkeys([*names, target]))], missing, path)
    filled = table.ffill(limit=fill_limit) if missing == "fill" else table
    broken = filled.isna().any(axis=1).to_numpy()
    if gaps.any():
        notes.append(
            f"{int(gaps.sum())} rows with missing values: {int((gaps & ~broken).sum())} filled with the last value, "
            f"{int(broken.sum())} left out (the series is cut there)"
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (~broken).astype(np.int8), [0]])))
    segments = tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))
    if not segments:
        raise InputError(f"{path}: no row has a value in each of {', '.join(names)}; choose other --features")
    values = filled.to_numpy(np.float32)
    values = np.where(np.isnan(values), np.float32(0), values)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are infinite or beyond float32; remove these rows")
    targets = frame[target].to_numpy(np.float32)
    _check_sizes(np.column_stack([values, targets[:, None]]), (*names, target), path)
    return Series(names, values, targets, segments, sampling, tuple(notes))


def read_sequences_by_label(
    path: Path, sequence: str, label: str, features: Sequence[str] | None = None, missing: str = "fill"
) -> LabelledSequences:
    """Read labelled sequences from a CSV: rows of one value in column `sequence` are one sequence, in order.

    Raises:
        InputError: the file or a column does not fit, or a sequence has two labels.
    """
    frame = read_frame(path)
    for name in (sequence, label):
        column(frame, name, path)
        if frame[name].isna().any():
            raise InputError(f"{path}: line {_first_missing(frame[[name]])}: column {name!r} is empty; fill it in")
    names, notes = choose_features(frame, features, path, {sequence, label})
    numeric(frame, names, path)
    _refuse_missing(frame[list(names)], missing, path)
    sequences: list[Floats] = []
    labels: list[str] = []
    for key, group in frame.groupby(sequence, sort=False):
        own = group[label].astype(str).unique()
        if len(own) != 1:
            raise InputError(f"{path}: sequence {key!r} has the labels {', '.join(own)}; one label belongs to each")
        table = group[list(names)]
        table = table.ffill().bfill() if missing == "fill" else table.dropna()
        if len(table) == 0 or table.isna().any().any():
            notes.append(f"sequence {key} left out: a column of it holds no value")
            continue
        sequences.append(np.ascontiguousarray(table.to_numpy(np.float32)))
        labels.append(str(own[0]))
    if sequences:
        _check_sizes(np.concatenate(sequences), names, path)
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise InputError(f"{path}: column {label!r} has {len(classes)} label; at least 2 are needed to tell apart")
    return LabelledSequences(
        names, tuple(sequences), np.array([classes.index(text) for text in labels]), classes, tuple(notes)
    )


def read_frame(path: Path) -> DataFrame:
    """A CSV as a table.

    Raises:
        InputError: there is no such file, or it is empty or ragged.
    """
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.readline()
        separator = max(",;\t", key=head.count)
        names = next(csv.reader([head], delimiter=separator), [])
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise InputError(f"{path}: the header names the column {twice[0]!r} twice")
        frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", on_bad_lines="error", index_col=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, ValueError) as error:
        reason = reason_of(error) or "it is empty"
        raise InputError(f"{path}: cannot be read as CSV ({reason})") from error
    if frame.empty:
        raise InputError(f"{path}: holds no rows")
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: rows have more values than the header has names")
    return frame


def column(frame: DataFrame, name: str, path: Path) -> None:
    """Raise `InputError` unless there is such a column, naming those that there are."""
    if name not in frame.columns:
        known = [str(known) for known in frame.columns]
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"{path}: no column {name!r}; {hint}there are {', '.join(known)}")


def choose_features(
    frame: DataFrame, features: Sequence[str] | None, path: Path, apart: set[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The columns to learn from, and why others are left out."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if features is not None:
        for name in features:
            column(frame, name, path)
        if len(set(features)) != len(features) or not features:
            raise InputError(f"{path}: --features names a column twice, or none")
        return tuple(features), []
    chosen: list[str] = []
    notes: list[str] = []
    for name in (str(name) for name in frame.columns if name not in apart):
        values = frame[name].dropna()
        if not is_numeric_dtype(values) or is_bool_dtype(values):
            notes.append(f"column {name!r} left out: text")
        elif values.nunique() < 2:
            notes.append(f"column {name!r} left out: always the same")
        elif len(values) == len(frame) and (values.diff().dropna() == 1).all():
            notes.append(f"column {name!r} left out: counts the rows")
        else:
            chosen.append(name)
    if not chosen:
        raise InputError(f"{path}: no numeric column to learn from; name some with --features")
    return tuple(chosen), notes


def numeric(frame: DataFrame, names: Sequence[str], path: Path) -> None:
    """Raise `InputError` if a column holds text, naming the first."""
    import pandas as pd

    for name in names:
        values: Any = pd.to_numeric(frame[name], errors="coerce")
        wrong = values.isna() & frame[name].notna()
        if pd.api.types.is_bool_dtype(frame[name]) or wrong.any():
            first = int(np.argmax(wrong.to_numpy())) if wrong.any() else 0
            raise InputError(
                f"{path}: line {first + 2}: column {name!r} holds {frame[name].iloc[first]!r}, not a number; leave it "
                "out of --features, or replace its values by numbers (one column of 0 and 1 for each text)"
            )


def sampling_of(frame: DataFrame, time: str | None, path: Path) -> dict[str, Any] | None:
    """The column of times and its usual distance in seconds."""
    import warnings

    import pandas as pd

    if time is not None:
        column(frame, time, path)
    texts = [str(c) for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])]
    for name in [time] if time is not None else texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = pd.to_datetime(frame[name], errors="coerce")
        if times.isna().any():
            if time is not None:
                raise InputError(f"{path}: column {time!r} does not hold times throughout")
            continue
        steps = times.diff().dt.total_seconds().to_numpy()[1:]
        if (steps < 0).any():
            line = int(np.argmax(steps < 0)) + 3
            raise InputError(f"{path}: line {line}: {name!r} goes back in time; sort the rows first")
        return {"column": name, "seconds": float(np.median(steps)) if len(steps) else None}
    return None


def _check_sizes(values: Floats, names: Sequence[str], path: Path) -> None:
    """Raise `InputError` for a column whose spread float32 cannot normalise: its square is 0 or infinite there."""
    for name, spread in zip(names, np.nanstd(values.astype(np.float64), axis=0), strict=True):
        if spread > 0 and not LEAST_SPREAD <= spread <= LARGEST_SPREAD:
            raise InputError(
                f"{path}: column {name!r} has a standard deviation of {spread:.1g}, which cannot be normalised in "
                "float32; give it in another unit"
            )


def _refuse_missing(frame: DataFrame, missing: str, path: Path) -> None:
    if missing not in MISSING:
        raise InputError(f"--missing {missing}: there are {', '.join(MISSING)}")
    if missing == "refuse" and frame.isna().any().any():
        name = next(str(c) for c in frame.columns if frame[c].isna().any())
        line = _first_missing(frame[[name]])
        raise InputError(f"{path}: line {line}: column {name!r} is empty; fill it in, or pass --missing fill or drop")


def _first_missing(frame: DataFrame) -> int:
    return int(np.argmax(frame.isna().any(axis=1).to_numpy())) + 2
