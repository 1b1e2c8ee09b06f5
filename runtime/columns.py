"""Inputs that carry names, as pandas' do: taken by name, whatever their order, as a CSV's columns are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from .errors import InputError
from .notes import listed


def has_names(features: Sequence[str]) -> bool:
    """Whether somebody named the features; `x0`, `x1`, … stand for names that nobody gave."""
    return tuple(features) != tuple(f"x{i}" for i in range(len(features)))


def by_name(values: Any, features: Sequence[str], name: str) -> Any:
    """A DataFrame's columns, or a Series' values, in the order of the features; anything else as it is.

    Columns that are no features are left out. Labels that are no names, such as 0, 1, 2, and those of a model whose
    features nobody named, say nothing: there the order counts.

    Raises:
        InputError: a feature has no column. The message says which, and what the columns are.
    """
    labels = cast(Any, getattr(values, "columns" if getattr(values, "ndim", 1) == 2 else "index", None))
    if labels is None or callable(labels):  # An array, a list (whose `index` is a method), …
        return values
    given = list(labels)
    missing = [feature for feature in features if feature not in given]
    if not missing:
        return values if given == list(features) else values[list(features)]
    if has_names(features) and any(isinstance(label, str) for label in given):
        raise InputError(
            f"{name}: no column {listed(missing)}; there are {listed(given)}. Name them "
            "as the model's features are named, or pass .to_numpy() if they are in its order"
        )
    return values
