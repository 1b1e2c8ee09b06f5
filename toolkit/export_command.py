"""`edgelstm export`: a Keras file or a run folder → a verified bundle."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runtime.errors import InputError, ParityError
from ..runtime.parity import PERFECT_SNR, TOLERANCES, Parity
from ..runtime.streaming import WINDOW, Streaming
from ..runtime.table import table
from .run_folder import is_run_folder, read_run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", type=Path, help="a .keras or .h5 file, or the folder that `edgelstm train` wrote")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="the bundle: FILE.edge, or a folder (default: beside the model)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle or a folder of C that is there")
    parser.add_argument(
        "--format",
        default="tflite,onnx,native",
        metavar="F,…",
        help="tflite, onnx, native (default: all three); or c alone: a folder of C sources that compiles anywhere",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="P,…",
        help=f"{', '.join(TOLERANCES)}, or all (default: float32); tflite int8 and int16x8 need calibration data, with "
        "which the weights of dynamic and of native int8 are rounded better, too",
    )
    parser.add_argument(
        "--graph",
        default="step",
        metavar="G,…",
        help="step, to be streamed (default); sequence, which takes whole sequences of any length, in every precision "
        "of tflite",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="recorded raw inputs like those the model will see: .npy, .npz or .csv",
    )
    parser.add_argument("--name", help="what to call the model (default: what Keras calls it)")
    parser.add_argument("--features", metavar="A,B,…", help="names of the inputs, in order")
    parser.add_argument("--outputs", metavar="A,B,…", help="names of the outputs, in order")
    how = parser.add_argument_group(
        "how it streams (default: by window, where the model takes a fixed number of timesteps and gives one answer)"
    )
    how.add_argument("--carry", action="store_true", help="carry the state on for ever")
    how.add_argument(
        "--window",
        type=int,
        metavar="T",
        help="answer on the last T timesteps, from zero state; with --carry: it was trained on so many at a time",
    )
    how.add_argument("--hop", type=int, metavar="N", help="by window: an answer every N timesteps (default 1)")
    parser.add_argument(
        "--min-snr", type=float, metavar="DB", help="least parity with Keras, instead of the precision's"
    )
    parser.add_argument("--keep-going", action="store_true", help="leave out what fails instead of writing no bundle")
    parser.add_argument(
        "--tflite-runtime-2.14",
        dest="legacy_tflite",
        action="store_true",
        help="keep every .tflite loadable by tflite-runtime 2.14, the last one for 32-bit ARM",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..export import Network, WindowModel, export, read_for_sequences, read_model, read_sequences, targets
    from ..runtime.bundle import is_bundle
    from .progress import Progress
    from .quiet import quiet

    source: Any = args.model
    settings: dict[str, Any] = {
        "name": args.name,
        "features": _names(args.features),
        "outputs": _names(args.outputs),
        "window": args.window,
        "hop": args.hop,
        "carry": args.carry,
    }
    calibration = None
    output = args.output or args.model.with_suffix(".edge")
    if is_run_folder(args.model):
        folder = read_run_folder(args.model)
        source = folder.model_path
        output = args.output or args.model / "model.edge"
        recorded = folder.export_settings()
        chosen = args.carry or args.window is not None
        settings = {key: settings.get(key) or recorded.get(key) for key in (*settings, *recorded)}
        settings["carry"] = args.carry if chosen else recorded["carry"] and args.hop is None
        calibration = folder.calibration()
    formats = _list(args.format)
    if "c" in formats:
        return _export_c(args, source, calibration, settings)
    precisions = list(TOLERANCES) if args.precision == "all" else _list(args.precision)
    graphs = _list(args.graph)
    wanted, missing = targets(formats, precisions, graphs)
    if missing and not args.json:
        print(f"does not exist, left out: {', '.join(map(str, missing))}", file=sys.stderr)
    check_output(output, args.overwrite, is_bundle, "a bundle")
    with quiet():
        if {target.graph for target in wanted} == {"sequence"}:
            source = read_for_sequences(source, settings["name"])
        else:
            source = read_model(source, settings["name"], settings["window"])
        settings["name"] = None
    if args.calibration is not None:
        calibration = read_sequences(args.calibration, settings["features"] or source.features, _fitting(source))
    if calibration is not None and not isinstance(source, (Network, WindowModel)):
        if args.calibration is not None and not args.json:
            print("the calibration data is not used: sequence graphs of such a model are float32", file=sys.stderr)
        calibration = None
    done: list[Any] = []
    apart: dict[str, str] = {}
    try:
        with quiet() as heard, Progress(heard, shown=not args.json) as progress:
            bundle = export(
                source,
                output,
                formats,
                precisions,
                graphs,
                calibration,
                min_snr=args.min_snr,
                keep_going=args.keep_going,
                legacy_tflite=args.legacy_tflite,
                report=done.append,
                progress=progress,
                left_out=lambda target, reason: apart.setdefault(str(target), reason),
                **settings,
            )
    except ParityError as error:
        error.report = _found(done, None, apart)
        if not args.json:
            _show(done, None, apart)
        raise
    if args.json:
        print(json.dumps(_found(done, bundle.path, apart)))
    else:
        _show(done, bundle.path, apart)
        print(how_it_streams(bundle.manifest.streaming, bundle.manifest.chaotic_beyond))
    return 0 if all(result.passed for result in done) else 1


def how_it_streams(streaming: Streaming | None, chaotic_beyond: int | None = None) -> str:
    """What whoever exported a model should know of how it will stream."""
    if streaming is None:
        return "the bundle holds sequence graphs only, which take whole sequences (without --graph, it is streamed)"
    window, ratio = streaming.window, streaming.carried_snr_db
    if streaming.whole is not None:
        every = "at each timestep" if streaming.hop == 1 else f"every {streaming.hop} timesteps"
        rows = f" ({streaming.whole.rows} rows)" if streaming.whole.rows is not None else ""
        return (
            f"streams by window: {every}, Keras's answer{rows} on the last {window} timesteps at once, because of "
            f"{streaming.whole.because}"
        )
    if streaming.mode == WINDOW:
        every = "each timestep" if streaming.hop == 1 else f"every {streaming.hop} timesteps"
        lines = [f"streams by window: {every}, Keras's answer on the last {window} timesteps, from zero state"]
        if window == 1:
            lines = [
                "streams by window, of 1 timestep: the model takes one at a time and keeps no state between calls, so "
                "it has no memory, and each answer depends on the newest input alone (--carry lets it have one)"
            ]
        elif not streaming.bounded:
            lines.append("carrying the state would not do: it grows without bound past the window")
        if ratio is not None and window != 1:
            lines.append(f"carrying the state would answer differently: {_distance(ratio)} (--carry does so)")
        return "\n".join(lines)
    lines = ["streams with its state carried on for ever"]
    if ratio is not None:
        lines.append(
            f"the model was trained on windows of {window} timesteps; on these it would answer differently: "
            f"{_distance(ratio)} (--window {window} does so)"
        )
    if chaotic_beyond is not None:
        lines.append(
            f"note: the model is chaotic: beyond {chaotic_beyond} timesteps every rounding error has become so large "
            "that no float32 holds its answers, Keras's own neither; it was proved on sequences "
            + (f"of up to {chaotic_beyond}" if streaming.bounded else f"as long as its window, {window}")
        )
    elif not streaming.bounded:
        lines.append(
            f"note: carried on past its window of {window} timesteps, the model's state grows without bound; it was "
            f"proved within the window, so export it with --window {window} instead of --carry"
        )
    return "\n".join(lines)


def _distance(ratio: float) -> str:
    if ratio <= -PERFECT_SNR:
        return "the two have nothing in common"
    return f"{ratio:.0f} dB"


def _export_c(args: argparse.Namespace, source: Any, calibration: Any, settings: dict[str, Any]) -> int:
    from ..export import Step, export_c, is_c_folder, read_for_c, read_sequences
    from .progress import Progress
    from .quiet import quiet

    if _list(args.format) != ["c"] or len(_list(args.precision)) != 1 or args.precision == "all":
        raise InputError("c is a folder of its own, of one precision: --format c --precision float32, float16 or int8")
    if args.graph != "step" or args.legacy_tflite or args.keep_going:
        raise InputError("--format c takes neither --graph, --keep-going nor --tflite-runtime-2.14: it steps one model")
    output = args.output or args.model.with_name(f"{args.model.stem}_c")
    check_output(output, args.overwrite, is_c_folder, "a folder of C that edgelstm wrote")
    with quiet():
        network = read_for_c(source, settings["name"])
    if args.calibration is not None:
        calibration = read_sequences(args.calibration, settings["features"] or network.features)
    with quiet() as heard, Progress(heard, shown=not args.json) as progress:
        progress(Step(f"c {args.precision}, compiled and replayed against Keras", 0, 1))
        made = export_c(
            network,
            output,
            args.precision,
            calibration,
            settings["features"],
            settings["outputs"],
            settings["window"],
            settings["hop"],
            settings["carry"],
            args.min_snr,
        )
    if args.json:
        print(json.dumps({"folder": str(made.path), **_described(made)}))
        return 0
    rows = [[size.target, f"{size.weights:,}", f"{size.code:,}", f"{size.ram:,}"] for size in made.sizes]
    if rows:
        print(table(["bytes, compiled for", "flash: weights", "flash: engine", "RAM per stream"], rows))
    proof = "compiled and run here" if made.ran else "not compiled here, for want of a compiler"
    print(
        f"\nwrote {made.path}/: {made.precision}, {made.parity.snr_db:.1f} dB against Keras "
        f"(least {made.min_snr_db:g}); its self-test was {proof}"
    )
    if made.window is not None:
        every = "each timestep" if made.window.hop == 1 else f"every {made.window.hop} timesteps"
        print(f"it answers by window: {every}, Keras's answer on the last {made.window.timesteps} timesteps")
    return 0


def _described(made: Any) -> dict[str, Any]:
    return {
        "name": made.name,
        "precision": made.precision,
        "parity": made.parity.to_json(),
        "min_snr_db": made.min_snr_db,
        "weights": made.weights,
        "state": made.state,
        "window": None if made.window is None else made.window.timesteps,
        "hop": None if made.window is None else made.window.hop,
        "self_test_ran": made.ran,
        "sizes": [vars(size) for size in made.sizes],
    }


def _fitting(source: Any) -> Callable[[Any], Any] | None:
    """What brings calibration data into the shape of timesteps, where the model's own shape is another."""
    return getattr(source, "calibration", None)


def _found(results: list[Any], path: Path | None, apart: dict[str, str]) -> dict[str, Any]:
    described = [
        {
            "artifact": str(r.target),
            "size": len(r.content),
            "min_snr_db": r.min_snr_db,
            "min_output_snr_db": r.tolerance.output_snr_db,
            "passed": r.passed,
            "explanation": r.explanation,
            "parity": r.parity.to_json(),
        }
        for r in results
    ]
    keras: Parity | None = results[0].keras_float32 if results else None
    own = None if keras is None else keras.to_json()
    where = None if path is None else str(path)
    return {"bundle": where, "artifacts": described, "keras_float32": own, "left_out": apart}


def _show(results: list[Any], path: Path | None, apart: dict[str, str]) -> None:
    for target, reason in apart.items():
        print(f"left out: {target}: {reason}", file=sys.stderr)
    keras: Parity | None = results[0].keras_float32 if results else None
    rows = [
        [
            str(r.target),
            f"{len(r.content):,}",
            f"{r.parity.snr_db:.1f}",
            f"{r.min_snr_db:g}",
            f"{r.parity.worst_output_snr_db:.1f}",
            f"{r.parity.max_abs_error:.2e}",
            f"{r.parity.rmse:.2e}",
            "ok" if r.passed else _failure(r),
        ]
        for r in results
    ]
    if keras is not None:
        figures = [f"{keras.worst_output_snr_db:.1f}", f"{keras.max_abs_error:.2e}", f"{keras.rmse:.2e}"]
        rows.append(["Keras's own float32", "", f"{keras.snr_db:.1f}", "", *figures, ""])
    print(table(["artifact", "bytes", "SNR dB", "least", "worst output", "max |error|", "RMSE", "against Keras"], rows))
    for r in results:
        if path is not None and r.explanation:  # Where nothing is written, the error says it.
            print(f"\n{r.target}: {r.explanation}")
    if path is not None:
        print(f"\nwrote {path} ({_size(path):,} bytes)")


def _failure(result: Any) -> str:
    least = result.tolerance
    if result.parity.snr_db < least.snr_db:
        return f"FAILED by {least.snr_db - result.parity.snr_db:.1f} dB"
    return f"FAILED: worst output below {least.output_snr_db:g} dB"


def check_output(output: Path, overwrite: bool, replaceable: Callable[[Path], bool], what: str) -> None:
    """Fail before the work rather than after it.

    Raises:
        InputError: the folder is not there, something that would be replaced is and `overwrite` was not asked for, or
            something that is never replaced.
    """
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist")
    if replaceable(output):
        if not overwrite:
            raise InputError(f"{output}: is there already; pass --overwrite, or choose another -o")
    elif output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"{output}: exists and is not {what}; choose another -o or remove it")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _names(text: str | None) -> list[str] | None:
    return None if text is None else _list(text)
