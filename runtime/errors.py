"""Every error that EdgeLSTM raises on purpose.

A message says what is wrong, where (file, layer, line), and what to do about it.
The command line prints it without a traceback.
"""

from __future__ import annotations

import re
from typing import Any

# What colours a terminal, and what else does not print.
_UNPRINTED = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f]")


class EdgeLSTMError(Exception):
    """Root of all errors raised by EdgeLSTM.

    Attributes:
        report: what a command had found when it failed, which under `--json` stands beside the error.
    """

    report: dict[str, Any] | None = None


class UnsupportedModelError(EdgeLSTMError):
    """A Keras model, layer or setting that cannot be exported or streamed exactly."""


class BundleError(EdgeLSTMError):
    """A bundle or an artifact that is damaged, forged, too new, or not one of ours."""


class InputError(EdgeLSTMError):
    """Data or arguments that do not fit: widths, dtypes, non-finite values, unknown columns."""


class ParityError(EdgeLSTMError):
    """An artifact whose outputs differ from Keras's by more than its tolerance.

    Attributes:
        results: what was measured of each artifact, where several were.
    """

    def __init__(self, message: str, results: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.results = results


class BackendUnavailableError(EdgeLSTMError):
    """A backend whose library is not installed on this machine."""


def reason_of(error: object, most: int = 300) -> str:
    """What another library says of its failure: on one line of at most so many characters, without colours."""
    text = " ".join(_UNPRINTED.sub("", str(error)).split())
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
