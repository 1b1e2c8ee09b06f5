"""How a command of the command line fails: words on standard error, an object under `--json`, and an exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from .errors import EdgeLSTMError, ParityError
from .notes import shortened


class UsageError(Exception):
    """Arguments that a command does not take."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class CommandParser(argparse.ArgumentParser):
    """A parser that raises `UsageError` where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise UsageError(message, self.format_usage())


def own_arguments(given: Sequence[str]) -> list[str]:
    """What stands before `--`."""
    return list(given[: given.index("--")] if "--" in given else given)


def wants_json(given: Sequence[str]) -> bool:
    """Whether `--json`, or what argparse takes for it, is among the arguments, even where they cannot be parsed."""
    return any(len(argument) > 2 and "--json".startswith(argument) for argument in own_arguments(given))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What was probably meant."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)


def guarded(command: Callable[[], int], as_json: bool) -> int:
    """Run a command: its own exit status, or 2 for bad usage or input and 1 for a failed check."""
    try:
        status = command()
        sys.stdout.flush()
        return status
    except UsageError as error:
        sys.stderr.write(error.usage)
        return _failed(error, f"edgelstm: error: {error}", 2, as_json)
    except ParityError as error:
        return _failed(error, f"edgelstm: {error}", 1, as_json)
    except EdgeLSTMError as error:
        return _failed(error, f"edgelstm: error: {error}", 2, as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk under standard output, a device that is pulled out: what no command can foresee everywhere.
        return _failed(error, f"edgelstm: error: {error}", 2, as_json)
    except KeyboardInterrupt as error:
        return _failed(error, "edgelstm: interrupted", 130, as_json)


def _failed(error: BaseException, text: str, status: int, as_json: bool) -> int:
    print(shortened(text), file=sys.stderr)
    if as_json:
        described = {"type": type(error).__name__, "message": shortened(str(error)) or "interrupted", "status": status}
        report: dict[str, Any] = (error.report if isinstance(error, EdgeLSTMError) else None) or {}
        with suppress(OSError, ValueError):  # Standard output may be what failed.
            print(json.dumps({**report, "error": described}), flush=True)
    return status
