"""What is to be written must be nothing that is read, or written otherwise: told by device and inode, not by name."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .durable import beside, kind_of
from .errors import InputError
from .manifest import MANIFEST
from .signature import SYSTEM_WIDE, VARIABLE

# What a path leads to: what kind of thing, and which. Of what is not there yet: its folder, and its name in that.
_Identity = tuple[str, int, int, str]


def check_paths(args: argparse.Namespace) -> None:
    """Refuse to write over what was given, before anything is opened.

    Args:
        args: of `run`.

    Raises:
        InputError: two are the same, or no file is where only a file makes sense.
    """
    folder = args.subscribe is not None  # What --state is then.
    writes = [("--output", args.output)] if args.output != "-" else []
    for option, path in (("--state", args.state), ("--report", args.report)):
        if path is None or (folder and option == "--state"):
            continue
        _check_file(option, path)
        writes += [(option, str(path)), (option, str(beside(Path(os.path.realpath(path)))))]
    known: dict[_Identity, str] = {}
    for what, path in _read(args, folder):
        if (found := _identity(path)) is not None:
            known[found] = what
    for option, path in writes:
        found = _identity(path)
        if found is None or _is_terminal(found, args.input):
            continue
        if found in known:
            raise InputError(
                f"{option} {path} is the same file as {known[found]}, which would be overwritten; name another"
            )
        known[found] = f"{option} {path}"
    _check_standard_output(args)


def _read(args: argparse.Namespace, folder: bool) -> Iterator[tuple[str, str | int]]:
    model = Path(args.model)
    yield f"the model {model}", args.model
    if (model / MANIFEST).is_file():
        for name in sorted(file for file in model.rglob("*") if file.is_file()):
            yield f"the model's {name}", str(name)
    if args.input != "-":
        yield f"the input {args.input}", args.input
    elif (file := _descriptor(sys.stdin)) is not None and stat.S_ISREG(os.fstat(file).st_mode):
        yield "the input, which is standard input", file
    yield "the allowed signers", str(args.allowed_signers or os.environ.get(VARIABLE) or SYSTEM_WIDE)
    for option in ("credentials", "ca_file", "client_cert", "client_key"):
        if (path := getattr(args, option)) is not None:
            yield f"--{option.replace('_', '-')} {path}", str(path)
    if folder and args.state is not None:
        there = [path.name for path in args.state.iterdir()] if args.state.is_dir() else []
        for name in {*there, "streams.sqlite", "streams.sqlite-wal", "streams.sqlite-shm", "saves", ".lock"}:
            yield f"the states' {name}", str(args.state / name)


def _identity(path: str | int) -> _Identity | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        if isinstance(path, int):
            return None
        real = os.path.realpath(path)
        with suppress(OSError, ValueError):
            parent = os.stat(os.path.dirname(real))
            return "none yet", parent.st_dev, parent.st_ino, os.path.basename(real)
        return None
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return "device", found.st_rdev, 0, ""
    return "file", found.st_dev, found.st_ino, ""


def _check_file(option: str, path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # Not there yet, or what opens it says why it cannot.
    if not stat.S_ISREG(mode):
        raise InputError(f"{option} {path}: is {kind_of(mode)}, where only a file can be")


def _is_terminal(found: _Identity, source: str) -> bool:
    """Whether it is the terminal that the command runs in, which may well be both where lines come from and go to."""
    file = _descriptor(sys.stdin)
    if file is None or not os.isatty(file):
        return False
    return found == _identity(file) and source in ("-", "/dev/stdin", "/dev/tty")


def _check_standard_output(args: argparse.Namespace) -> None:
    """Standard output behind the lines that are read would be read as well, for ever."""
    if args.output != "-" or args.mqtt is not None:
        return
    target, source = _descriptor(sys.stdout), _descriptor(sys.stdin) if args.input == "-" else args.input
    if target is None or source is None or not stat.S_ISREG(os.fstat(target).st_mode):
        return
    if _identity(target) == _identity(source):
        raise InputError("standard output is the same file as the input, which would never end; name another")


def _descriptor(stream: object) -> int | None:
    try:
        return stream.fileno()  # type: ignore[attr-defined]  # pyright: ignore
    except (AttributeError, OSError, ValueError):  # None, or a stream of a program's own.
        return None
