"""`edgelstm`: the command line.

A command's module is imported only when it is called, so that `edgelstm --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial

# Command → (module, what it does).
COMMANDS = {
    "train": (".train_command", "train a stacked LSTM on a CSV and write a run folder"),
    "export": (".export_command", "export a Keras model or a run folder to a verified bundle"),
    "verify": (".verify_command", "prove that a bundle's artifacts compute what Keras computed"),
    "inspect": (
        ".inspect_command",
        "show layers, states, artifacts and parity of a bundle, an artifact or a Keras file",
    ),
    "run": ("..runtime.run_command", "stream timesteps from a file or standard input through a model"),
    "streams": (
        "..runtime.mqtt.streams_command",
        "list the topics whose streams a service on MQTT keeps, or drop some",
    ),
    "bench": (".bench_command", "measure latency, throughput and memory, beside the interpreters' own calls"),
    "sign": (".sign_command", "sign a bundle with an SSH key, for boards that open nothing unsigned"),
    "devices": (".devices_command", "list the devices that are known, with the source of every figure"),
    "fit": (
        ".fit_command",
        "say what of a bundle can run on which device, what it needs there, and how fast it may be",
    ),
    "deploy": (".deploy_command", "put a verified model on boards as a service, or go back to the one before"),
    "status": (".status_command", "show what runs on boards, its parity there, step time and uptime"),
    "demo": (".demo_command", "train, export, verify and stream a small forecast, in one go"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `edgelstm`."""
    given = list(sys.argv[1:] if argv is None else argv)
    from ..runtime.failures import guarded, wants_json

    return guarded(lambda: _main(given), wants_json(given))


def _main(given: list[str]) -> int:
    from ..runtime.completion import PRINT_COMPLETION, add_completion, print_completion
    from ..runtime.failures import CommandParser, nearest, own_arguments

    parser = CommandParser(
        prog="edgelstm",
        description="Take a stacked LSTM trained in Keras to the edge: export it, prove it, stream it.",
        epilog="`edgelstm COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    add_completion(parser)
    # What stands behind -- is not this command's own (`deploy` passes it on).
    own = own_arguments(given)
    completing = any(argument.startswith(PRINT_COMPLETION) for argument in own)
    chosen = next((argument for argument in own if not argument.startswith("-")), None)
    if chosen is not None and chosen not in COMMANDS and not completing:
        meant = nearest(chosen, COMMANDS)
        suggestion = f"did you mean {meant!r}?" if meant else f"there are {', '.join(COMMANDS)}"
        parser.error(f"no command {chosen!r}; {suggestion}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module_name, text) in COMMANDS.items():
        command = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name != chosen and not completing:
            continue
        module = importlib.import_module(module_name, __package__)
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="print one machine-readable object instead of text")
        command.set_defaults(run=partial(_run, module.run))
    args = parser.parse_args(own)
    args.rest = given[len(own) + 1 :]
    if args.print_completion is not None:
        return print_completion(parser, args.print_completion)
    if args.version:
        from ..runtime import __version__

        print(f"EdgeLSTM {__version__}")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    return args.run(args)


def _run(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; on a device that has only the runtime, say what is missing and where it comes from."""
    try:
        return command(args)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "edgelstm"):
            raise
        from ..runtime.errors import BackendUnavailableError

        raise BackendUnavailableError(
            f'`edgelstm {args.command}` needs the package {package}: pip install "edgelstm[toolkit]"; '
            "with the runtime alone there is `edgelstm-run` to run, verify and inspect a bundle"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
