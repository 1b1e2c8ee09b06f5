"""Whether a bundle's artifacts can run on a device, and what they need there."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.bundle import Bundle
from ..runtime.elm import state_widths
from ..runtime.manifest import Artifact, Manifest
from ..runtime.memory import TILE, c_tile, stream_bytes
from ..runtime.streaming import Window
from .estimate import Cost, cost, work_of
from .profile import DeviceProfile

# What the stack may take in a step of the C engine with one stream (measured with -fstack-usage: 0.8 kB on 32-bit ARM),
# and with windows in flight, several of which go through a layer together.
STACK, STACK_BY_WINDOW = 1536, 2048
_WHY_NOT = {
    "native": {
        "microcontroller": "it has no Python; export the model with --format c",
        "phone": "it has no Python; an app takes tflite, onnx or c",
        "browser": "it has no Python; a page takes onnx, tflite or c as WebAssembly",
    },
    "tflite": {
        "microcontroller": "TensorFlow Lite's interpreter does not run there, and TensorFlow Lite Micro's was tried on "
        "a PC only; export with --format c"
    },
    "onnx": {"microcontroller": "onnxruntime does not run there; export with --format c"},
}


@dataclass(frozen=True)
class Fit:
    """One artifact on one device.

    Attributes:
        artifact: such as `native int8`, `tflite float32`, or `c int8`: the folder that `export --format c` writes.
        problem: why it cannot run there; empty if it can.
        flash: bytes of the model, and for C of the engine's code besides.
        ram: bytes that one more stream takes, as far as that is known; None for other libraries' interpreters.
        state: bytes of a stream's states alone. By window, an engine keeps one for every window in flight; the others
            begin from a zero state for each answer.
        instructions: of a step, counted under emulation; None where nothing was counted. By window, times the windows
            in flight, which is up to 11 % more than was counted for these.
        microseconds: estimate of a step: those instructions at one each cycle of the clock.
        basis: of the estimate.
    """

    artifact: str
    problem: str
    flash: int
    ram: int | None
    state: int
    instructions: int | None
    microseconds: float | None
    basis: str


def fit(bundle: Bundle, profile: DeviceProfile) -> list[Fit]:
    """Every artifact of a bundle on a device.

    Raises:
        BundleError: a file of the bundle is damaged.
    """
    manifest = bundle.manifest
    native = {a.precision: bundle.read(a) for a in manifest.artifacts if a.format == "native"}
    states = _states(next(iter(native.values()))) if native else 0
    kept = {"step": states, "window": _inputs_of(manifest), "sequence": 0}
    found = [
        _other(artifact, profile, kept[artifact.graph])
        for artifact in manifest.artifacts
        if artifact.format != "native"
    ]
    window = None if manifest.streaming is None else manifest.streaming.default
    for format_ in ("native", "c"):
        found += [_engine(format_, precision, content, profile, window) for precision, content in native.items()]
    return sorted(found, key=lambda each: (bool(each.problem), each.microseconds or 1e18, each.flash))


def _inputs_of(manifest: Manifest) -> int:
    """Bytes of what a stream of a window graph keeps: its last inputs."""
    return 4 * (manifest.window or 0) * len(manifest.features)


def _other(artifact: Artifact, profile: DeviceProfile, states: int) -> Fit:
    problem = _missing(artifact.format, profile)
    if not problem and artifact.format == "tflite" and profile.architecture == "armv7":
        problem = _for_legacy(artifact)
    return Fit(artifact.label, problem, artifact.size, None, states, None, None, "")


def _for_legacy(artifact: Artifact) -> str:
    if artifact.precision != "dynamic":
        return ""
    return "tflite-runtime 2.14, the last one there, refuses it unless it was exported with --tflite-runtime-2.14"


def _engine(format_: str, precision: str, content: bytes, profile: DeviceProfile, window: Window | None) -> Fit:
    counted = cost(profile.core, precision)
    work = work_of(content)
    in_flight = 1 if window is None else window.in_flight
    ram = stream_bytes(content, window, profile.pointer, c_tile(window) if format_ == "c" else TILE)
    flash = len(content) + (counted.code if counted is not None and format_ == "c" else 0)
    problem = _missing(format_, profile)
    if not problem and profile.kind == "microcontroller":
        problem = _too_large(flash, ram + (STACK if window is None else STACK_BY_WINDOW), profile)
    instructions = None if counted is None else counted.instructions(work) * in_flight
    time = None if instructions is None else instructions / profile.clock_hz * 1e6
    basis = _basis(counted, profile, in_flight)
    return Fit(f"{format_} {precision}", problem, flash, ram, _states(content) * in_flight, instructions, time, basis)


def _missing(format_: str, profile: DeviceProfile) -> str:
    if format_ in profile.formats:
        return ""
    known = _WHY_NOT.get(format_, {}).get(profile.kind)
    return known or f"no {format_} runtime exists for {profile.architecture} there"


def _too_large(flash: int, ram: int, profile: DeviceProfile) -> str:
    problems = [
        f"needs {need:,} bytes of {what}, of {have:,}"
        for what, need, have in (("flash", flash, profile.flash), ("RAM with its stack", ram, profile.ram))
        if need > have
    ]
    return "; ".join(problems)


def _basis(counted: Cost | None, profile: DeviceProfile, in_flight: int) -> str:
    if counted is None:
        return ""
    windows = "" if in_flight == 1 else f", for each of the {in_flight} windows in flight"
    return (
        f"estimate: instructions counted for {profile.core} ({counted.basis}; fitted to {100 * counted.error:.0f} %) "
        f"at one each cycle of {profile.clock_hz / 1e6:,.0f} MHz{windows}"
    )


def _states(content: bytes) -> int:
    return 4 * sum(state_widths(content, "native")[0].values())
