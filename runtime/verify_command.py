"""`verify`: replays a bundle's golden vectors through each of its artifacts, here, on this machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from .backends import BACKENDS
from .bundle import Bundle
from .errors import BackendUnavailableError, BundleError, InputError
from .manifest import Artifact
from .parity import Parity, Tolerance
from .signature import add_signers_argument
from .table import table
from .trial import Task, Trial

HELP = "prove that a bundle's artifacts compute here what Keras computed"


@dataclass(frozen=True)
class Check:
    """What became of one artifact on one backend: its parity, or why it could not be run."""

    label: str
    backend: str
    tolerance: Tolerance
    parity: Parity | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it ran and is within its tolerance."""
        return self.parity is not None and self.tolerance.met_by(self.parity)

    @property
    def result(self) -> str:
        """One word for the table, or why it did not run."""
        return self.problem or ("ok" if self.passed else "FAILED")

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary."""
        measured = None if self.parity is None else self.parity.to_json()
        return {
            "artifact": self.label,
            "backend": self.backend,
            "min_snr_db": self.tolerance.snr_db,
            "min_output_snr_db": self.tolerance.output_snr_db,
            "passed": self.passed,
            "parity": measured,
            "problem": self.problem,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a bundle (.edge or folder)")
    parser.add_argument("--backend", default="auto", help="check only what this backend runs")
    parser.add_argument("--precision", help="check only artifacts of this precision")
    add_signers_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 if all that could run is within tolerance, 1 if not."""
    bundle = Bundle.open(args.model, args.allowed_signers)
    chosen = selected(bundle, args.backend, args.precision)
    with Trial(trusted=bundle.signer is not None) as trial:
        checks = [check_golden(bundle, entry, backend, trial) for entry, backend in chosen]
    return report(bundle, checks, args.json)


def selected(bundle: Bundle, backend: str, precision: str | None) -> list[tuple[Artifact, str]]:
    """The bundle's artifacts to check, each with the backend that runs it.

    Raises:
        InputError: none fits, or there is no such backend.
    """
    if backend not in ("auto", *BACKENDS):
        raise InputError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    chosen = [
        (artifact, name)
        for artifact in bundle.manifest.artifacts
        for name, (format_, _) in BACKENDS.items()
        if artifact.format == format_ and backend in ("auto", name) and precision in (None, artifact.precision)
    ]
    if not chosen:
        raise InputError(f"{bundle.path}: holds nothing for backend {backend!r} and precision {precision or 'any'}")
    return chosen


def task_of(bundle: Bundle, artifact: Artifact, backend: str) -> Task:
    """What a trial of an artifact needs to know of it."""
    widths = len(bundle.manifest.features), len(bundle.manifest.outputs)
    return Task(backend, artifact.format, artifact.graph, *widths, f"{bundle.path}: {artifact.file}")


def check_golden(bundle: Bundle, artifact: Artifact, backend: str, trial: Trial) -> Check:
    """Replay the golden vectors through one artifact of a bundle."""
    golden = bundle.golden()
    label, tolerance = artifact.label, bundle.manifest.tolerance(artifact)
    try:
        answers = trial.replay(task_of(bundle, artifact, backend), bundle.read(artifact), golden)
    except BackendUnavailableError as error:
        return Check(label, backend, tolerance, problem=f"not run: {error}")
    expected = golden.outputs
    if artifact.graph == "sequence" and len(answers) != len(expected):
        # The model answers once per sequence, where the golden vectors have every prefix.
        expected = expected[[*(start - 1 for start in golden.starts[1:]), -1]]
    if answers.shape != expected.shape:
        raise BundleError(
            f"{bundle.path}: {artifact.file} gives {len(answers)} answers to the golden vectors, which have "
            f"{len(expected)}; export it again"
        )
    return Check(label, backend, tolerance, tolerance.compare(answers, expected))


def report(bundle: Bundle, checks: list[Check], as_json: bool) -> int:
    """Print the checks and give the exit status.

    Raises:
        BackendUnavailableError: nothing could be run.
    """
    checked = [check.to_json() for check in checks]
    described = {"bundle": str(bundle.path), "name": bundle.manifest.name, "checks": checked}
    ran = [check for check in checks if check.problem is None]
    if as_json:
        if ran:
            print(json.dumps(described))
    else:
        header = ["artifact", "backend", "SNR dB", "least", "worst output", "max |error|", "RMSE", "steps", "result"]
        print(table(header, _rows(checks)))
    if not ran:
        error = BackendUnavailableError(f"{bundle.path}: nothing could be run; see the table")
        error.report = described
        raise error
    return 0 if all(check.passed for check in ran) else 1


def _rows(checks: list[Check]) -> list[list[object]]:
    rows: list[list[object]] = []
    for check in checks:
        p = check.parity
        figures: list[object] = [""] * 5
        if p is not None:
            worst = f"{p.worst_output_snr_db:.1f}"
            figures = [f"{p.snr_db:.1f}", worst, f"{p.max_abs_error:.2e}", f"{p.rmse:.2e}", p.steps]
        rows.append(
            [check.label, check.backend, figures[0], f"{check.tolerance.snr_db:.4g}", *figures[1:], check.result]
        )
    return rows
