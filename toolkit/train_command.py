"""`edgelstm train`: a CSV → a run folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.table import table

if TYPE_CHECKING:
    from .fit import TrainConfig
    from .run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("data", type=Path, help="a CSV with a header, its rows in order of time")
    task = parser.add_argument_group("what to learn")
    task.add_argument("--target", metavar="COLUMN", help="forecast this column")
    task.add_argument("--horizon", type=int, default=1, metavar="N", help="how many rows ahead (default 1)")
    task.add_argument("--sequence", metavar="COLUMN", help="classify sequences: rows of one value here are one")
    task.add_argument("--label", metavar="COLUMN", help="the column that holds the label of each sequence")
    task.add_argument(
        "--features", metavar="A,B,…", help="columns to learn from (default: every numeric column that tells something)"
    )
    task.add_argument(
        "--time", metavar="COLUMN", help="the column of times (default: found by itself, if there is one)"
    )
    task.add_argument(
        "--missing",
        choices=("fill", "drop", "refuse"),
        default="fill",
        help="missing values: carry the last one over short gaps and cut at longer ones (default); cut at all; stop",
    )
    task.add_argument("--fill-limit", type=int, default=3, metavar="N", help="the longest gap to fill, in rows (3)")
    model = parser.add_argument_group("the model")
    model.add_argument("--units", default="64,64", metavar="N,N,…", help="units of each layer of the stack (64,64)")
    model.add_argument("--cell", choices=("lstm", "gru"), default="lstm", help="kind of recurrent layer (lstm)")
    model.add_argument("--window", type=int, metavar="T", help="rows to train on at a time (48 for a forecast)")
    model.add_argument("--dropout", type=float, metavar="P", help="between layers (0; 0.2 for classification)")
    fitting = parser.add_argument_group("the training")
    fitting.add_argument("--epochs", type=int, default=60, metavar="N", help="at most (60)")
    fitting.add_argument("--patience", type=int, default=15, metavar="N", help="epochs without improvement (15)")
    fitting.add_argument("--batch-size", type=int, default=32, metavar="N", help="windows in a batch (32)")
    fitting.add_argument("--learning-rate", type=float, default=3e-3, metavar="X", help="at the start (0.003)")
    fitting.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same model (0)")
    fitting.add_argument("--validation-fraction", type=float, default=0.15, metavar="X", help="to stop by (0.15)")
    fitting.add_argument("--test-fraction", type=float, default=0.2, metavar="X", help="to report on (0.2)")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="the run folder (default: the data's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run folder that is there")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from .run_folder import check_writable

    config = config_of(args)
    output = args.output or Path(args.data.stem)
    check_writable(output, args.overwrite)
    trained = train(config, output, progress=not args.json and sys.stderr.isatty())
    if args.json:
        described = {"run_folder": str(trained.path), "task": trained.task, "features": list(trained.features)}
        described |= {"rows": trained.rows, "metrics": trained.metrics, "notes": list(trained.notes)}
        print(json.dumps(described))
        return 0
    for note in trained.notes:
        print(f"note: {note}")
    print(report(trained))
    print(f"\nwrote {trained.path}; next: edgelstm export {trained.path}")
    return 0


def config_of(args: argparse.Namespace) -> TrainConfig:
    """The configuration that the arguments ask for.

    Raises:
        InputError: they make no sense.
    """
    from ..runtime.errors import InputError
    from .fit import TrainConfig

    try:
        units = tuple(int(part) for part in args.units.split(","))
    except ValueError as error:
        raise InputError(f"--units {args.units}: give whole numbers with commas between, such as 64,64") from error
    features = None if args.features is None else tuple(name.strip() for name in args.features.split(","))
    same = (
        "data target window horizon cell sequence label time missing fill_limit epochs batch_size learning_rate "
        "patience dropout seed validation_fraction test_fraction"
    )
    return TrainConfig(features=features, units=units, **{key: getattr(args, key) for key in same.split()})


def train(config: TrainConfig, output: Path, progress: bool = False) -> RunFolder:
    """Train and write the run folder.

    Raises:
        InputError: the data does not fit, or the folder cannot be written.
    """
    from .quiet import quiet
    from .run_folder import write_run_folder

    with quiet():
        import keras  # noqa: F401  (its first import is what chatters)

    if config.target is not None:
        from .forecast import train_forecast as train_task
    else:
        from .classification import train_classification as train_task
    run, model, calibration, history = train_task(config, output, progress)
    with quiet():
        return write_run_folder(run, model, calibration, history)


def report(run: RunFolder) -> str:
    """The errors on unseen data beside the naive baseline, as a table."""
    metrics: dict[str, Any] = run.metrics
    said = {
        "carried": "state carried on",
        "window": f"window of {run.window}",
        "persistence": "persistence (naive)",
        "majority": "commonest class (naive)",
    }
    names = [name for name in said if name in metrics]
    if run.task == "classification":
        rows = [[said[name], f"{100 * metrics[name]['accuracy']:.1f} %"] for name in names]
        return f"{metrics['sequences']} unseen sequences\n\n" + table(["answer", "accuracy"], rows)
    rows = [[said[name], f"{metrics[name]['mae']:.4g}", f"{metrics[name]['rmse']:.4g}"] for name in names]
    return f"{metrics['timesteps']:,} unseen timesteps\n\n" + table(
        [f"forecast of {run.outputs[0]}", "MAE", "RMSE"], rows
    )
