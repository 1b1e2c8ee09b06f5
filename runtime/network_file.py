"""A network in a file: one `.npz` of the weights and a JSON description, readable with NumPy alone."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import numpy as np

from .activations import Function
from .errors import BundleError
from .network import LAYER_KINDS, Layer, Network, layer_fields

VERSION = 1


def network_to_bytes(network: Network) -> bytes:
    """Serialise a network; the same network gives the same bytes."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    layers: list[dict[str, Any]] = []
    for index, layer in enumerate(network.layers):
        description: dict[str, Any] = {"kind": type(layer).__name__, "name": layer.name}
        for key, value in layer_fields(layer):
            if isinstance(value, np.ndarray):
                arrays[f"{index}.{key}"] = np.ascontiguousarray(value, np.float32)
            elif isinstance(value, Function):
                description[key] = [value.name, *value.parameters]
            else:
                description[key] = value
        layers.append(description)
    header = {
        "version": VERSION,
        "name": network.name,
        "features": network.features,
        "return_sequences": network.return_sequences,
        "layers": layers,
    }
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **cast(Any, arrays))
    return buffer.getvalue()


def network_from_bytes(content: bytes, source: str) -> Network:
    """Read what `network_to_bytes` wrote.

    Args:
        content: the file.
        source: what to call it in an error.

    Raises:
        BundleError: the content is damaged or of a later version.
    """
    from zipfile import BadZipFile

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            if header["version"] > VERSION:
                raise BundleError(f"{source}: network format {header['version']} is newer than this EdgeLSTM reads")
            layers = tuple(_layer(d, i, arrays) for i, d in enumerate(header["layers"]))
        network = Network(header["name"], layers, header["features"], header["return_sequences"])
        # One step proves that the shapes fit together, whatever the file claims.
        network.step(network.zero_state(), np.zeros(network.features, np.float32))
    except (KeyError, ValueError, TypeError, IndexError, OSError, EOFError, BadZipFile) as error:
        raise BundleError(f"{source}: not a readable network ({error})") from error
    return network


def _layer(description: dict[str, Any], index: int, arrays: Any) -> Layer:
    values = dict(description)
    kind = LAYER_KINDS[values.pop("kind")]
    prefix = f"{index}."
    for key, value in values.items():
        if isinstance(value, list):
            name, *parameters = cast("list[Any]", value)
            values[key] = Function(name, tuple(parameters))
    values.update({key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)})
    return kind(**values)
