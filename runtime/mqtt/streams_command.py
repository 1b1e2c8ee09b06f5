"""`streams`: lists the topics of which a service on MQTT keeps streams, and drops some."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import InputError
from ..table import table
from .store import open_database
from .topics import Subscription

HELP = "list the topics whose streams a service on MQTT keeps in its --state folder, or drop some"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what `run --mqtt` has as --state; it must not run")
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="FILTER",
        help="drop the streams of a topic, or of all that a filter such as plant/+/in matches; may be repeated",
    )
    parser.add_argument(
        "--drop-damaged", action="store_true", help="drop what is left of damaged streams, and say no more of them"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        EdgeLSTMError: there are no streams, they are in use, or a filter matches none.
    """
    folder: Path = args.folder
    if not folder.is_dir() or not any((folder / name).exists() for name in ("streams.sqlite", "saves")):
        raise InputError(f"{folder}: no folder in which `edgelstm-run --mqtt … --state` keeps streams")
    filters = [Subscription(text, "--drop") for text in args.drop]
    database = open_database(folder)
    try:
        for each in filters:
            if not any(each.match(row.topic) is not None for row in database.rows()):
                raise InputError(f"--drop {each.text}: no stream of such a topic is kept in {folder}")
        dropped = database.drop(lambda topic, _: any(f.match(topic) is not None for f in filters)) if filters else []
        if args.drop_damaged:
            database.drop_damaged()
        clock = database.clock
        streams = [
            {
                "topic": row.topic,
                "idle_seconds": max(0, round(clock - row.used)),
                "sequence": row.sequence,
                "bytes": len(row.state) + len(row.answers),
            }
            for row in database.rows()
        ]
        damaged = [{"topic": topic, "problem": reason} for topic, reason in database.damaged()]
        lost = database.lost is not None
    finally:
        database.close()
    if args.json:
        print(json.dumps({"streams": streams, "damaged": damaged, "lost": lost, "dropped": sorted(dropped)}))
        return 0
    for topic in sorted(dropped):
        print(f"dropped {_shown(topic)}")
    if not filters and not args.drop_damaged:
        rows = [(_shown(s["topic"]), s["idle_seconds"], _number(s["sequence"]), s["bytes"]) for s in streams]
        print(table(("topic", "idle s", "sequence", "bytes"), rows) if rows else "no streams")
    for each in damaged:
        topic = "a topic that is not known any more" if each["topic"] is None else _shown(each["topic"])
        print(f"damaged: {topic}: {each['problem']}")
    if lost:
        print("damaged: other streams were lost, of topics that are not known")
    return 0


def _shown(topic: object) -> str:
    """A topic for the terminal: a sensor may have put anything into it."""
    text = str(topic)
    return text if text.isprintable() else repr(text)


def _number(sequence: object) -> object:
    return "" if sequence is None else sequence
