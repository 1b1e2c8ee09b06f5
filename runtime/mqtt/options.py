"""The options of `run` that have to do with MQTT."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..errors import InputError

# What messages hold; `payload` says how they are told apart.
PAYLOADS = ("auto", "json", "float32")

# Topics that may have a stream, unless told otherwise.
MOST_TOPICS = 100_000

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([smhdw]?)")

_ONLY_SUBSCRIBED = (
    "errors", "payload", "sequence", "sequence_reset", "idle", "max_streams", "max_topics", "forget_after",
)  # fmt: skip
_ONLY_MQTT = ("subscribe", "publish", "status", "client_id", "credentials", "ca_file", "client_cert", "client_key")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group(
        'MQTT (pip install "edgelstm[mqtt]")',
        "With --subscribe, messages are timesteps: each topic has a stream of its own, and --state is a folder for "
        "all of them. Without, what is read is answered on the topic of --publish.",
    )
    group.add_argument("--mqtt", metavar="URL", help="the broker: mqtt://HOST[:PORT], or mqtts:// with TLS")
    group.add_argument("--subscribe", metavar="FILTER", help="topics of messages, such as plant/+/vibration")
    group.add_argument(
        "--publish", metavar="TOPIC", help="where to answer; {1}, {2} are what the wildcards of FILTER matched"
    )
    group.add_argument("--errors", metavar="TOPIC", help="where to report malformed messages (default PUBLISH/error)")
    group.add_argument("--status", metavar="TOPIC", help="where to keep a retained online or offline")
    group.add_argument(
        "--payload",
        choices=PAYLOADS,
        help="what messages hold; auto (default) takes text as JSON and all else as float32",
    )
    group.add_argument(
        "--sequence", metavar="FIELD", help="field of a JSON object with its sequence number (default seq)"
    )
    group.add_argument(
        "--sequence-reset",
        type=int,
        nargs="?",
        const=0,
        metavar="FIRST",
        help="a sensor whose sequence numbers start again, at FIRST (0 if left out), has its stream start again too",
    )
    group.add_argument("--idle", type=float, metavar="SECONDS", help="unused streams leave memory then (default 600)")
    group.add_argument("--max-streams", type=int, metavar="N", help="streams in memory at most (default 10000)")
    group.add_argument("--max-topics", type=int, metavar="N", help="topics with a stream at most (default 100000)")
    group.add_argument(
        "--forget-after",
        type=duration,
        metavar="DURATION",
        help="streams without a message for so long are dropped: 90 (seconds), 90s, 30m, 12h, 7d, 4w; counted while "
        "this runs, and by default never",
    )
    group.add_argument("--client-id", metavar="NAME", help="name of the session (default: one of its own per --state)")
    group.add_argument("--credentials", type=Path, metavar="FILE", help="two lines: the user, the password")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="who may have signed the broker's certificate")
    group.add_argument("--client-cert", type=Path, metavar="FILE", help="certificate to show to the broker")
    group.add_argument("--client-key", type=Path, metavar="FILE", help="the key of --client-cert")


def duration(text: str) -> float:
    """Seconds from a number with or without a unit: s, m, h, d or w."""
    found = _DURATION.fullmatch(text)
    seconds = 0.0 if found is None else float(found[1]) * _UNITS[found[2]]
    if not 0 < seconds < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; such are 90, 90s, 30m, 12h, 7d and 4w")
    return seconds


def check(args: argparse.Namespace) -> None:
    """Check that the options go together.

    Raises:
        InputError: they do not.
    """
    for option in _ONLY_MQTT if args.mqtt is None else _ONLY_SUBSCRIBED if args.subscribe is None else ():
        if getattr(args, option) is not None:
            missing = "--mqtt URL" if args.mqtt is None else "--subscribe FILTER"
            raise InputError(f"--{option.replace('_', '-')} goes with {missing}")
    if args.mqtt is None:
        return
    if args.publish is None:
        raise InputError("--mqtt needs --publish TOPIC: where to answer")
    if args.output != "-":
        raise InputError("--output goes without --mqtt: answers are published")
    if args.subscribe is not None and (args.input != "-" or args.skip_bad):
        raise InputError("with --subscribe, messages are the input: no file, no --input, no --skip-bad")
    if args.max_streams is not None and args.max_streams < 1:
        raise InputError(f"--max-streams is at least 1, not {args.max_streams}")
    if args.max_topics is not None and args.max_topics < 1:
        raise InputError(f"--max-topics is at least 1, not {args.max_topics}")
    if args.sequence_reset is not None and args.sequence == "":
        raise InputError("--sequence-reset needs sequence numbers, and --sequence '' says that there are none")
    if args.state is not None and args.subscribe is not None and args.state.exists() and not args.state.is_dir():
        raise InputError(f"{args.state}: with --subscribe, --state is a folder")
