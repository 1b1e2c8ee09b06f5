"""The native engine beside the other libraries' own calls: in turn, so that both see the same machine."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.backends import Float32Array
from ..runtime.bundle import Bundle
from ..runtime.errors import BackendUnavailableError
from ..runtime.manifest import Artifact
from ..runtime.model import Model, load_artifact

BLOCKS = 40
BLOCK_SECONDS = 0.004
FLEET = 256
WINDOW = 30  # Timesteps, where the model has no window of its own.
# Whom each precision competes with: their files that are as exact.
RIVALS = {"float32": ("tflite float32", "onnx float32"), "int8": ("tflite dynamic", "onnx dynamic")}


@dataclass(frozen=True)
class Beside:
    """How many times faster one is than another; the median of pairs of blocks.

    Attributes:
        what: ours.
        other: theirs.
        ours: µs a step.
        theirs: µs a step.
        faster: theirs / ours.
    """

    what: str
    other: str
    ours: float
    theirs: float
    faster: float


def compare_native(bundle: Bundle) -> list[Beside]:
    """Each native artifact's `Stream.step`, and a fleet's, beside those that the bundle has to compare it with.

    And a step by window, with an answer each, beside going through the window again from a reset.
    """
    found: list[Beside] = []
    xs = bundle.golden().inputs
    manifest = bundle.manifest
    entries = {a.label: a for a in manifest.artifacts if a.graph == "step"}
    for label, entry in entries.items():
        if not label.startswith("native"):
            continue
        try:
            model = load_artifact(bundle, entry, "native")
        except BackendUnavailableError:
            return []
        step = _cycle(model.stream(carry=True).step, [np.ascontiguousarray(x) for x in xs])
        for rival in RIVALS.get(label.removeprefix("native "), ()):
            if rival not in entries:
                continue
            try:
                name, call = _rival(bundle, entries[rival], xs)
            except BackendUnavailableError:
                continue
            found.append(_beside(f"{label} step", name, step, call))
        fleet = model.fleet(FLEET, carry=True)
        rows = np.resize(xs, (FLEET, xs.shape[1])).astype(np.float32)
        answers = np.empty((FLEET, len(manifest.outputs)), np.float32)
        together = lambda fleet=fleet, rows=rows, answers=answers: fleet.step(rows, out=answers)  # noqa: E731
        what = f"{label} fleet of {FLEET}"
        found.append(_beside(what, f"{label} step", together, step, FLEET, 1))
        length = manifest.window or WINDOW
        found.append(_beside(f"{label} window of {length}", "the window run again", *_windows(model, xs, length)))
        if label == "native float32" and "onnx float32" in entries:
            try:
                call = _onnx_run(bundle.read(entries["onnx float32"]), rows)
            except BackendUnavailableError:
                continue
            found.append(_beside(what, f"onnx float32 batch of {FLEET}", together, call, FLEET, FLEET))
    return found


def _windows(model: Model, xs: Float32Array, length: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """An answer on the last inputs: of windows in flight, and of one stream reset before each."""
    rows = [np.ascontiguousarray(x) for x in np.resize(xs, (max(len(xs), length), xs.shape[1])).astype(np.float32)]
    windows, again = model.stream(window=length, hop=1), model.stream(carry=True)
    for x in rows[:length]:
        windows.step(x)
    window = np.stack(rows[:length])

    def replay() -> object:
        again.reset()
        return again.run(window)[-1]

    return _cycle(windows.step, rows), replay


def _rival(bundle: Bundle, entry: Artifact, xs: Float32Array) -> tuple[str, Callable[[], object]]:
    """The call that a program without this package would make at every step."""
    if entry.format == "onnx":
        return f"{entry.label} sess.run", _onnx_run(bundle.read(entry), xs[:1])
    return f"{entry.label} invoke", load_artifact(bundle, entry, "tflite").stream().bare_call()


def _onnx_run(content: bytes, rows: Float32Array) -> Callable[[], object]:
    """`InferenceSession.run` on one timestep of as many streams as there are rows, its states handed back to it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError('needs onnxruntime: pip install "edgelstm[onnx]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed: dict[str, Any] = {
        value.name: np.zeros((1, len(rows), value.shape[2]), np.float32) for value in session.get_inputs()
    }
    feed["x"] = np.ascontiguousarray(rows[None], np.float32)
    wanted = ["y", *(f"{name}_next" for name in feed if name != "x")]
    states = [name for name in feed if name != "x"]

    def call() -> object:
        y, *following = session.run(wanted, feed)
        feed.update(zip(states, following, strict=True))
        return y

    return call


def _cycle(step: Callable[[Float32Array], object], rows: list[Float32Array]) -> Callable[[], object]:
    following = itertools.cycle(rows).__next__
    return lambda: step(following())


def _beside(
    what: str, other: str, ours: Callable[[], object], theirs: Callable[[], object], steps: int = 1, others: int = 1
) -> Beside:
    counts = [_count(ours), _count(theirs)]
    pairs = [(_seconds(ours, counts[0]) / steps, _seconds(theirs, counts[1]) / others) for _ in range(BLOCKS)]
    mine, them = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
    return Beside(what, other, mine, them, statistics.median(b / a for a, b in pairs))


def _count(call: Callable[[], object]) -> int:
    """Calls that fill a block; finding out warms it up."""
    count = 1
    while (seconds := _seconds(call, count) * count) < BLOCK_SECONDS / 4:
        count *= 2
    return max(1, int(count * BLOCK_SECONDS / max(seconds, 1e-9)))


def _seconds(call: Callable[[], object], count: int) -> float:
    """Of this thread's own time, so that what else the machine does is not in it; all that is compared runs in one."""
    begin = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - begin) / count
