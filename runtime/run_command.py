"""`run`: reads one timestep per line, writes one prediction per line, and keeps its state over a restart.

Lines come from a file, a pipe or a serial port, and predictions go to a file, a pipe or an MQTT topic. With
`--subscribe`, timesteps come from MQTT too, and all of it is `mqtt.service`'s.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backends import Float32Array
from .collisions import check_paths
from .columns import has_names
from .errors import InputError
from .heartbeat import Heartbeat
from .interrupt import Interrupt, interrupts
from .lines import Line, lines_of, longest_line, wait_for
from .model import Model, load
from .mqtt import options as mqtt_options
from .notes import listed, note, shortened
from .rows import HeaderError, Layout, RowReader
from .run_answers import ALL, LAST, ROWS, check_rows, columns, lines_of_answer
from .run_input import RunInput, open_input
from .run_output import FileOutput, LineOutput, open_output, standard_output
from .run_state import RunState
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
        help="where to; behind what belongs to --state when it goes on from there; - (default) is standard output",
    )
    add_model_arguments(parser)
    add_streaming_arguments(parser)
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="continue from this state and keep it up to date, with how far input and output have come",
    )
    parser.add_argument(
        "--save-every",
        type=float,
        metavar="SECONDS",
        help="how often to write --state (default 10; with --subscribe 0: whenever no message waits)",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="report a malformed or non-finite line and go on, instead of stopping; a header of other columns stops",
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
    how.add_argument(
        "--rows",
        choices=ROWS,
        default=LAST,
        help="of an answer that is a sequence: its last row (default), or all, a line each with its number; on MQTT "
        "all in one message",
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
    if args.save_every is not None and not (math.isfinite(args.save_every) and args.save_every >= 0):
        raise InputError(f"--save-every is a number of seconds, 0 or more, not {args.save_every}")
    mqtt_options.check(args)
    check_paths(args)
    if args.subscribe is not None:
        from .mqtt.command import serve

        return serve(args)
    model = load(args.model, args.backend, args.precision, args.allowed_signers)
    check_rows(model, args.rows == ALL, args.mqtt is not None)
    stream = model.stream(**streaming_settings(args))
    with ExitStack() as stack:
        stop = stack.enter_context(interrupts())
        state = None
        if args.state is not None:
            state = RunState(args.state)
            stack.callback(state.close)
            if state.snapshot is not None:
                try:
                    stream.restore(state.snapshot)
                except InputError as error:
                    raise InputError(f"{args.state}: {error}") from error
        publisher = None
        if args.mqtt is not None:
            from .mqtt.command import publishing

            publisher = stack.enter_context(publishing(args, stop, patient=args.baud is None))
        try:
            with stop.waiting():
                source = RunInput(args.input) if args.baud is not None else open_input(args.input)
                if source.file is not None and args.input != "-":
                    stack.callback(os.close, source.file)
                if state is not None:
                    source.go_on(state.progress)
                # Of the same table a pipe goes on with the rows behind the header; another file has its own.
                before = state.progress.layout if state is not None and not source.is_file else None
                make_reader = partial(RowReader, model.features, source.name, has_names(model.features), before)
                found = _lines(args, source, stack, make_reader, stop, publisher, longest_line(model.features))
                output = _output(args, publisher, state)
                stack.callback(output.close)
        except KeyboardInterrupt:
            return 0
        running = _Run(model, stream, source, output, state, args)
        if state is not None:
            running.go_on(state, settle=_settle(publisher, args))
            stack.callback(state.save, ended=True)
        try:
            facts = {"model": model.name, "backend": model.backend}
            running.pump(found, make_reader(), stack.enter_context(Heartbeat(args.report, facts)))
        except BrokenPipeError:
            # Whoever read the predictions has gone; nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    if not running.read and not stop.requested:
        if source.goes_on:
            note(
                f"{source.name}: holds nothing new behind line {source.lines:,}; to take it again, behind that, "
                f"pipe it in (cat {source.name} | …)"
            )
        elif state is not None and state.snapshot is not None:
            note(f"{source.name}: holds no timesteps")  # As where the run before was killed when all was done.
        else:
            raise InputError(f"{source.name}: holds no timesteps")
    return 0


def _output(args: argparse.Namespace, publisher: Publisher | None, state: RunState | None) -> LineOutput | FileOutput:
    if publisher is not None:
        return LineOutput(publisher.write)
    if args.output == "-":
        return standard_output()
    goes_on = state is not None and state.snapshot is not None
    return open_output(args.output, goes_on, state.progress.output if state is not None else None)


def _settle(publisher: Publisher | None, args: argparse.Namespace) -> Callable[[], None]:
    """Before a save: the broker has what the state says was answered, unless the input cannot wait for that."""
    return (lambda: None) if publisher is None or args.baud is not None else publisher.finish


def _lines(
    args: argparse.Namespace,
    source: RunInput,
    stack: ExitStack,
    make_reader: Callable[[], RowReader],
    stop: Interrupt,
    publisher: Publisher | None,
    longest: int,
) -> Iterator[Line]:
    """The lines of the input, until it ends or an interruption comes."""
    if source.file is None:
        from .serial_port import serial_port

        port = stack.enter_context(serial_port(args.input, args.baud))
        wait = wait_for if publisher is None else publisher.wait
        found = port.from_whole_line(port.lines(longest, wait), make_reader)
    else:
        # A named pipe without a writer yet reads as ended.
        wait = publisher.wait if publisher is not None else wait_for if source.is_named_pipe else None
        found = lines_of(source.file, source.name, longest, wait, end=source.at, number=source.lines)
    # The publisher waits for the interruption itself: none may come in the middle of what it does for its connection.
    return stop.until(found) if publisher is None else takewhile(lambda _: not stop.requested, found)


@dataclass
class _Run:
    """Line in, prediction out.

    Attributes:
        read: lines that were a timestep.
    """

    model: Model
    stream: Stream
    source: RunInput
    output: LineOutput | FileOutput
    state: RunState | None
    args: argparse.Namespace
    read: int = 0

    def go_on(self, state: RunState, settle: Callable[[], None]) -> None:
        """Go on from a state, and say where that is."""
        steps, before, name = self.stream.steps, state.progress, self.source.name
        if self.source.goes_on:
            if steps:
                note(f"{name}: goes on behind line {self.source.lines:,}, with timestep {steps + 1:,}")
        else:
            if before.open_line is not None and before.layout is not None:
                # The last line of another file, which had no end, has none any more that could still come.
                reader = RowReader(self.model.features, f"the input before {name}", has_names(self.model.features))
                reader.resume(before.layout)
                row = reader.parse(before.open_line, before.lines + 1)
                if row is not None:
                    self.answer(self.stream.step(row), before.layout)
                    steps = self.stream.steps
            if steps and self.source.is_file:
                note(f"{state.path}: holds {steps:,} timesteps; {name} is read from its beginning, behind these")
            elif state.snapshot is not None and self.source.file is not None and not self.source.is_file:
                note(f"{state.path}: holds {steps:,} timesteps, so {name} has to go on with timestep {steps + 1:,}")
        if steps and not before.ended and isinstance(self.output, LineOutput):
            note(
                f"the run before this one was broken off: answers to timesteps after {steps:,} may come again "
                "(--output FILE is cut back to where the state is)"
            )
        state.follow(self.stream, self.source, self.output, self.source.at, self.source.lines, settle)

    def pump(self, found: Iterator[Line], reader: RowReader, heartbeat: Heartbeat) -> None:
        """Answer lines until they end."""
        state, args = self.state, self.args
        if state is not None and self.source.goes_on and state.progress.layout is not None:
            reader.resume(state.progress.layout)
        save_every = 10.0 if args.save_every is None else args.save_every
        saved = time.monotonic()
        for line in found:
            if state is not None and self.source.is_file and not line.whole and isinstance(line.text, str):
                state.hold()
            first, row, y = reader.layout is None, None, None
            try:
                row = reader.parse(line.text, line.number)
                if row is not None:
                    with heartbeat.step():
                        y = self.stream.step(row)
            except InputError as error:
                self._bad(line, error)
                row = None
            else:
                if first and reader.header is not None:
                    self._header(line, reader)
                if row is not None:
                    self.read += 1
                    self._check(line, y)
                    try:
                        self.answer(y, reader.layout)
                    except BrokenPipeError:  # Nobody reads on; the answer counts as given.
                        if state is not None:
                            state.took(line, reader.layout, True)
                        raise
            if state is not None:
                state.took(line, reader.layout, row is not None)
                if row is not None and time.monotonic() - saved >= save_every:
                    state.save()
                    saved = time.monotonic()

    def answer(self, y: Float32Array | None, layout: Layout | None) -> None:
        """Write an answer, if one is due."""
        model, stream = self.model, self.stream
        if y is not None:
            as_object = self._as_json or (layout is not None and layout.kind == "json")
            # Lines of one answer are written at once, so that none of them is there without the others.
            self.output.write("\n".join(lines_of_answer(y, model.outputs, self._all_rows, as_object, self._as_message)))
        if stream.window is None and stream.steps == (model.streaming.window or 0) + 1 and model.streaming.window:
            note(carried_note(model))

    @property
    def _all_rows(self) -> bool:
        return self.args.rows == ALL

    @property
    def _as_message(self) -> bool:
        return self.args.mqtt is not None

    @property
    def _as_json(self) -> bool:
        return self.args.json or self._as_message

    def _header(self, line: Line, reader: RowReader) -> None:
        if reader.in_order:
            note(
                f"{self.source.name}: line {line.number} ({listed(reader.header or ())}) is taken for a header, and "
                "its columns in their order for the features, which have no names"
            )
        if not self._as_json and not self.output.begun:
            self.output.write(",".join(columns(self.model.outputs, self._all_rows)))

    def _bad(self, line: Line, error: InputError) -> None:
        name = self.source.name
        message = str(error) if name in str(error) else f"{name}: line {line.number}: {error}"
        if isinstance(error, HeaderError) or not self.args.skip_bad:
            raise type(error)(message) from error
        print(f"edgelstm: skipped: {shortened(message)}", file=sys.stderr, flush=True)

    def _check(self, line: Line, y: Float32Array | None) -> None:
        """Raise where the state is no number any more: every later line would be as bad, so none is skipped."""
        if y is not None and not np.isfinite(y).all() and not self.stream.healthy:
            raise InputError(
                f"{self.source.name}: line {line.number}: after {self.stream.steps} timesteps the model's state is not "
                "a finite number any more, and no later answer will be one; it does not stay bounded when its state is "
                f"carried on. Answer on the last inputs only (--window {self.model.streaming.window or 'T'})"
            )


def carried_note(model: Model) -> str:
    """What whoever carries the state of a model trained on windows should know."""
    window = model.streaming.window
    return (
        f"the model was trained on windows of {window} timesteps, and its state is carried past that "
        f"(--window {window} answers on the last {window} only)"
    )
