"""Lines from a serial port."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import BackendUnavailableError, InputError
from .lines import EndlessLineError, Line, Wait, lines_of, wait_for
from .notes import note
from .rows import HeaderError, RowReader

# A port that was silent for so long, in seconds, before a line begins was not joined in the middle of that line.
_SILENCE = 0.05


class SerialPort:
    """Lines from a serial port."""

    def __init__(self, port: Any, name: str) -> None:
        self._port = port
        self._name = name
        self._opened = time.monotonic()
        self._first: float | None = None

    def lines(self, longest: int, wait: Wait = wait_for) -> Iterator[Line]:
        """Lines, for ever.

        Args:
            longest: bytes of a line.
            wait: waits for the port.

        Raises:
            InputError: the port is gone.
        """
        return lines_of(self._port.fileno(), self._name, longest, wait, self._read, "; is --baud right?")

    def from_whole_line(self, found: Iterator[Line], reader: Callable[[], RowReader]) -> Iterator[Line]:
        """The lines, without the first if that may have been joined in the middle.

        Half a number is a number too: `12.5,3` may be the end of `112.5,3`. JSON and a header show that they are
        whole; numbers are taken if the port was silent before them.

        Args:
            found: the lines.
            reader: makes a reader of such lines.
        """
        for line in found:
            if isinstance(line.text, str) and not line.text.strip():
                continue
            trial, why = reader(), "it may be cut off"
            silent = self._first is not None and self._first - self._opened >= _SILENCE
            try:
                row = trial.parse(line.text, line.number)
                whole = row is None or trial.kind == "json" or silent
            except InputError as error:
                why, whole = (
                    str(error),
                    isinstance(error, EndlessLineError) or (isinstance(error, HeaderError) and silent),
                )
            if whole:
                yield line
                break
            note(f"the first line is left out: {why}")
            break
        yield from found

    def _read(self) -> bytes:
        try:
            data: bytes = self._port.read(max(1, self._port.in_waiting))
        except OSError as error:  # SerialException is one.
            raise InputError(f"{self._name}: the port is gone ({error})") from error
        if self._first is None:
            self._first = time.monotonic()
        return data


@contextmanager
def serial_port(path: str, baud: int) -> Generator[SerialPort]:
    """Open a serial port: 8 data bits, no parity, one stop bit.

    Raises:
        BackendUnavailableError: pyserial is not installed.
        InputError: the port cannot be opened.
    """
    try:
        serial: Any = importlib.import_module("serial")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError('a serial port needs pyserial: pip install "edgelstm[serial]"') from error
    try:
        port = serial.Serial(path, baud, exclusive=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the serial port cannot be opened ({error})") from error
    try:
        yield SerialPort(port, path)
    finally:
        port.close()
