"""What messages hold: a timestep as JSON or as float32, with or without a sequence number; and their answers.

JSON is an object with the features by name, or an array of them in order; an object may carry a sequence number, and
the answer, an object of the outputs by name, repeats it. Float32 is 4 · features bytes, little-endian, in order; the
answer is the outputs in the same way. Of an answer that is a sequence the last row is sent; or all of it, each output
with the list of its values, or as float32 row by row. `auto` takes text (UTF-8 without control characters) as JSON and
all else as float32, so that neither a cut JSON text nor a CSV line is ever taken for numbers. Some few float32 values
are text as well, such as 12.1412 (the letters DCBA); `auto` refuses them as JSON that does not parse, `float32` takes
them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..backends import Float32Array
from ..errors import InputError
from ..notes import quoted
from ..rows import json_columns, json_object, json_values, parse_json

_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Reading:
    """A message's content.

    Attributes:
        values: the features, in order.
        sequence: the sequence number, or None.
        is_json: how it came, and how the answer goes.
    """

    values: Sequence[float] | Float32Array
    sequence: int | None
    is_json: bool


class PayloadReader:
    """Reads the messages of a model."""

    def __init__(
        self,
        features: Sequence[str],
        outputs: Sequence[str],
        kind: str,
        sequence: str | None,
        all_rows: bool = False,
    ) -> None:
        """Read for these features.

        Args:
            features: the model's, in order.
            outputs: the model's, in order.
            kind: `auto`, `json` or `float32`.
            sequence: the field of a JSON object that is its sequence number; None if there is none.
            all_rows: whether to send all rows of an answer that is a sequence, instead of its last one.

        Raises:
            InputError: a feature or an output has the name of that field.
        """
        if sequence in (*features, *outputs):
            raise InputError(
                f"--sequence {sequence}: the model has a feature or an output of that name; name another field, or "
                "none with --sequence ''"
            )
        self._features, self._outputs = tuple(features), tuple(outputs)
        self._kind, self._sequence, self._all_rows = kind, sequence, all_rows
        self._size = 4 * len(self._features)

    def read(self, payload: bytes) -> Reading:
        """A message's content.

        Raises:
            InputError: it is malformed. Whether the values are finite is the stream's to say.
        """
        text = None if self._kind == "float32" else _text(payload)
        if text is not None:
            return self._read_json(text)
        if self._kind == "json":
            raise InputError("not UTF-8 text, so not JSON")
        if len(payload) != self._size:
            raise InputError(f"{len(payload)} bytes where {self._size} belong ({len(self._features)} float32)")
        return Reading(np.frombuffer(payload, "<f4").astype(np.float32), None, False)

    def _read_json(self, text: str) -> Reading:
        try:
            value: Any = parse_json(text)
        except InputError as error:
            hint = "; if it is float32, say --payload float32" if len(text.encode()) == self._size else ""
            raise InputError(f"{error}{hint}") from error
        if not isinstance(value, dict | list):
            raise InputError("a JSON message is an object or an array")
        sequence: Any = None
        if isinstance(value, dict) and self._sequence is not None:
            sequence = cast("dict[str, Any]", value).get(self._sequence)
            if sequence is not None and (type(sequence) is not int or not -(2**63) <= sequence < 2**63):
                raise InputError(f"{self._sequence} is {quoted(sequence)}, not a whole number of 64 bits")
        return Reading(json_values(value, self._features), sequence, True)

    def answer(self, reading: Reading, y: Float32Array) -> bytes:
        """The answer to a reading, (outputs,) or (rows, outputs), in the form in which that came."""
        if y.ndim == 2 and not self._all_rows:
            y = y[-1]
        if not reading.is_json:
            return y.astype("<f4").tobytes()
        first = {} if reading.sequence is None else {cast(str, self._sequence): reading.sequence}
        return (json_object if y.ndim == 1 else json_columns)(self._outputs, y, first).encode()


def _text(payload: bytes) -> str | None:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text
