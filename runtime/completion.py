"""Completion of the command line in a shell: a script that shtab writes from the parsers."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

from .errors import BackendUnavailableError

PRINT_COMPLETION = "--print-completion"
SHELLS = ("bash", "zsh", "tcsh")

# Arguments without a type of their own that name files.
_FILES = {"model", "input", "port", "output", "bundle", "data", "file"}


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Declare the option that prints the script."""
    parser.add_argument(PRINT_COMPLETION, choices=SHELLS, help="print a completion script for a shell and exit")


def print_completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print the completion script of a parser.

    Raises:
        BackendUnavailableError: shtab is not installed.
    """
    try:
        shtab: Any = importlib.import_module("shtab")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f'{PRINT_COMPLETION} needs shtab: pip install "edgelstm[completion]"') from error
    _mark_files(parser, shtab.FILE)
    script: str = shtab.complete(parser, shell)
    if shell == "bash":
        # Where there is no command of that name, as in `edgelstm-run BUNDLE`, files are completed.
        script = re.sub(r"(?m)^complete ", "complete -o default ", script)
    print(script)
    return 0


def _mark_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Tell shtab which arguments are files: argparse does not know."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for command in action.choices.values():  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
                _mark_files(command, files)  # pyright: ignore[reportUnknownArgumentType]
        elif action.type is Path or action.dest in _FILES:
            action.complete = files  # pyright: ignore[reportAttributeAccessIssue]
