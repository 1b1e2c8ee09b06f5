"""Exports of Keras models as they are, by others' converters: window graphs, and sequence graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..runtime.backends import open_artifact
from ..runtime.errors import BundleError, InputError, UnsupportedModelError
from ..runtime.golden import Golden
from ..runtime.manifest import Manifest
from ..runtime.model import replay
from ..runtime.parity import TOLERANCES, Tolerance, least_of_an_output
from ..runtime.sequence import replay_sequences
from ..runtime.stream import Stream
from ..runtime.streaming import Streaming
from .converters import SequenceModel, WindowModel
from .converters.proof import proof_of_windows
from .converters.tracing import LEAVE_OUT
from .converters.window_files import PRECISIONS, WindowFiles
from .pipeline import NEEDS_CALIBRATION, Result, Shown, Target, begin, described, new_manifest
from .windows import golden_lengths

_OF_WINDOWS = "; ".join(f"{format_}: {', '.join(made)}" for format_, made in PRECISIONS.items())


@dataclass(frozen=True)
class Made:
    """What a bundle is written of.

    Attributes:
        manifest: without the artifacts.
        results: the artifacts, each replayed.
        golden: what they were replayed on.
        made_up: whether its inputs were made up.
    """

    manifest: Manifest
    results: list[Result]
    golden: Golden
    made_up: bool


def made_of_windows(
    model: WindowModel,
    wanted: Sequence[Target],
    calibration: npt.ArrayLike | None,
    hop: int | None,
    carry: bool,
    legacy: bool,
    shown: Shown,
) -> Made:
    """Everything of a model that streams by window alone: its graph takes a window at once.

    Raises:
        UnsupportedModelError: no converter makes anything of it.
        InputError: nothing of what is wanted exists, or it needs calibration data.
    """
    streaming = model.streaming(carry, hop)
    window = streaming.default
    assert window is not None
    data = None if calibration is None else model.calibration(calibration)
    # A sequence graph of so many timesteps would be the same one.
    windows = dict.fromkeys(replace(target, graph="window") for target in wanted)
    made = [target for target in windows if target.exists]
    for target in windows:
        if not target.exists and shown.left_out is not None:
            native = "a native network carries its state"
            shown.left_out(target, native if target.format == "native" else "no converter makes such a window graph")
    if not made:
        raise InputError(
            f"{model.name}: streams by window alone, because of {model.because}; its graph exists as {_OF_WINDOWS}"
        )
    if data is None and any(target.precision == "int8" for target in made):
        raise InputError(NEEDS_CALIBRATION.format("tflite int8 needs"))
    begin(shown.progress, None, made)
    manifest = _manifest(model, streaming, shown)
    proof = proof_of_windows(model, data, window, golden_lengths(window))
    golden, keras = proof.golden, proof.conditioning.keras
    manifest = replace(manifest, keras_float32=keras)
    results: list[Result] = []
    apart: list[str] = []
    with WindowFiles(model, legacy) as files:
        for target in made:
            begin(shown.progress, target, made)
            try:
                content = files.convert(target.format, target.precision, described(manifest, target), data)
                answers = _replayed_windows(target, content, golden, model.name)
            except UnsupportedModelError as error:
                apart.append(str(error).removeprefix(f"{model.name}: ").removesuffix(f"; {LEAVE_OUT}"))
                if shown.left_out is not None:
                    shown.left_out(target, str(error))
                continue
            tolerance = proof.conditioning.tolerance(target.precision, shown.min_snr)
            parity = tolerance.compare(answers, golden.outputs)
            _done(shown, results, Result(target, content, answers, parity, tolerance, keras))
    if not results:
        raise UnsupportedModelError(
            f"{model.name}: no window graph can be made of it: {'; '.join(apart)}; express what that is about with "
            "other layers of Keras, or try the other format (--format tflite,onnx)"
        )
    return Made(manifest, results, golden, data is None)


def _replayed_windows(target: Target, content: bytes, golden: Golden, name: str) -> npt.NDArray[np.float32]:
    try:
        return replay(Stream(open_artifact(target.format, content, target.file), b"", name, golden.window), golden)
    except BundleError as error:
        raise UnsupportedModelError(f"{name}: {error}; {LEAVE_OUT}") from error


def made_of_sequences(model: SequenceModel, wanted: Sequence[Target], shown: Shown) -> Made:
    """The sequence graphs of a model.

    Raises:
        UnsupportedModelError: a converter makes nothing of it.
        InputError: nothing of what is wanted exists, or other graphs are wanted as well.
    """
    if any(target.graph != "sequence" for target in wanted):
        raise InputError(
            f"{model.name}: was read for sequence graphs alone; ask for these alone (graphs=['sequence']), or give "
            "`export` the Keras model itself"
        )
    made = list(dict.fromkeys(target for target in wanted if target.precision == "float32"))
    if not made:
        raise InputError(
            f"{model.name}: sequence graphs of a model whose state cannot be carried exist in float32 alone "
            "(--precision float32)"
        )
    begin(shown.progress, None, made)
    golden = model.golden()
    manifest = _manifest(model, None, shown)
    results: list[Result] = []
    for target in made:
        begin(shown.progress, target, made)
        content = model.convert(target.format)
        answers = replay_sequences(target.format, content, target.file, golden)
        least = TOLERANCES[target.precision] if shown.min_snr is None else shown.min_snr
        tolerance = Tolerance(least, least_of_an_output(least), model.probabilities)
        _done(shown, results, Result(target, content, answers, tolerance.compare(answers, golden.outputs), tolerance))
    return Made(manifest, results, golden, True)


def _manifest(model: WindowModel | SequenceModel, streaming: Streaming | None, shown: Shown) -> Manifest:
    made = new_manifest(
        model.name, model.features, model.outputs, shown.features, shown.outputs, streaming, shown.training
    )
    return replace(made, layers=model.layers, parameters=model.parameters, probabilities=model.probabilities)


def _done(shown: Shown, results: list[Result], result: Result) -> None:
    results.append(result)
    if shown.report is not None:
        shown.report(result)
