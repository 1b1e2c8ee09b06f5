"""`inspect`: shows what a bundle or a single exported file holds."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .model import SUFFIXES, Model, load, load_artifact
from .signature import add_signers_argument
from .streaming import WINDOW
from .table import table
from .tflite_metadata import METADATA_NAME

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
    model = load(path, allowed_signers=allowed_signers)
    stored: dict[str, Any] = json.loads(model.description[METADATA_NAME])
    return {
        "file": str(path),
        "name": model.name,
        "features": list(model.features),
        "outputs": list(model.outputs),
        "layers": stored.get("layers", []),
        "parameters": stored.get("parameters"),
        "streaming": asdict(model.streaming),
        "states": list(model.state_names),
        "state_bytes": model.state_bytes,
        "artifacts": [{"artifact": f"{model.format} {model.precision}", "file": path.name, "size": model.size}],
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """A bundle, as a dictionary for `show`."""
    manifest = bundle.manifest
    network: Model | None = None
    if manifest.network is not None:
        network = load_artifact(bundle, manifest.network, "numpy")
    artifacts = [
        {
            "artifact": artifact.label,
            "file": artifact.file,
            "size": artifact.size,
            "sha256": artifact.sha256,
            **artifact.parity.to_json(),
        }
        for artifact in manifest.artifacts
    ]
    return {
        "file": str(bundle.path),
        "name": manifest.name,
        "signer": bundle.signer,
        "features": list(manifest.features),
        "outputs": list(manifest.outputs),
        "layers": list(manifest.layers),
        "parameters": manifest.parameters,
        "streaming": None if manifest.streaming is None else asdict(manifest.streaming),
        "training": manifest.training,
        "states": [] if network is None else list(network.state_names),
        "state_bytes": 0 if network is None else network.state_bytes,
        "artifacts": artifacts,
        "versions": manifest.versions,
    }


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
    if description["streaming"] is not None:
        states = f"{', '.join(description['states'])}: {description['state_bytes']:,} bytes per stream in float32"
        lines.append(("states", states))
    for key, text in lines:
        print(f"{key:<12}{text}")
    if description["artifacts"]:
        print()
        print(
            table(["artifact", "file", "bytes", "SNR dB", "max |error|"], [_row(a) for a in description["artifacts"]])
        )


def _streaming(streaming: dict[str, Any] | None) -> list[tuple[str, str]]:
    if streaming is None:
        return [("streaming", "not possible: sequence graphs only")]
    window, carried = streaming["window"], streaming["carried_snr_db"]
    if streaming["mode"] == WINDOW:
        every = "each timestep" if streaming["hop"] == 1 else f"every {streaming['hop']} timesteps"
        lines = [("streaming", f"by window: {every}, the answer on the last {window}")]
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
