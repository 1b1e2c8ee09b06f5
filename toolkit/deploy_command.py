"""`edgelstm deploy`: puts a verified model on boards as a service, goes back to the one before, lists what is there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..devices.agent.messages import Hold, Rollback, Versions, plain
from ..devices.board import Board
from ..devices.deploy import Deployment, deploy, located, place
from ..runtime.bundle import Bundle
from ..runtime.errors import InputError
from ..runtime.table import table
from .boards import add_board_arguments, on_every_board


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "edgelstm deploy [options] BUNDLE HOST … [-- RUN_ARGUMENTS …]"
    parser.epilog = (
        "What stands behind -- is what the service runs `edgelstm-run BUNDLE` with, such as "
        "--input /dev/ttyUSB0 --baud 115200 --mqtt mqtt://localhost --publish pump/prediction; {state} in it is the "
        "board's folder for what is kept. Without, the model is installed and nothing is started."
    )
    parser.add_argument("model", help="a .edge file; for --rollback and --list the name of a deployed model will do")
    add_board_arguments(parser)
    parser.add_argument(
        "--wheels",
        type=Path,
        default=Path("dist"),
        metavar="DIR",
        help="wheels for the boards (`make wheels`; default dist)",
    )
    parser.add_argument("--backend", default="auto", help="of the runtime there (default: auto, the fastest)")
    parser.add_argument("--precision", help="which artifact; default: the most precise there is")
    parser.add_argument("--keep", type=int, default=3, metavar="N", help="versions that stay on the board (default 3)")
    parser.add_argument(
        "--allow-older",
        action="store_true",
        help="where signatures are required: also a bundle that is older than the last one accepted there",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rollback", action="store_true", help="go back to the version before the current one")
    parser.add_argument("--to", metavar="VERSION", help="with --rollback: to this one, as --list shows it")
    which.add_argument("--list", action="store_true", help="show the versions that are there")


def run(args: argparse.Namespace) -> int:
    """Run the command; exit status 1 if a board failed."""
    if args.keep < 2:
        raise InputError("--keep: at least 2, the current version and the one to go back to")
    if args.to is not None and not args.rollback:
        raise InputError("--to goes with --rollback")
    if args.list or args.rollback:
        name = args.name or (Bundle.open(args.model).manifest.name if Path(args.model).is_file() else args.model)
        return _list(args, name) if args.list else _roll_back(args, name)
    deployment = Deployment(
        Path(args.model),
        args.wheels,
        tuple(args.rest),
        args.name,
        args.backend,
        args.precision,
        args.system,
        args.keep,
        allow_older=args.allow_older,
    )
    place(deployment.title, args.system)  # Fails before any board is asked.

    def work(board: Board, say: Callable[[str], None]) -> dict[str, Any]:
        outcome = deploy(deployment, board, say)
        found = {"base": outcome.base, "removed": list(outcome.removed)}
        return {**found, **plain(outcome.activated), **plain(outcome.verified)}

    return _end(args, on_every_board(args, work, _line))


def _roll_back(args: argparse.Namespace, name: str) -> int:
    base = place(name, args.system)

    def work(board: Board, say: Callable[[str], None]) -> dict[str, Any]:
        say("goes back")
        told = plain(located(name, board.probe(base).base, args.system))
        board.call(Hold(**told))
        return plain(board.call(Rollback(**told, id=args.to)))

    return _end(args, on_every_board(args, work, _line))


def _list(args: argparse.Namespace, name: str) -> int:
    base = place(name, args.system)

    def work(board: Board, say: Callable[[str], None]) -> dict[str, Any]:
        say("lists")
        listing = board.call(Versions(**plain(located(name, board.probe(base).base, args.system))))
        found = [plain(version) for version in listing.versions]
        return {
            "versions": [{**version, **(version.pop("deployed") or {})} for version in found],
            "notes": list(listing.notes),
        }

    results = on_every_board(args, work, lambda result: f"{len(result['versions'])} versions")
    header = ["version", "", "bytes", "bundle", "EdgeLSTM", "backend"]
    for result in () if args.json else results:
        rows = [
            [
                v["id"],
                "current" * v["current"]
                + ", " * (v["current"] and v["problem"] is not None)
                + "DAMAGED" * bool(v["problem"]),
                f"{v['bytes']:,}",
                *(v.get(key, "") for key in ("bundle", "edgelstm", "backend")),
            ]
            for v in result.get("versions", [])
        ]
        if rows:
            print(f"\n{result['host']}\n{table(header, rows)}")
        for problem in (*(v["problem"] for v in result.get("versions", [])), *result.get("notes", ())):
            if problem:
                print(problem)
    return _end(args, results)


def _end(args: argparse.Namespace, results: list[dict[str, Any]]) -> int:
    if args.json:
        print(json.dumps({"boards": results}))
    return 1 if any("error" in result for result in results) else 0


def _line(result: dict[str, Any]) -> str:
    notes = "".join(f"; {note}" for note in result["notes"])
    if "parity" not in result:
        return f"back to {result['version']}" + _service(result) + notes
    parity, step = result["parity"]["parity"], result["step"]
    return (
        f"{result['version']}: {step['backend']} {step['precision']}, {parity['snr_db']:.1f} dB against Keras there, "
        f"step {step['p50']:.1f} µs (p99 {step['p99']:.1f})"
        + (_service(result) or f"; start it with {result['base']}/current/start")
        + notes
    )


def _service(result: dict[str, Any]) -> str:
    if not result["service"]:
        return ""
    ends = "" if result["lingers"] else " UNTIL YOU LOG OUT THERE (sudo loginctl enable-linger USER makes it stay)"
    return f", service runs{ends}"
