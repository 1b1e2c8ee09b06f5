"""`edgelstm demo`: trains on the temperatures that come with the package, exports, verifies and streams, in one go."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.bundle import Bundle
from ..runtime.errors import InputError
from ..runtime.manifest import Artifact
from ..runtime.model import load_artifact
from ..runtime.table import table

DATA = Path(__file__).parent / "demo_data" / "melbourne_min_temperatures.csv"
YEAR = 365


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="FOLDER",
        help="where the run folder and the bundle go (default: demo-output; replaced if it is a run folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..export import export, read_keras
    from ..runtime.parity import TOLERANCES
    from .fit import TrainConfig
    from .quiet import quiet
    from .run_folder import check_writable
    from .train_command import report, train

    begin = time.monotonic()
    say = (lambda *_: None) if args.json else print
    check_writable(args.output, overwrite=True)
    say(f"1. Training two LSTM layers on {DATA.name} (tomorrow's minimum temperature, °C)\n")
    config = TrainConfig(DATA, target="Temp", window=32, units=(32, 32))
    trained = train(config, args.output, progress=not args.json and sys.stderr.isatty())
    say(report(trained))
    say("\n2. Exporting every format and precision, each replayed against Keras\n")
    with quiet():
        network = read_keras(trained.model_path)
        bundle = export(
            network,
            args.output / "model.edge",
            precisions=list(TOLERANCES),
            calibration=trained.calibration(),
            **trained.export_settings(),
        )
    say(f"wrote {bundle.path}\n\n3. Streaming the last year, a day per call, through each artifact\n")
    temperatures = last_column(DATA)
    with quiet():
        rows = [stream_year(bundle, artifact, temperatures) for artifact in bundle.manifest.artifacts]
    seconds = time.monotonic() - begin
    if args.json:
        print(
            json.dumps({"bundle": str(bundle.path), "metrics": trained.metrics, "artifacts": rows, "seconds": seconds})
        )
        return 0
    header = ["artifact", "bytes", "SNR dB", "max |error| °C", "MAE °C, last year", "µs per step"]
    print(table(header, [_cells(row) for row in rows]))
    naive = float(np.abs(np.diff(temperatures[-YEAR - 1 :])).mean())
    print(f"\nYesterday's temperature as the forecast: MAE {naive:.3f} °C. {seconds:.0f} s in all.")
    print(f"Next: edgelstm inspect {bundle.path}; edgelstm bench {bundle.path}; edgelstm-run {bundle.path} < data.csv")
    return 0


def last_column(path: Path) -> npt.NDArray[np.float32]:
    """The numbers in the last column of a CSV."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    except OSError as error:
        raise InputError(f"{path}: the demo's data is missing; install EdgeLSTM again") from error
    return np.array([line.rsplit(",", 1)[1] for line in lines], np.float32)


def stream_year(bundle: Bundle, artifact: Artifact, temperatures: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Carry the state through all the years, and score the last: each forecast against the next day."""
    stream = load_artifact(bundle, artifact, artifact.format).stream(carry=True)
    stream.run(temperatures[: -YEAR - 1, None])
    answers: list[float] = []
    times: list[int] = []
    for day in temperatures[-YEAR - 1 : -1, None]:
        begin = time.perf_counter_ns()
        y = stream.step(day)
        times.append(time.perf_counter_ns() - begin)
        answers.append(float("nan") if y is None else float(y[0]))
    return {
        "artifact": artifact.label,
        "size": artifact.size,
        **artifact.parity.to_json(),
        "mae_last_year": float(np.abs(np.array(answers) - temperatures[-YEAR:]).mean()),
        "step_p50_us": statistics.median(times) / 1e3,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["artifact"],
        f"{row['size']:,}",
        f"{row['snr_db']:.1f}",
        f"{row['max_abs_error']:.2e}",
        f"{row['mae_last_year']:.3f}",
        f"{row['step_p50_us']:.1f}",
    ]
