"""`edgelstm bench`: what a step costs, beside the interpreters' own calls in the same run."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import verify_command
from ..runtime.bundle import Bundle
from ..runtime.errors import BackendUnavailableError, InputError
from ..runtime.manifest import Artifact
from ..runtime.model import Model, load_artifact
from ..runtime.table import table
from .bench_beside import Beside, compare_native

CHUNK = 64
BLOCK = 200
STREAMS = 100
START_RUNS = 9
BURSTS = 15
SETTLING = 5000  # Timesteps of silence before silence is measured.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a bundle (.edge or folder)")
    parser.add_argument("--backend", default="auto", help="measure only this backend")
    parser.add_argument("--precision", help="measure only artifacts of this precision")
    parser.add_argument("--steps", type=int, default=20000, help="steps to time for each artifact (default 20000)")
    parser.add_argument(
        "--mqtt", metavar="URL", help="instead, the time from a message to its answer over this broker, at QoS 1"
    )
    parser.add_argument("--no-start", action="store_true", help="leave out the time to import and load")


@dataclass(frozen=True)
class Measurement:
    """One artifact on one backend; times in µs unless the name says otherwise.

    Attributes:
        artifact: format and precision.
        backend: what ran it.
        bare_p50: the interpreter's own call alone, everything bound.
        step_p50: `Stream.step(x)`.
        step_p99: the same.
        out_p50: `Stream.step(x, out=y)`.
        overhead: what `step` adds to the bare call: the median difference of neighbouring blocks' medians.
        ratio: `step` to the bare call, likewise.
        chunk_steps_per_second: `Stream.run` in chunks of 64.
        load_ms: from the bundle's file to a stream.
        stream_kib: memory that one more stream takes, if it could be measured.
        silence: a step's time behind a long silence, over its time on noise; None of a model whose inputs are ids.
        denormals: the same of inputs of 1e-37 to 1e-45.
    """

    artifact: str
    backend: str
    bare_p50: float
    step_p50: float
    step_p99: float
    out_p50: float
    overhead: float
    ratio: float
    chunk_steps_per_second: float
    load_ms: float
    stream_kib: float | None
    silence: float | None
    denormals: float | None


@dataclass(frozen=True)
class Start:
    """Whole processes, in seconds; medians of runs in turn."""

    numpy: float
    runtime: float
    first_step: float
    help: float


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.steps < BLOCK:
        raise InputError(f"--steps {args.steps}: at least {BLOCK} are needed")
    bundle = Bundle.open(args.model)
    if args.mqtt is not None:
        return _over_mqtt(bundle, args)
    measured: list[Measurement] = []
    missing: list[str] = []
    for entry, backend in verify_command.selected(bundle, args.backend, args.precision):
        if entry.graph == "sequence":
            continue
        try:
            measured.append(measure(bundle, entry, backend, args.steps))
        except BackendUnavailableError as error:
            missing.append(str(error))
    if not measured:
        raise BackendUnavailableError(f"{bundle.path}: nothing could be measured: {'; '.join(missing)}")
    alone = args.backend != "auto" or args.precision is not None
    beside = [] if alone else compare_native(bundle)
    start = None if args.no_start else measure_start(bundle.path)
    if args.json:
        described = {
            "artifacts": [asdict(m) for m in measured],
            "beside": [asdict(b) for b in beside],
            "start": start and asdict(start),
        }
        print(json.dumps({"bundle": str(bundle.path), "name": bundle.manifest.name, **described}))
        return 0
    _show(bundle, measured, beside, start)
    for message in missing:
        print(f"not measured: {message}")
    return 0


def _over_mqtt(bundle: Bundle, args: argparse.Namespace) -> int:
    from .bench_mqtt import measure_round_trip

    trip = measure_round_trip(bundle.path, args.mqtt, args.steps)
    if args.json:
        print(json.dumps({"bundle": str(bundle.path), "name": bundle.manifest.name, "mqtt": asdict(trip)}))
        return 0
    print(f"{bundle.manifest.name}: {trip.messages:,} messages over {args.mqtt}, QoS 1, one at a time; µs\n")
    rows = [
        ["to the broker and back", f"{trip.echo_p50:.0f}", f"{trip.echo_p99:.0f}"],
        ["to an answer", f"{trip.answer_p50:.0f}", f"{trip.answer_p99:.0f}"],
    ]
    print(table(["", "p50", "p99"], rows))
    return 0


def measure(bundle: Bundle, entry: Artifact, backend: str, steps: int) -> Measurement:
    """Measure one file of a bundle, the bare call and ours in turn, block by block."""
    begin = time.perf_counter()
    model = load_artifact(bundle, entry, backend)
    # What takes a whole window has an answer for each timestep then, and none before.
    carries = model.streaming.whole is None
    stream = model.stream(carry=True) if carries else model.stream(hop=1)
    load_ms = (time.perf_counter() - begin) * 1e3
    xs = bundle.golden().inputs
    rows = [np.ascontiguousarray(xs[i % len(xs)]) for i in range(BLOCK)]
    stream.run(np.resize(xs, (1 if carries else model.window or 1, xs.shape[1])))
    y = stream.step(rows[0])
    bare = stream.bare_call()
    bare_times: list[int] = []
    step_times: list[int] = []
    out_times: list[int] = []
    pairs: list[tuple[float, float]] = []
    for _ in range(max(steps // BLOCK, 1)):
        bares = _times(lambda _: bare(), rows)
        ours = _times(stream.step, rows)
        out_times += _times(lambda x: stream.step(x, out=y), rows)
        pairs.append((statistics.median(ours), statistics.median(bares)))
        bare_times += bares
        step_times += ours
    chunks = [np.ascontiguousarray(np.resize(xs, (CHUNK, xs.shape[1])))] * max(steps // CHUNK // 2, 1)
    begin = time.perf_counter()
    for chunk in chunks:
        stream.run(chunk)
    per_second = len(chunks) * CHUNK / (time.perf_counter() - begin)
    return Measurement(
        entry.label,
        backend,
        statistics.median(bare_times) / 1e3,
        statistics.median(step_times) / 1e3,
        float(np.percentile(step_times, 99)) / 1e3,
        statistics.median(out_times) / 1e3,
        statistics.median(ours - bare for ours, bare in pairs) / 1e3,
        statistics.median(ours / bare for ours, bare in pairs),
        per_second,
        load_ms,
        _stream_kib(bundle, entry, backend),
        *_on_silence_and_denormals(model),
    )


def _on_silence_and_denormals(model: Model) -> tuple[float | None, float | None]:
    """How many times as long as on noise a step takes; the least of bursts in turn, in the thread's own time."""
    if model.ids is not None:
        return None, None  # They are no ids.
    shape = (BLOCK, len(model.features))
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    zeros, tiny = np.zeros(shape, np.float32), np.resize(np.array([1e-37, -1e-39, 1e-41, 1e-45], np.float32), shape)
    rows = [list(values) for values in (noise, zeros, tiny)]
    streams = [model.stream() for _ in rows]
    streams[1].run(noise)
    for _ in range((SETTLING if model.streaming.whole is None else model.window or 1) // BLOCK + 1):
        streams[1].run(zeros)
    least = [float("inf")] * len(rows)
    for _ in range(BURSTS):
        for i, stream in enumerate(streams):
            begin = time.thread_time()
            for x in rows[i]:
                stream.step(x)
            least[i] = min(least[i], time.thread_time() - begin)
    return least[1] / least[0], least[2] / least[0]


def _times(call: Callable[[Any], object], rows: list[Any]) -> list[int]:
    """Nanoseconds of a call for each row; the clock's own cost is in all of them alike."""
    clock = time.perf_counter_ns
    times: list[int] = []
    for row in rows:
        begin = clock()
        call(row)
        times.append(clock() - begin)
    return times


def _stream_kib(bundle: Bundle, entry: Artifact, backend: str) -> float | None:
    """Resident memory that each further stream takes after its first step, in a process that does nothing else."""
    command = [sys.executable, "-c", _STREAMS, str(bundle.path), backend, entry.precision, str(STREAMS)]
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 and done.stdout else None


_STREAMS = """
import gc, os, sys, numpy, edgelstm.runtime
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
model = edgelstm.runtime.load(sys.argv[1], sys.argv[2], sys.argv[3])
x = numpy.zeros(len(model.features), numpy.float32)
def stream():
    made = model.stream(carry=True) if model.streaming.whole is None else model.stream()
    made.step(x)
    return made
kept = [stream()]
gc.collect()
before = resident()
kept += [stream() for _ in range(int(sys.argv[4]))]
print((resident() - before) / int(sys.argv[4]))
"""


def measure_start(path: Path) -> Start:
    """Time whole processes, in turn so that a machine that slows down slows them all."""
    absolute = str(path.absolute())
    first_step = "import sys, edgelstm.runtime as e; s = e.load(sys.argv[1]).stream(); s.step([0.0] * s.features)"
    commands = {
        "numpy": [sys.executable, "-c", "import numpy"],
        "runtime": [sys.executable, "-c", "import edgelstm.runtime"],
        "first_step": [sys.executable, "-c", first_step, absolute],
        "help": [sys.executable, "-m", "edgelstm.toolkit.cli", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(START_RUNS):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - begin)
    return Start(**{name: statistics.median(times) for name, times in seconds.items()})


def _show(bundle: Bundle, measured: list[Measurement], beside: list[Beside], start: Start | None) -> None:
    print(f"{bundle.manifest.name}: {bundle.manifest.parameters:,} parameters; µs per step, one thread\n")
    header = [
        "artifact", "backend", "bare p50", "step p50", "p99", "with out", "overhead", "ratio",
        "steps/s in chunks", "load ms", "KiB per stream", "silence / noise", "denormals / noise",
    ]  # fmt: skip
    rows = [
        [
            m.artifact,
            m.backend,
            f"{m.bare_p50:.2f}",
            f"{m.step_p50:.2f}",
            f"{m.step_p99:.2f}",
            f"{m.out_p50:.2f}",
            f"{m.overhead:.2f}",
            f"{m.ratio:.2f}",
            f"{m.chunk_steps_per_second:,.0f}",
            f"{m.load_ms:.1f}",
            *(
                "" if n is None else f"{n:.{digits}f}"
                for n, digits in ((m.stream_kib, 0), (m.silence, 2), (m.denormals, 2))
            ),
        ]
        for m in measured
    ]
    print(table(header, rows))
    if beside:
        print()
        columns = [[b.what, b.other, f"{b.ours:.2f}", f"{b.theirs:.2f}", f"{b.faster:.2f}"] for b in beside]
        print(table(["in turn", "beside", "µs", "µs", "times faster"], columns))
    if start is not None:
        print(
            f"\nwhole processes, medians of {START_RUNS} in turn: import numpy {start.numpy:.3f} s, "
            f"import edgelstm.runtime {start.runtime:.3f} s ({start.runtime / start.numpy:.2f} ×), "
            f"load and first step {start.first_step:.3f} s, edgelstm --help {start.help:.3f} s"
        )
