"""`edgelstm-run`: the command line of a device that has only the runtime."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from . import inspect_command, run_command, verify_command
from .errors import EdgeLSTMError, ParityError


class Command(Protocol):
    """A module with a command of the command line."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and give its exit status."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `edgelstm-run`; `edgelstm-run BUNDLE` is short for `edgelstm-run run BUNDLE`."""
    commands = {"run": run_command, "verify": verify_command, "inspect": inspect_command}
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] not in (*commands, "-h", "--help", "--version"):
        given.insert(0, "run")
    parser = argparse.ArgumentParser(
        prog="edgelstm-run",
        description="Run an exported model one timestep per line. `edgelstm-run BUNDLE` is short for "
        "`edgelstm-run run BUNDLE`.",
    )
    add_version(parser)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.items():
        add_command(subparsers, name, command.HELP, command.add_arguments, command.run)
    return guarded(parser.parse_args(given))


def add_version(parser: argparse.ArgumentParser) -> None:
    """Declare `--version`."""
    from . import __version__

    parser.add_argument("--version", action="version", version=f"EdgeLSTM {__version__}")


def add_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
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


def guarded(args: argparse.Namespace) -> int:
    """Run a parsed command: its own exit status, or 2 for bad usage or input and 1 for a failed check."""
    try:
        status = args.run(args)
        sys.stdout.flush()
    except ParityError as error:
        print(f"edgelstm: {error}", file=sys.stderr)
        return 1
    except EdgeLSTMError as error:
        print(f"edgelstm: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk under standard output, a device that is pulled out: what no command can foresee everywhere.
        print(f"edgelstm: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("edgelstm: interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
