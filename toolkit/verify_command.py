"""`edgelstm verify`: the golden vectors, or any data against a given Keras file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime import verify_command
from ..runtime.bundle import Bundle
from ..runtime.errors import BackendUnavailableError, InputError
from ..runtime.golden import Golden
from ..runtime.manifest import Artifact, Manifest
from ..runtime.network import Network
from ..runtime.parity import Parity
from ..runtime.streaming import Streaming
from ..runtime.table import table
from ..runtime.trial import Trial
from ..runtime.verify_command import Check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    verify_command.add_arguments(parser)
    parser.add_argument("--against", type=Path, metavar="KERAS_FILE", help="compare with this Keras model instead")
    parser.add_argument("--data", type=Path, metavar="FILE", help="with --against: inputs, .npy, .npz or .csv")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="with --against: timesteps in one stream, the data repeated as needed"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 if all that could run is within tolerance, 1 if not."""
    if args.against is None:
        if args.data is not None or args.steps is not None:
            raise InputError("--data and --steps need --against KERAS_FILE, which says what the outputs should be")
        return verify_command.run(args)
    bundle = Bundle.open(args.model, args.allowed_signers)
    if bundle.manifest.streaming is None:
        raise InputError(f"{bundle.path}: holds sequence graphs only; verify it without --against")
    xs, ys = expected(bundle, args.against, args.data, args.steps)
    starts = tuple(part.start for part in _parts(bundle.manifest, len(xs)))
    try:
        golden = Golden(xs, ys, starts, (bundle.manifest.streaming or Streaming()).default)
    except ValueError as error:
        raise InputError(f"{args.against}: gives nothing that can be compared with ({error})") from error
    checks: list[Check] = []
    tenths: list[tuple[Parity, Parity] | None] = []
    with Trial(trusted=bundle.signer is not None, timeout=None) as trial:
        for entry, backend in verify_command.selected(bundle, args.backend, args.precision):
            if entry.graph == "sequence":
                continue
            check, ends = check_stream(bundle, entry, backend, golden, trial)
            checks.append(check)
            tenths.append(ends)
    checked = [
        {**check.to_json(), "first_tenth": ends and ends[0].to_json(), "last_tenth": ends and ends[1].to_json()}
        for check, ends in zip(checks, tenths, strict=True)
    ]
    described = {"bundle": str(bundle.path), "against": str(args.against), "checks": checked}
    ran = [check for check in checks if check.problem is None]
    if args.json:
        if ran:
            print(json.dumps(described))
    else:
        header = [
            "artifact",
            "backend",
            "SNR dB",
            "least",
            "worst output",
            "max |error|",
            "RMSE",
            "first tenth",
            "last tenth",
            "result",
        ]
        print(f"{len(xs):,} timesteps {_how(bundle.manifest)}, against {args.against}\n")
        print(table(header, [_row(check, ends) for check, ends in zip(checks, tenths, strict=True)]))
    if not ran:
        error = BackendUnavailableError(f"{bundle.path}: nothing could be run; see the table")
        error.report = described
        raise error
    return 0 if all(check.passed for check in ran) else 1


def expected(
    bundle: Bundle, keras_file: Path, data: Path | None, steps: int | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Inputs (T, features), and the Keras model's answers as the bundle streams them: (answers, outputs)."""
    from ..export import WindowModel, on_windows, read_model, read_sequences
    from .quiet import quiet

    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: at least 1 timestep is needed")
    manifest = bundle.manifest
    with quiet():
        network = read_model(keras_file, window=manifest.window)
    whole = (manifest.streaming or Streaming()).whole
    if isinstance(network, WindowModel) != (whole is not None):
        raise InputError(f"{keras_file}: is another model than the bundle's, which streams in another way")
    if (network.features, network.outputs) != (len(manifest.features), len(manifest.outputs)):
        raise InputError(
            f"{keras_file}: takes {network.features} features and gives {network.outputs} outputs, "
            f"the bundle {len(manifest.features)} and {len(manifest.outputs)}"
        )
    if data is None:
        xs = bundle.golden().inputs
    else:
        fit = network.calibration if isinstance(network, WindowModel) else None
        xs = read_sequences(data, manifest.features, fit).reshape(-1, network.features)
    if steps is not None:
        xs = xs[np.arange(steps) % len(xs)]
    streaming = manifest.streaming or Streaming()
    with quiet():
        if streaming.default is not None:
            if len(xs) < streaming.default.timesteps:
                raise InputError(
                    f"{data or keras_file}: {len(xs)} timesteps, and the model answers on windows of "
                    f"{streaming.default.timesteps}; bring more data, or repeat them with --steps"
                )
            return xs, on_windows(network, [xs], streaming.default)
        reference = network.reference if isinstance(network, Network) else None
        if reference is None:
            raise InputError(f"{keras_file}: gives nothing to compare with")
        return xs, np.concatenate([reference(xs[part]) for part in _parts(manifest, len(xs))])


def _how(manifest: Manifest) -> str:
    streaming = manifest.streaming or Streaming()
    if streaming.default is not None:
        every = "" if streaming.hop == 1 else f", every {streaming.hop}"
        return f"by windows of {streaming.window}{every}"
    length = _reset_every(manifest)
    return "in one stream" if length is None else f"with a reset every {length}"


def _reset_every(manifest: Manifest) -> int | None:
    """Timesteps that a stream is followed for: to the end of a window or of what float32 holds; None without an end."""
    streaming = manifest.streaming or Streaming()
    if streaming.default is not None:
        return None
    return manifest.chaotic_beyond if streaming.bounded else streaming.window


def _parts(manifest: Manifest, steps: int) -> list[slice]:
    """What to stream between one reset and the next."""
    length = _reset_every(manifest) or steps
    return [slice(start, start + length) for start in range(0, steps, length)]


def check_stream(
    bundle: Bundle, artifact: Artifact, backend: str, expected: Golden, trial: Trial
) -> tuple[Check, tuple[Parity, Parity] | None]:
    """Stream the inputs through one artifact of a bundle: all of it, and its first and last tenth apart."""
    label, tolerance, ys = artifact.label, bundle.manifest.tolerance(artifact), expected.outputs
    try:
        got = trial.replay(verify_command.task_of(bundle, artifact, backend), bundle.read(artifact), expected)
    except BackendUnavailableError as error:
        return Check(label, backend, tolerance, problem=f"not run: {error}"), None
    tenth = max(len(ys) // 10, 1)
    ends = tolerance.compare(got[:tenth], ys[:tenth]), tolerance.compare(got[-tenth:], ys[-tenth:])
    return Check(label, backend, tolerance, tolerance.compare(got, ys)), ends


def _row(check: Check, ends: tuple[Parity, Parity] | None) -> list[Any]:
    p = check.parity
    if p is None or ends is None:
        return [check.label, check.backend, "", f"{check.tolerance.snr_db:.4g}", "", "", "", "", "", check.result]
    figures = [
        f"{p.worst_output_snr_db:.1f}",
        f"{p.max_abs_error:.2e}",
        f"{p.rmse:.2e}",
        f"{ends[0].rmse:.2e}",
        f"{ends[1].rmse:.2e}",
    ]
    return [check.label, check.backend, f"{p.snr_db:.1f}", f"{check.tolerance.snr_db:.4g}", *figures, check.result]
