"""`edgelstm status`: what runs on boards, whether it still computes there what Keras computed, how fast, since when."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from ..devices.agent.messages import Status, plain
from ..devices.board import Board, BoardError
from ..devices.deploy import located, place
from .boards import add_board_arguments, on_every_board


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_board_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; exit status 1 if a board failed, its service does not run, or something there is damaged."""

    def work(board: Board, say: Callable[[str], None]) -> dict[str, Any]:
        say("asks")
        facts = board.probe(place(args.name or "any", args.system))
        names = facts.deployed if args.name is None else (args.name,)
        if not names:
            raise BoardError(f"{board.host}: nothing is deployed here{'' if args.system else ' for this user'}")
        return {"models": [_condition(board, facts.base.rpartition("/")[0], name, args.system) for name in names]}

    results = on_every_board(args, work, _line)
    if args.json:
        print(json.dumps({"boards": results}))
    models = [model for result in results for model in result.get("models", ())]
    down = any("error" in result for result in results) or any(m["arguments"] and not m["running"] for m in models)
    return 1 if down or any(m["damaged"] for m in models) else 0


def _condition(board: Board, folder: str, name: str, system: bool) -> dict[str, Any]:
    found = plain(board.call(Status(**plain(located(name, f"{folder}/{name}", system)))))
    return {**found, **found.pop("deployed"), "name": name}


def _line(result: dict[str, Any]) -> str:
    return "\n    ".join(map(_model, result["models"]))


def _model(model: dict[str, Any]) -> str:
    damaged = "".join(f"; DAMAGED: {problem}" for problem in model["damaged"])
    return _words(model) + damaged + "".join(f"; {note}" for note in model["notes"])


def _words(model: dict[str, Any]) -> str:
    text = f"{model['name']} {model['version']}: {model['parity']['parity']['snr_db']:.1f} dB against Keras there"
    report = model["report"]
    step = model["step"] if report is None or report["step_us"]["p50"] is None else report["step_us"]
    text += f", step {step['p50']:.1f} µs (p99 {step['p99']:.1f})"
    if not model["arguments"]:
        return text + ", no service"
    if report is None:
        return text + (", the service has said nothing yet" if model["active"] else ", NOT RUNNING")
    if not model["running"]:
        return f"{text}, NOT RUNNING; its last word was {_span(model['now'] - report['written'])} ago"
    ends = "" if model["lingers"] else ", ends with the last login there"
    return f"{text}, up {_span(report['up'] + model['now'] - report['written'])}, {report['steps']:,} timesteps{ends}"


def _span(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
