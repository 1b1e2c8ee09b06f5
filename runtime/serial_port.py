"""Lines from a serial port."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import BackendUnavailableError, InputError
from .lines import EndlessLineError, Wait, lines, numbered_lines, wait_for
from .notes import note
from .rows import HeaderError, RowReader

# A port that was silent for so long, in seconds, before a line begins was not joined in the middle of that line.
_SILENCE = 0.05
# Bytes without a line's end after which there is none to be expected.
_LONGEST_LINE = 65_536


class SerialPort:
    """Lines from a serial port."""

    def __init__(self, port: Any, name: str) -> None:
        self._port = port
        self._name = name
        self._opened = time.monotonic()
        self._first: float | None = None

    def lines(self, wait: Wait = wait_for) -> Iterator[tuple[int, str | InputError]]:
        """Lines with their numbers, for ever; for a line that is none, what is wrong with it.

        Raises:
            InputError: the port is gone.
        """
        found = lines(self._port.fileno(), self._read, wait, _LONGEST_LINE)
        return numbered_lines(found, self._name, f"{_LONGEST_LINE} bytes without a line's end; is --baud right?")

    def from_whole_line(
        self, numbered: Iterator[tuple[int, str | InputError]], reader: Callable[[], RowReader]
    ) -> Iterator[tuple[int, str | InputError]]:
        """The lines, without the first if that may have been joined in the middle.

        Half a number is a number too: `12.5,3` may be the end of `112.5,3`. JSON and a header show that they are
        whole; numbers are taken if the port was silent before them.

        Args:
            numbered: lines with their numbers.
            reader: makes a reader of such lines.
        """
        for number, line in numbered:
            if isinstance(line, str) and not line.strip():
                continue
            trial, why = reader(), "it may be cut off"
            silent = self._first is not None and self._first - self._opened >= _SILENCE
            try:
                row = trial.parse(line, number)
                whole = row is None or trial.kind == "json" or silent
            except InputError as error:
                why, whole = (
                    str(error),
                    isinstance(error, EndlessLineError) or (isinstance(error, HeaderError) and silent),
                )
            if whole:
                yield number, line
                break
            note(f"the first line is left out: {why}")
            break
        yield from numbered

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
