"""`edgelstm-run`: the command line of a device that has only the runtime."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from . import inspect_command, run_command, verify_command
from .completion import PRINT_COMPLETION, add_completion, print_completion
from .errors import InputError
from .failures import CommandParser, guarded, nearest, wants_json
from .mqtt import streams_command


class Command(Protocol):
    """A module with a command of the command line."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and give its exit status."""
        ...


COMMANDS = {"run": run_command, "verify": verify_command, "inspect": inspect_command, "streams": streams_command}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `edgelstm-run`; `edgelstm-run BUNDLE` is short for `edgelstm-run run BUNDLE`."""
    given = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _main(given), wants_json(given))


def _main(given: list[str]) -> int:
    if given and given[0] not in (*COMMANDS, "-h", "--help", "--version", PRINT_COMPLETION):
        meant = None if os.path.lexists(given[0]) else nearest(given[0], COMMANDS)
        if meant is not None:
            raise InputError(f"no command {given[0]!r}, and no such file; did you mean {meant!r}?")
        given = ["run", *given]
    parser = CommandParser(
        prog="edgelstm-run",
        description="Run an exported model one timestep per line. `edgelstm-run BUNDLE` is short for "
        "`edgelstm-run run BUNDLE`.",
    )
    add_version(parser)
    add_completion(parser)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        add_command(subparsers, name, command.HELP, command.add_arguments, command.run)
    args = parser.parse_args(given)
    if args.print_completion is not None:
        return print_completion(parser, args.print_completion)
    if args.command is None:
        parser.error("a command or a bundle is needed")
    return args.run(args)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Declare `--version`."""
    from . import __version__

    parser.add_argument("--version", action="version", version=f"EdgeLSTM {__version__}")


def add_command(
    subparsers: argparse._SubParsersAction[CommandParser],  # pyright: ignore[reportPrivateUsage]
    name: str,
    text: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add a command, with the `--json` that every command has."""
    parser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one machine-readable object instead of text")
    parser.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
