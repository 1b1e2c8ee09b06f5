"""The configuration of a model of Keras 2, said in the words of Keras 3.

Only what decides the model's outputs is kept: initialisers, regularisers and constraints are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...runtime.errors import UnsupportedModelError

_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
_HARD_SIGMOID = {
    "class_name": "function",
    "config": "keras2_hard_sigmoid",
    "module": "builtins",
    "registered_name": "keras2_hard_sigmoid",
}
_MODELS = {"Sequential": "Sequential", "Model": "Functional", "Functional": "Functional"}
_GONE = {
    "TFOpLambda": "is a TensorFlow operation outside of any layer; express it with a layer of Keras",
    "SlicingOpLambda": "is a slice outside of any layer; express it with a layer of Keras",
    "TensorFlowOpLayer": "is a TensorFlow operation outside of any layer; express it with a layer of Keras",
}


def upgrade_config(config: dict[str, Any], path: str) -> dict[str, Any]:
    """Rewrite the configuration of a Keras 2 model, in which `class_name` and `config` name an object.

    Args:
        config: of the model, as the file has it.
        path: the file, for the error.

    Returns:
        What `keras.saving.deserialize_keras_object` of Keras 3 takes. `hard_sigmoid`, which became another function,
        is named `keras2_hard_sigmoid` in it.

    Raises:
        UnsupportedModelError: the model has something that Keras 3 cannot express.
    """
    return _object(config, path)


def _object(entry: dict[str, Any], path: str) -> dict[str, Any]:
    kind, config = entry["class_name"], entry["config"]
    if kind in _MODELS:
        return {
            **_node(entry),
            "class_name": _MODELS[kind],
            "module": "keras" if kind == "Sequential" else "keras.src.models.functional",
            "registered_name": None if kind == "Sequential" else "Functional",
            "config": _model(config, path),
        }
    where = f'{path}: layer "{config.get("name", kind)}" ({kind})'
    if kind in _GONE:
        raise UnsupportedModelError(f"{where}: {_GONE[kind]}")
    kind, config = _layer(kind, _settings(config, path), where)
    custom = entry.get("registered_name") or (kind if ">" in kind else None)
    module = entry.get("module") if custom else "keras.layers"
    return {**_node(entry), "class_name": kind, "module": module, "registered_name": custom, "config": config}


def _node(entry: dict[str, Any]) -> dict[str, Any]:
    """Name and connections that a functional model keeps beside a layer."""
    return {key: entry[key] for key in ("name", "inbound_nodes", "build_config") if key in entry}


def _model(config: Any, path: str) -> dict[str, Any]:
    # Until Keras 2.2.3 the configuration of a Sequential was its list of layers.
    config = {"name": "sequential", "layers": config} if isinstance(config, list) else dict(config)
    entries = config["layers"]
    config["layers"] = [_object(entry, path) for entry in entries]
    _renumber_calls(config)
    first = entries[0]["config"] if entries else {}
    is_sequential = "input_layers" not in config
    if (
        is_sequential
        and isinstance(first, dict)
        and "batch_input_shape" in first
        and entries[0]["class_name"] != "InputLayer"
    ):
        shape = {"batch_shape": first["batch_input_shape"], "dtype": "float32", "name": "input_layer"}
        inputs = {"class_name": "InputLayer", "module": "keras.layers", "registered_name": None, "config": shape}
        config["layers"].insert(0, inputs)
    config.pop("build_input_shape", None)
    return config


def _renumber_calls(config: dict[str, Any]) -> None:
    """Count the calls of nested Sequentials from 0, in place.

    Keras 2 counts a nested model's own input as its first call. Keras 3 knows, but for Sequentials it has forgotten.
    """
    layers = config["layers"]
    calls = {layer["name"]: len(layer["inbound_nodes"]) for layer in layers if "inbound_nodes" in layer}
    references = [*_references(config.get("output_layers", []))]
    for layer in layers:
        references.extend(_references(layer.get("inbound_nodes", [])))
    for layer in layers:
        if layer["class_name"] == "Sequential" and "name" in layer:
            own = [reference for reference in references if reference[0] == layer["name"]]
            if any(reference[1] >= calls[layer["name"]] for reference in own):
                for reference in own:
                    reference[1] -= 1


def _references(value: Any) -> Iterator[list[Any]]:
    """References [layer, call, output, …] in nested lists."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value
        else:
            for item in value:
                yield from _references(item)


def _settings(config: dict[str, Any], path: str) -> dict[str, Any]:
    """A layer's settings; objects within them (cells, wrapped layers, activations) rewritten too."""

    def value_of(key: str, value: Any) -> Any:
        if key == "dtype" and isinstance(value, dict):
            return value["config"]["name"]
        if "activation" in key and value == "hard_sigmoid":
            return _HARD_SIGMOID
        if isinstance(value, dict) and value.get("class_name") == "function":
            return value_of(key, value["config"])
        if isinstance(value, dict) and "class_name" in value and "config" in value:
            return _object(value, path)
        if isinstance(value, list):
            return [value_of("", item) for item in value]
        return value

    return {key: value_of(key, value) for key, value in config.items() if not key.endswith(_TRAINING_ONLY)}


def _layer(kind: str, config: dict[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    if config.pop("time_major", False):
        raise UnsupportedModelError(
            f"{where}: takes the time before the batch (time_major=True), which Keras 3 has no more; build the model "
            "without it and copy the weights, which stay the same"
        )
    shape = config.pop("batch_input_shape", None)
    if kind in ("CuDNNLSTM", "CuDNNGRU"):  # Their weights are rewritten by `old_weights`.
        kind = kind.removeprefix("CuDNN")
        config |= {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
        if kind == "GRU":
            config["reset_after"] = True
    if kind == "InputLayer":
        config = {"batch_shape": shape, "dtype": config.get("dtype"), "name": config.get("name")}
    elif kind in ("GRU", "GRUCell"):
        config.setdefault("reset_after", False)  # The only way there was before Keras 2.2.
    elif kind == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    elif kind == "ThresholdedReLU":
        kind, config["threshold"] = "ReLU", config.pop("theta")
    elif kind == "BatchNormalization":
        for key in ("fused", "virtual_batch_size", "renorm", "renorm_clipping", "renorm_momentum"):
            config.pop(key, None)
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    elif isinstance(axis, list) and kind != "LayerNormalization":
        raise UnsupportedModelError(f"{where}: works along several axes {axis}; use axis=-1")
    return kind, config
