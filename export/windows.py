"""How a model is to be streamed, and what Keras answers on windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..runtime.errors import InputError, UnsupportedModelError
from ..runtime.golden import Golden
from ..runtime.network import Network, Reference
from ..runtime.parity import PERFECT_SNR, compare
from ..runtime.streaming import CARRY, WINDOW, Streaming, Window, whole
from .conditioning import conditioning, reference_of
from .converters import WindowModel
from .golden import Proof, proof_of
from .golden_inputs import golden_inputs
from .stability import runs_away

# Answers of each golden sequence; before the second one the stream is reset in the middle of a window.
_ANSWERS = (256, 64, 16, 4, 1)
# Timesteps in all, over all windows, which bound the time that a proof takes; and inputs.
_MAX_STEPS, _MAX_INPUTS = 40_000, 8_192


def streaming_of(network: Network, carry: bool = False, window: int | None = None, hop: int | None = None) -> Streaming:
    """How a model streams: as its author trained it, unless the arguments say otherwise.

    By window: a model that takes a fixed number of timesteps, gives one answer for them, and keeps no state between
    calls. Every other carries its state on.

    Args:
        network: the model.
        carry: carry the state on.
        window: timesteps that it was trained on at a time; without `carry`, it streams by this window.
        hop: by window, timesteps between two answers.

    Raises:
        InputError: the arguments contradict each other.
    """
    length = network.window if window is None else whole("window", window)
    trained_so = network.window is not None and (not network.return_sequences or network.window == 1)
    by_window = not carry and (window is not None or trained_so)
    if hop is not None and not by_window:
        raise InputError("a hop goes with a window, and this model's state is carried on; give the window as well")
    chosen = Window(1 if length is None else length, 1 if hop is None else whole("hop", hop))  # Checks what was given.
    return Streaming(WINDOW, length, chosen.hop) if by_window else Streaming(CARRY, length)


def window_golden_vectors(network: Network, calibration: npt.NDArray[np.float32] | None, window: Window) -> Golden:
    """Golden vectors of a model that streams by window: sequences, and Keras's answers on their windows.

    Raises:
        UnsupportedModelError: the network did not come from Keras, or Keras's answers are not finite.
    """
    timesteps = window.timesteps
    lengths = golden_lengths(window)
    inputs = golden_inputs(network, calibration, timesteps, lengths)
    starts = tuple(int(start) for start in np.cumsum((0, *lengths[:-1])))
    outputs = on_windows(network, np.split(inputs, starts[1:]), window)
    if not np.isfinite(outputs).all():
        raise UnsupportedModelError(
            f"{network.name}: Keras's own answers on windows of {timesteps} timesteps are not finite; check the "
            "model's weights, or give recorded inputs (--calibration FILE)"
        )
    return Golden(inputs, outputs, starts, window)


def golden_lengths(window: Window) -> list[int]:
    """Timesteps of the golden sequences of a stream by window."""
    timesteps, hop = window.timesteps, window.hop
    most = max(1, min(_MAX_STEPS // timesteps, (_MAX_INPUTS - timesteps) // hop))
    counts = [max(1, min(count, most * count // sum(_ANSWERS))) for count in _ANSWERS]
    lengths = [timesteps + hop * (count - 1) for count in counts]
    if timesteps > 1:
        lengths.insert(1, timesteps // 2)
    return lengths


def on_windows(
    model: Network | WindowModel, sequences: list[npt.NDArray[np.float32]], window: Window
) -> npt.NDArray[np.float32]:
    """Keras's answers on every window of some sequences that comes due: (answers, outputs), or with rows."""
    reference: Reference | WindowModel = model if isinstance(model, WindowModel) else reference_of(model)
    ends = [(xs, t + 1) for xs in sequences for t in window.due(0, len(xs))]
    return reference.windows(np.stack([xs[end - window.timesteps : end] for xs, end in ends]))


def proof_for(
    network: Network, calibration: npt.NDArray[np.float32] | None, streaming: Streaming
) -> tuple[Proof, Streaming]:
    """What exports of a model that streams in this way are proved on.

    Returns:
        The proof, and `streaming` with what was measured: whether the state is bounded past the window, and how far
        answers with it carried are from those on windows.

    Raises:
        UnsupportedModelError: the network did not come from Keras, or its outputs grow without bound.
    """
    if streaming.default is not None:
        golden = window_golden_vectors(network, calibration, streaming.default)
        proof = Proof(golden, conditioning(network, golden), streaming.window)
        bounded = not runs_away(network, golden.inputs)
    else:
        proof = proof_of(network, calibration, streaming.window)
        bounded = proof.bounded
        if streaming.window is None:
            return proof, replace(streaming, bounded=bounded)
        golden = window_golden_vectors(network, calibration, Window(streaming.window))
    return proof, replace(streaming, bounded=bounded, carried_snr_db=_distance(network, golden))


def _distance(network: Network, golden: Golden) -> float:
    """Signal-to-noise ratio of answers with the state carried over the first golden sequence, against its windows'."""
    assert golden.window is not None
    xs = next(golden.sequences())
    due = list(golden.window.due(0, len(xs)))
    carried = reference_of(network)(xs)[due]
    return max(compare(carried, golden.outputs[: len(due)]).snr_db, -PERFECT_SNR)
