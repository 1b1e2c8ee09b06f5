"""Several boards at once, each with a line of its own for what is being done there and what came of it."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from ..devices.board import Board
from ..runtime.errors import EdgeLSTMError

Work = Callable[[Board, Callable[[str], None]], dict[str, Any]]


def add_board_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which boards, and how to reach them."""
    parser.add_argument("hosts", nargs="+", metavar="HOST", help="user@host, or a name in ~/.ssh/config")
    parser.add_argument("--name", help="what the boards call the model (default: its name)")
    parser.add_argument("--system", action="store_true", help="the whole system's, with a user of its own; takes root")
    parser.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="a further argument of ssh, such as --ssh-option=-oPort=2222; may be repeated",
    )


def on_every_board(args: argparse.Namespace, work: Work, line: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """Do something on all boards side by side.

    Args:
        args: with the boards.
        work: what; it says what it is doing, and gives a result.
        line: a result in words.

    Returns:
        The results in the order of the boards; of those that failed with the words under "error".
    """
    lines = _Lines(args.hosts, args.json)

    def one(host: str) -> dict[str, Any]:
        say = lambda text: lines.say(host, text)  # noqa: E731
        try:
            say("connects")
            with Board(host, args.ssh_option, say) as board:
                result = {"host": host, **work(board, say)}
            say(line(result))
        except (EdgeLSTMError, OSError, LookupError, TypeError) as error:
            # One board that answers what it should not is not to hide what came of the others.
            words = str(error) if isinstance(error, EdgeLSTMError) else f"{type(error).__name__}: {error}"
            lines.say(host, f"FAILED: {words.removeprefix(f'{host}: ')}")
            return {"host": host, "error": words}
        return result

    with lines, ThreadPoolExecutor(max(len(args.hosts), 1)) as pool:
        return list(pool.map(one, args.hosts))


class _Lines:
    """A line for each board: on a terminal all of them in place, else one after another as they change."""

    def __init__(self, hosts: list[str], as_json: bool) -> None:
        self._texts = dict.fromkeys(hosts, "")
        self._width = max(map(len, hosts), default=0)
        self._to = sys.stderr if as_json else sys.stdout
        self._lock = threading.Lock()
        self._live: Any = nullcontext()
        self._in_place = self._to.isatty()

    def __enter__(self) -> None:
        if self._in_place:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._to), refresh_per_second=8)
        self._live.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def say(self, host: str, text: str) -> None:
        """What is going on at a board."""
        with self._lock:
            self._texts[host] = text
            if self._in_place:
                from rich.text import Text

                self._live.update(Text("\n".join(f"{h:<{self._width}}  {t}" for h, t in self._texts.items())))
            else:
                print(f"{host:<{self._width}}  {text}", file=self._to, flush=True)
