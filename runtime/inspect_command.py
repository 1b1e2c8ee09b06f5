"""`inspect`: shows what a bundle or a single exported file holds."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .durable import read_regular
from .errors import BundleError
from .model import SUFFIXES
from .signature import add_signers_argument, refuse_single_file
from .streaming import WINDOW, Streaming
from .table import table
from .tensors import Interface, Tensor, read_interface
from .typed_json import from_json

HELP = "show layers, states, artifacts and parity of a bundle or an exported file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a bundle (.edge or folder), or an exported .elm, .tflite or .onnx file")
    add_signers_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    path = Path(args.model)
    show(describe(path, args.allowed_signers), args.json)
    return 0


def describe(path: Path, allowed_signers: Path | None) -> dict[str, Any]:
    """A bundle or a single exported file, as a dictionary for `show`."""
    if path.suffix in SUFFIXES and not path.is_dir():
        return describe_file(path, allowed_signers)
    return describe_bundle(Bundle.open(path, allowed_signers))


def describe_file(path: Path, allowed_signers: Path | None) -> dict[str, Any]:
    """A single exported file, as a dictionary for `show`."""
    refuse_single_file(path, allowed_signers)
    try:
        content = read_regular(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    format_ = SUFFIXES[path.suffix]
    interface = read_interface(format_, content, str(path))
    try:
        stored: dict[str, Any] = json.loads(interface.description)
        graph, precision = str(stored["graph"]), str(stored["precision"])
        described = {key: stored[key] for key in ("name", "features", "outputs", "layers", "parameters")}
        streaming = from_json(Streaming, stored["streaming"], "streaming") if graph != "sequence" else None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: was not written by EdgeLSTM, or its description is damaged") from error
    label = f"{format_} {precision}" + ("" if graph == "step" else f" ({graph})")
    return {
        "file": str(path),
        **described,
        "streaming": None if streaming is None else asdict(streaming),
        "states": [state.name for state in interface.states],
        "state_bytes": sum(state.size for state in interface.states),
        "artifacts": [{"artifact": label, "file": path.name, "size": len(content), **_tensors(interface)}],
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """A bundle, as a dictionary for `show`."""
    manifest = bundle.manifest
    artifacts: list[dict[str, Any]] = []
    states: tuple[Tensor, ...] = ()
    for artifact in manifest.artifacts:
        content, source = bundle.read(artifact), f"{bundle.path}: {artifact.file}"
        # What others' converters wrote has no description of ours, and its inputs and outputs are what they made them.
        ours = manifest.streaming is not None
        interface = read_interface(artifact.format, content, source) if ours else Interface("", ())
        states = states or interface.states
        artifacts.append(
            {
                "artifact": artifact.label,
                "file": artifact.file,
                "size": artifact.size,
                "sha256": artifact.sha256,
                **artifact.parity.to_json(),
                **_tensors(interface),
            }
        )
    return {
        "file": str(bundle.path),
        "name": manifest.name,
        "signer": bundle.signer,
        "features": list(manifest.features),
        "outputs": list(manifest.outputs),
        "layers": list(manifest.layers),
        "parameters": manifest.parameters,
        "streaming": None if manifest.streaming is None else asdict(manifest.streaming),
        "keras_float32": None if manifest.keras_float32 is None else manifest.keras_float32.to_json(),
        "chaotic_beyond": manifest.chaotic_beyond,
        "training": manifest.training,
        "states": [state.name for state in states],
        "state_bytes": sum(state.size for state in states),
        "artifacts": artifacts,
        "versions": manifest.versions,
    }


def _tensors(interface: Interface) -> dict[str, Any]:
    return {"tensors": [asdict(tensor) for tensor in interface.tensors]}


def show(description: dict[str, Any], as_json: bool) -> None:
    """Print a description."""
    if as_json:
        print(json.dumps(description))
        return
    lines = [
        ("model", f"{description['name']} ({description['file']})"),
        ("features", ", ".join(description["features"])),
        ("outputs", ", ".join(description["outputs"])),
        ("layers", "\n            ".join(description["layers"])),
        ("parameters", f"{description['parameters']:,}" if description["parameters"] is not None else "unknown"),
        *_streaming(description["streaming"]),
    ]
    if description.get("signer"):
        lines.append(("signed by", description["signer"]))
    if description["streaming"] is not None and description["streaming"]["whole"] is None:
        states = f"{', '.join(description['states'])}: {description['state_bytes']:,} bytes per stream in float32"
        lines.append(("states", states))
    if (own := description.get("keras_float32")) is not None and own["snr_db"] is not None:
        lines.append(("Keras's own", f"float32: {own['snr_db']:.1f} dB against float64"))
    if (chaotic := description.get("chaotic_beyond")) is not None:
        lines.append(("", f"chaotic: beyond {chaotic} timesteps no float32 holds its answers"))
    for key, text in lines:
        print(f"{key:<12}{text}")
    if description["artifacts"]:
        print()
        print(
            table(["artifact", "file", "bytes", "SNR dB", "max |error|"], [_row(a) for a in description["artifacts"]])
        )
    for label, tensors in _interfaces(description["artifacts"]):
        print(f"\n{label}\n")
        print(table(["role", "name", "shape", "type"], [_tensor_row(t) for t in tensors]))


def _streaming(streaming: dict[str, Any] | None) -> list[tuple[str, str]]:
    if streaming is None:
        return [("streaming", "none: sequence graphs only, which take whole sequences")]
    window, carried = streaming["window"], streaming["carried_snr_db"]
    if streaming["mode"] == WINDOW:
        every = "each timestep" if streaming["hop"] == 1 else f"every {streaming['hop']} timesteps"
        lines = [("streaming", f"by window: {every}, the answer on the last {window}")]
        if (whole := streaming["whole"]) is not None:
            lines.append(("", f"at once, and in no other way, because of {whole['because']}"))
            if whole["rows"] is not None:
                lines.append(("answers", f"sequences of {whole['rows']} rows"))
            if whole["ids"] is not None:
                lines.append(("inputs", f"ids: the whole numbers 0 to {whole['ids'] - 1}"))
    else:
        trained = f"; trained on windows of {window}" if window else ""
        lines = [("streaming", f"the state is carried on for ever{trained}")]
    if carried is not None:
        lines.append(("", f"with the state carried, answers are {carried:.0f} dB from those on windows"))
    if not streaming["bounded"]:
        lines.append(("", "the state grows without bound past the window"))
    return lines


def _row(artifact: dict[str, Any]) -> list[object]:
    measured = "snr_db" in artifact
    return [
        artifact["artifact"],
        artifact["file"],
        f"{artifact['size']:,}",
        f"{artifact['snr_db']:.1f}" if measured else "",
        f"{artifact['max_abs_error']:.2e}" if measured else "",
    ]


def _interfaces(artifacts: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The artifacts' tensors, those of artifacts that have the same ones together."""
    found: list[tuple[list[str], list[dict[str, Any]]]] = []
    for artifact in artifacts:
        for labels, tensors in found:
            if tensors == artifact["tensors"]:
                labels.append(artifact["artifact"])
                break
        else:
            found.append(([artifact["artifact"]], artifact["tensors"]))
    return [(", ".join(labels), tensors) for labels, tensors in found]


def _tensor_row(tensor: dict[str, Any]) -> list[object]:
    shape = ", ".join("any" if n is None else str(n) for n in tensor["shape"]) + (
        "," if len(tensor["shape"]) == 1 else ""
    )
    return [tensor["role"], tensor["name"], f"({shape})", tensor["dtype"]]
