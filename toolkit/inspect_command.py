"""`edgelstm inspect`: what the runtime's command shows, and Keras files as well."""

from __future__ import annotations

import argparse
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..runtime import inspect_command
from ..runtime.model import SUFFIXES
from ..runtime.signature import add_signers_argument
from .run_folder import is_run_folder, read_run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model", help="a bundle, an exported .elm, .tflite or .onnx, a .keras or .h5 file, or a run folder"
    )
    add_signers_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    path = Path(args.model)
    if is_run_folder(path):
        folder = read_run_folder(path)
        settings = folder.export_settings()
        shown = describe_keras(folder.model_path, settings.pop("carry"), settings.pop("window"))
        inspect_command.show({**shown, **_known(settings)}, args.json)
    elif _is_exported(path):
        inspect_command.show(inspect_command.describe(path, args.allowed_signers), args.json)
    else:
        inspect_command.show(describe_keras(path), args.json)
    return 0


def _is_exported(path: Path) -> bool:
    """Whether a path is for the runtime: a bundle or an artifact. Of all else, reading it says what it is."""
    if path.is_dir():
        return (path / "manifest.json").is_file()
    if path.suffix in (*SUFFIXES, ".edge") or not path.exists():
        return path.suffix not in (".keras", ".h5", ".hdf5")
    if not path.is_file() or not zipfile.is_zipfile(path):  # A named pipe would be waited for.
        return False
    with zipfile.ZipFile(path) as archive:
        return "manifest.json" in archive.namelist()


def describe_keras(path: Path, carry: bool = False, window: int | None = None) -> dict[str, Any]:
    """A Keras file, as a dictionary for `show`."""
    from ..export import WindowModel, read_model, streaming_of
    from .quiet import quiet

    with quiet():
        network = read_model(path, window=window)
    if isinstance(network, WindowModel):
        layers, streaming, states = network.layers, network.streaming(carry, None), ()
    else:
        layers, streaming, states = network.summaries, streaming_of(network, carry, window), network.states
    return {
        "file": str(path),
        "name": network.name,
        "features": [f"x{i}" for i in range(network.features)],
        "outputs": [f"y{i}" for i in range(network.outputs)],
        "layers": list(layers),
        "parameters": network.parameters,
        "streaming": asdict(streaming),
        "states": [spec.name for spec in states],
        "state_bytes": sum(4 * spec.units for spec in states),
        "artifacts": [],
    }


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items() if value}
