"""`run`: reads one timestep per line, writes one prediction per line, and keeps its state over a restart.

Lines come from a file, a pipe or a serial port, and predictions go to a file, a pipe or an MQTT topic. With
`--subscribe`, timesteps come from MQTT too, and all of it is `mqtt.service`'s.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import numpy as np

from .archive import replacing
from .columns import has_names
from .errors import InputError
from .heartbeat import Heartbeat
from .interrupt import Interrupt, interrupts
from .lines import lines, wait_for
from .model import Model, load
from .mqtt import options as mqtt_options
from .notes import note
from .rows import RowReader, json_object, numbered_lines
from .signature import add_signers_argument
from .stream import Stream

if TYPE_CHECKING:
    from .mqtt.publisher import Publisher

HELP = "stream timesteps from a file or standard input through a model, one prediction per line"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a bundle (.edge or folder), or an exported .elm, .tflite or .onnx file")
    parser.add_argument("input", nargs="?", metavar="FILE", help="CSV or JSON lines; - (default) is standard input")
    parser.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="where to, behind what is there already when it goes on from --state; - (default) is standard output",
    )
    add_model_arguments(parser)
    add_streaming_arguments(parser)
    parser.add_argument("--state", type=Path, metavar="FILE", help="continue from this state and keep it up to date")
    parser.add_argument(
        "--save-every",
        type=float,
        metavar="SECONDS",
        help="how often to write --state (default 10; with --subscribe 0: whenever no message waits)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="report a malformed or non-finite line and go on, instead of stopping"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="keep counts and step times in this file, as JSON")
    serial = parser.add_argument_group('serial port (pip install "edgelstm[serial]")')
    serial.add_argument("--input", dest="port", metavar="FILE", help="the same as FILE, or a port: /dev/ttyUSB0")
    serial.add_argument("--baud", type=int, metavar="N", help="--input is a serial port at this speed")
    mqtt_options.add_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of backend and precision."""
    parser.add_argument("--backend", default="auto", help="native, tflite, onnx, numpy or auto (default)")
    parser.add_argument("--precision", help="which artifact of the bundle; default: the most precise there is")
    add_signers_argument(parser)


def add_streaming_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how to stream, where it is not to be as the model was trained."""
    how = parser.add_argument_group("how to stream (default: as the model was trained, which `inspect` shows)")
    how.add_argument("--carry", action="store_true", help="carry the state on for ever")
    how.add_argument("--window", type=int, metavar="T", help="answer on the last T inputs, from zero state")
    how.add_argument("--hop", type=int, metavar="N", help="with a window: an answer every N timesteps")
    how.add_argument(
        "--partial", action="store_true", help="with a window: answers before it is full, on the inputs that are there"
    )


def streaming_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_streaming_arguments` declared, as keywords of `Model.stream`."""
    return {"carry": args.carry, "window": args.window, "hop": args.hop, "partial": args.partial}


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        EdgeLSTMError: the model, the state or a line of input is bad.
    """
    if args.port is not None and args.input is not None:
        raise InputError(f"{args.input} and --input {args.port}: give one of them")
    if args.baud is not None and args.port is None:
        raise InputError("--baud goes with --input PORT")
    args.input = args.port or args.input or "-"
    mqtt_options.check(args)
    if args.subscribe is not None:
        from .mqtt.command import serve

        return serve(args)
    model = load(args.model, args.backend, args.precision, args.allowed_signers)
    stream = model.stream(**streaming_settings(args))
    goes_on = False
    if args.state is not None and args.state.exists():
        stream.restore(_read_state(args.state))
        goes_on = True
    with ExitStack() as stack:
        stop = stack.enter_context(interrupts())
        publisher = None
        if args.mqtt is not None:
            from .mqtt.command import publishing

            publisher = stack.enter_context(publishing(args, stop, patient=args.baud is None))
        make_reader = partial(RowReader, model.features, _name(args.input), has_names(model.features))
        numbered = _numbered(args, stack, make_reader, stop, publisher)
        begun = goes_on and _begun(args.output)
        write = stack.enter_context(_sink(args.output, goes_on)) if publisher is None else publisher.write
        if args.state is not None:
            _save(stream, args.state)  # Fails now, not after hours, where it cannot be written.
            stack.callback(_save, stream, args.state)
        try:
            heartbeat = stack.enter_context(Heartbeat(args.report, {"model": model.name, "backend": model.backend}))
            read = _pump(model, stream, make_reader(), numbered, write, args, heartbeat, headed=not begun)
        except BrokenPipeError:
            # Whoever read the predictions has gone; nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    if not read and not stop.requested:
        raise InputError(f"{_name(args.input)}: holds no timesteps")
    return 0


def _numbered(
    args: argparse.Namespace,
    stack: ExitStack,
    make_reader: Callable[[], RowReader],
    stop: Interrupt,
    publisher: Publisher | None,
) -> Iterator[tuple[int, str]]:
    """The lines of the input with their numbers, until it ends or an interruption comes."""
    name = _name(args.input)
    if args.baud is not None:
        from .serial_port import serial_port

        port = stack.enter_context(serial_port(args.input, args.baud))
        found = port.from_whole_line(port.lines() if publisher is None else port.lines(publisher.wait), make_reader)
    else:
        try:
            with stop.waiting():
                source: BinaryIO = (
                    sys.stdin.buffer if args.input == "-" else stack.enter_context(_open(args.input, "rb", _opener))
                )
        except KeyboardInterrupt:
            return iter(())
        file = source.fileno()
        if publisher is None and not Path(args.input).is_fifo():
            found = numbered_lines(source, name)
        else:
            wait = wait_for if publisher is None else publisher.wait
            found = numbered_lines(lines(file, partial(os.read, file, 65536), name, wait), name)
    # The publisher waits for the interruption itself: none may come in the middle of what it does for its connection.
    return stop.until(found) if publisher is None else takewhile(lambda _: not stop.requested, found)


def _pump(
    model: Model,
    stream: Stream,
    reader: RowReader,
    numbered: Iterator[tuple[int, str]],
    write: Callable[[str], None],
    args: argparse.Namespace,
    heartbeat: Heartbeat,
    headed: bool,
) -> int:
    """Line in, prediction out, until the lines end; returns the number of those that were a timestep."""
    name = _name(args.input)
    save_every = 10.0 if args.save_every is None else args.save_every
    as_json = args.json or args.mqtt is not None
    read, saved = 0, time.monotonic()
    for number, line in numbered:
        try:
            first = reader.kind is None
            row = reader.parse(line, number)
            if first and reader.header and headed and not as_json:
                write(",".join(model.outputs))
            if row is None:
                continue
            read += 1
            with heartbeat.step():
                y = stream.step(row)
        except InputError as error:
            message = str(error) if name in str(error) else f"{name}: line {number}: {error}"
            if not args.skip_bad:
                raise InputError(message) from error
            print(f"edgelstm: skipped: {message}", file=sys.stderr, flush=True)
            continue
        if y is not None and not np.isfinite(y).all() and not stream.healthy:
            # Outside of what --skip-bad skips: every later line would be as bad.
            raise InputError(
                f"{name}: line {number}: after {stream.steps} timesteps the model's state is not a finite number any "
                "more, and no later answer will be one; it does not stay bounded when its state is carried on. Answer "
                f"on the last inputs only (--window {model.streaming.window or 'T'})"
            )
        if y is not None:
            as_object = as_json or reader.kind == "json"
            write(json_object(model.outputs, y) if as_object else ",".join(str(value) for value in y))
        if stream.window is None and stream.steps == (model.streaming.window or 0) + 1 and model.streaming.window:
            note(carried_note(model))
        if args.state is not None and time.monotonic() - saved >= save_every:
            _save(stream, args.state)
            saved = time.monotonic()
    return read


def carried_note(model: Model) -> str:
    """What whoever carries the state of a model trained on windows should know."""
    window = model.streaming.window
    return (
        f"the model was trained on windows of {window} timesteps, and its state is carried past that "
        f"(--window {window} answers on the last {window} only)"
    )


def _begun(path: str) -> bool:
    """Whether a file has lines, to go on behind; half a line, which a power cut leaves, is ended."""
    file = Path(path)
    if path == "-" or not file.is_file() or file.stat().st_size == 0:
        return False
    with _open(path, "rb+") as end:
        end.seek(-1, os.SEEK_END)
        if end.read() != b"\n":
            end.write(b"\n")
    return True


@contextmanager
def _sink(path: str, goes_on: bool) -> Generator[Callable[[str], None]]:
    """Something to write lines to, each flushed."""
    sink: TextIO = sys.stdout if path == "-" else _open(path, "a" if goes_on else "w")

    def write(line: str) -> None:
        sink.write(line + "\n")
        sink.flush()

    try:
        yield write
    finally:
        if path != "-":
            sink.close()


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _opener(path: str, flags: int) -> int:
    """Open a file, and a named pipe without waiting for its writer.

    Its lines are waited for as any input's are. To wait here would keep a service from being ready, and whoever writes
    to none but a ready one from writing.
    """
    if not Path(path).is_fifo():
        return os.open(path, flags)
    file = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(file, True)
    return file


def _open(path: str, mode: str, opener: Callable[[str, int], int] | None = None) -> Any:
    try:
        return open(path, mode, opener=opener)
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
