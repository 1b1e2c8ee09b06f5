"""`run`: reads one timestep per line, writes one prediction per line, and keeps its state over a restart."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TextIO

import numpy as np

from .archive import replacing
from .errors import InputError
from .model import Model, load
from .rows import RowReader, numbered_lines
from .signature import add_signers_argument
from .stream import Stream

HELP = "stream timesteps from a file or standard input through a model, one prediction per line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a bundle (.edge or folder), or an exported .elm, .tflite or .onnx file")
    parser.add_argument(
        "input", nargs="?", default="-", metavar="FILE", help="CSV or JSON lines; - (default) is standard input"
    )
    parser.add_argument("--output", default="-", metavar="FILE", help="where to; - (default) is standard output")
    add_model_arguments(parser)
    parser.add_argument("--window", type=int, metavar="T", help="answer as on the last T inputs from zero state")
    parser.add_argument("--state", type=Path, metavar="FILE", help="continue from this state and keep it up to date")
    parser.add_argument(
        "--save-every", type=float, default=10.0, metavar="SECONDS", help="how often to write --state (default 10)"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="report a malformed or non-finite line and go on, instead of stopping"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of backend and precision."""
    parser.add_argument("--backend", default="auto", help="native, tflite, onnx, numpy or auto (default)")
    parser.add_argument("--precision", help="which artifact of the bundle; default: the most precise there is")
    add_signers_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        EdgeLSTMError: the model, the state or a line of input is bad.
    """
    model = load(args.model, args.backend, args.precision, args.allowed_signers)
    stream = model.stream(args.window)
    if args.state is not None and args.state.exists():
        stream.restore(_read_state(args.state))
    with ExitStack() as stack:
        stop = stack.enter_context(_interrupts())
        source: BinaryIO = sys.stdin.buffer if args.input == "-" else stack.enter_context(_open(args.input, "rb"))
        sink: TextIO = sys.stdout if args.output == "-" else stack.enter_context(_open(args.output, "w"))
        if args.state is not None:
            _save(stream, args.state)  # Fails now, not after hours, where it cannot be written.
            stack.callback(_save, stream, args.state)
        try:
            read = _pump(model, stream, source, sink, args, stop)
        except BrokenPipeError:
            # Whoever read the predictions has gone; nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    if not read and not stop.requested:
        raise InputError(f"{_name(args.input)}: holds no timesteps")
    return 0


def _pump(
    model: Model, stream: Stream, source: BinaryIO, sink: TextIO, args: argparse.Namespace, stop: _Interrupt
) -> int:
    """Line in, prediction out, until the end or an interruption; returns the number of lines that were a timestep."""
    name = _name(args.input)
    default = tuple(f"x{i}" for i in range(len(model.features)))
    reader = RowReader(model.features, name, model.features != default)
    read, saved = 0, time.monotonic()
    for number, line in stop.until(numbered_lines(source, name)):
        try:
            first = reader.kind is None
            row = reader.parse(line, number)
            if first and reader.header and not args.json:
                _write(sink, ",".join(model.outputs))
            if row is None:
                continue
            read += 1
            y = stream.step(row)
        except InputError as error:
            message = str(error) if name in str(error) else f"{name}: line {number}: {error}"
            if not args.skip_bad:
                raise InputError(message) from error
            print(f"edgelstm: skipped: {message}", file=sys.stderr, flush=True)
            continue
        if not np.isfinite(y).all() and not stream.healthy:
            # Outside of what --skip-bad skips: every later line would be as bad.
            raise InputError(
                f"{name}: line {number}: after {stream.steps} timesteps the model's state is not a finite number any "
                "more, and no later answer will be one; it does not stay bounded when its state is carried on. Answer "
                f"on the last inputs only (--window {model.window or 'T'})"
            )
        values = [str(value) for value in y]
        if args.json or reader.kind == "json":
            pairs = (f"{json.dumps(key)}: {_json_number(v)}" for key, v in zip(model.outputs, values, strict=True))
            _write(sink, "{" + ", ".join(pairs) + "}")
        else:
            _write(sink, ",".join(values))
        if args.window is None and model.window is not None and stream.steps == model.window + 1:
            print(
                f"edgelstm: note: the model was trained on windows of {model.window} timesteps; the state is now "
                f"carried past that (--window {model.window} answers on the last {model.window} only)",
                file=sys.stderr,
                flush=True,
            )
        if args.state is not None and time.monotonic() - saved >= args.save_every:
            _save(stream, args.state)
            saved = time.monotonic()
    return read


class _Interrupt:
    """Turns Ctrl-C and SIGTERM into an end between two timesteps: never in the middle of one."""

    def __init__(self) -> None:
        self.requested = False
        self._waiting = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        del number, frame
        self.requested = True
        if self._waiting:
            raise KeyboardInterrupt

    def until(self, items: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """The items, until they end or an interruption comes."""
        while not self.requested:
            try:
                self._waiting = True
                item = next(items, None)
            except KeyboardInterrupt:
                return
            finally:
                self._waiting = False
            if item is None:
                return
            yield item


@contextmanager
def _interrupts() -> Generator[_Interrupt]:
    interrupt = _Interrupt()
    before = {number: signal.signal(number, interrupt.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(sink: TextIO, line: str) -> None:
    sink.write(line + "\n")
    sink.flush()


def _json_number(text: str) -> str:
    # JSON has no NaN or infinity; a model that overflows gives them all the same.
    return text if text.lstrip("-")[:1].isdigit() else "null"


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _open(path: str, mode: str) -> Any:
    try:
        return Path(path).open(mode)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror})") from error


def _read_state(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the state cannot be read ({error.strerror})") from error


def _save(stream: Stream, path: Path) -> None:
    if not stream.healthy:
        return  # The last one saved is worth more.
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(stream.snapshot())
    except OSError as error:
        raise InputError(f"{path}: the state cannot be written ({error.strerror})") from error
