"""`edgelstm status`: what runs on boards, whether it still computes there what Keras computed, how fast, since when."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from ..devices.board import Board
from ..devices.deploy import common, place
from .boards import add_board_arguments, on_every_board


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="the name of a deployed model")
    add_board_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; exit status 1 if a board failed or its service does not run."""
    base = place(args.name or args.model, args.system)

    def work(board: Board, say: Callable[[str], None]) -> dict[str, Any]:
        say("asks")
        told = common(args.name or args.model, board.probe(base).base, args.system)
        return board.call("status", told)

    results = on_every_board(args, work, _line)
    if args.json:
        print(json.dumps({"boards": results}))
    down = ["error" in result or (result["arguments"] and not result["running"]) for result in results]
    return 1 if any(down) else 0


def _line(result: dict[str, Any]) -> str:
    parity = result["parity"]["parity"]
    text = f"{result['version']}: {parity['snr_db']:.1f} dB against Keras there"
    report = result["report"]
    if report is None:
        return text + (", the service has said nothing yet" if result["arguments"] else ", no service")
    step = report["step_us"]
    times = "" if step["p50"] is None else f", step {step['p50']:.1f} µs (p99 {step['p99']:.1f})"
    if not result["running"]:
        return f"{text}, NOT RUNNING; its last word was {_span(result['now'] - report['written'])} ago"
    return f"{text}{times}, up {_span(result['now'] - report['started'])}, {report['steps']:,} timesteps"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
