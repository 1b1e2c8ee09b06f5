"""`inspect`: shows what a bundle or a single exported file holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .model import SUFFIXES, Model, load, load_artifact
from .signature import add_signers_argument
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
        "window": model.window,
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
        "streamable": manifest.streamable,
        "features": list(manifest.features),
        "outputs": list(manifest.outputs),
        "layers": list(manifest.layers),
        "parameters": manifest.parameters,
        "window": manifest.window,
        "carries_state": manifest.carries_state,
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
        ("window", description["window"] or "none: the state is carried on for ever"),
    ]
    if description.get("signer"):
        lines.append(("signed by", description["signer"]))
    if not description.get("carries_state", True):
        lines.append(("state", "grows without bound past the window; run with it (--window, window=)"))
    if description.get("streamable", True):
        states = f"{', '.join(description['states'])}: {description['state_bytes']:,} bytes per stream in float32"
        lines.append(("states", states))
    else:
        lines.append(("streaming", "not possible: sequence graphs only"))
    for key, text in lines:
        print(f"{key:<12}{text}")
    if description["artifacts"]:
        print()
        print(
            table(["artifact", "file", "bytes", "SNR dB", "max |error|"], [_row(a) for a in description["artifacts"]])
        )


def _row(artifact: dict[str, Any]) -> list[object]:
    measured = "snr_db" in artifact
    return [
        artifact["artifact"],
        artifact["file"],
        f"{artifact['size']:,}",
        f"{artifact['snr_db']:.1f}" if measured else "",
        f"{artifact['max_abs_error']:.2e}" if measured else "",
    ]
