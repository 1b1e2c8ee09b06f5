"""Layers of Keras as layers of a network: one function for each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ...runtime import network as net
from .call import Call
from .chain import chain_of
from .functions import function_of, function_of_layer
from .refusals import refusal

LayerReader = Callable[[Call], "list[net.Layer]"]


def read_call(call: Call) -> list[net.Layer]:
    """The layers of a network that a layer of Keras becomes.

    Raises:
        UnsupportedModelError: no state can be carried through it exactly.
    """
    import keras

    reader = _READERS.get(call.kind)
    # A user's subclass of LSTM may compute anything, whatever its name.
    if reader is None or type(call.layer) is not getattr(keras.layers, call.kind, None):
        raise refusal(call)
    mode = getattr(call.layer, "quantization_mode", None)
    if mode is not None:
        raise call.refused(f"is quantised by Keras ({mode})", "pass the float model and let EdgeLSTM quantise it")
    return reader(call)


_READERS: dict[str, LayerReader] = {}


def _reads(*kinds: str) -> Callable[[LayerReader], LayerReader]:
    """Register the reader of the classes of `keras.layers` with these names."""

    def register(reader: LayerReader) -> LayerReader:
        _READERS.update(dict.fromkeys(kinds, reader))
        return reader

    return register


INERT = (
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
)


@_reads(*INERT)
def _inert(call: Call) -> list[net.Layer]:
    """Layers that do nothing outside of training."""
    return []


@_reads("Flatten", "Reshape", "Permute")
def _shaping(call: Call) -> list[net.Layer]:
    """Layers that leave every timestep as it is, or the only one."""
    given, made = call.input_shape[1:], call.output_shape[1:]
    same = given == made and given.count(None) <= 1
    if call.kind == "Permute":
        same = tuple(call.layer.dims) == tuple(range(1, len(given) + 1))
    if not same and not call.is_only_timestep:
        raise refusal(call)
    return []


@_reads("AveragePooling1D", "MaxPooling1D", "UpSampling1D", "ZeroPadding1D", "Cropping1D")
def _of_one_timestep(call: Call) -> list[net.Layer]:
    """Layers that work on several timesteps, and do nothing where that is one."""
    layer = call.layer
    if call.kind in ("AveragePooling1D", "MaxPooling1D"):
        nothing = layer.pool_size == (1,) and layer.strides == (1,)
    elif call.kind == "UpSampling1D":
        nothing = layer.size == 1
    else:
        nothing = tuple(layer.padding if call.kind == "ZeroPadding1D" else layer.cropping) == (0, 0)
    if not nothing or getattr(layer, "data_format", "channels_last") != "channels_last":
        raise refusal(call)
    return []


@_reads("Conv1D")
def _convolution(call: Call) -> list[net.Layer]:
    """A convolution over one timestep is a Dense layer."""
    layer = call.layer
    if (layer.kernel_size, layer.strides, layer.groups) != ((1,), (1,), 1) or layer.data_format != "channels_last":
        raise refusal(call)
    where = f'layer "{call.path}" (Conv1D)'
    bias = _bias(call, layer, layer.filters)
    return [net.Dense(layer.name, _weights(call, layer.kernel)[0], bias, function_of(layer.activation, where))]


@_reads("LSTM", "GRU", "SimpleRNN", "RNN")
def _recurrent(call: Call) -> list[net.Layer]:
    layer = call.layer
    if layer.go_backwards:
        raise call.not_carried(
            "reads the sequence from its end (go_backwards=True), which a stream has not reached yet",
            "train it with go_backwards=False",
        )
    cells = _cells(layer.cell)
    names = [layer.name] if len(cells) == 1 else [f"{layer.name}_{i}" for i in range(len(cells))]
    return [_cell(cell, name, call) for cell, name in zip(cells, names, strict=True)]


def _cells(cell: Any) -> list[Any]:
    import keras

    if type(cell) is keras.layers.StackedRNNCells:
        return [inner for part in cell.cells for inner in _cells(part)]
    return [cell]


def _cell(cell: Any, name: str, call: Call) -> net.Recurrent:
    import keras

    where = f'layer "{call.path}" ({call.kind})'
    if type(cell) is keras.layers.LSTMCell:
        return net.LSTM(
            name,
            _weights(call, cell.kernel),
            _weights(call, cell.recurrent_kernel),
            _bias(call, cell, 4 * cell.units),
            function_of(cell.activation, where),
            function_of(cell.recurrent_activation, where),
        )
    if type(cell) is keras.layers.GRUCell:
        bias = _bias(call, cell, 3 * cell.units)
        both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
        return net.GRU(
            name,
            _weights(call, cell.kernel),
            _weights(call, cell.recurrent_kernel),
            both[0],
            both[1],
            function_of(cell.activation, where),
            function_of(cell.recurrent_activation, where),
            bool(cell.reset_after),
        )
    if type(cell) is keras.layers.SimpleRNNCell:
        return net.SimpleRNN(
            name,
            _weights(call, cell.kernel),
            _weights(call, cell.recurrent_kernel),
            _bias(call, cell, cell.units),
            function_of(cell.activation, where),
        )
    raise call.not_carried(
        f"its cell {type(cell).__name__} is not one of Keras's own", "use LSTMCell, GRUCell or SimpleRNNCell"
    )


@_reads("Dense")
def _dense(call: Call) -> list[net.Layer]:
    layer = call.layer
    bias = _bias(call, layer, layer.units)
    where = f'layer "{call.path}" (Dense)'
    return [net.Dense(layer.name, _weights(call, layer.kernel), bias, function_of(layer.activation, where))]


@_reads("TimeDistributed")
def _time_distributed(call: Call) -> list[net.Layer]:
    import keras

    inner = call.layer.layer
    path = f"{call.path}/{inner.name}"
    if isinstance(inner, keras.Model):
        calls = chain_of(inner, f"{path}/")
    else:
        # The wrapper calls the layer with the shape of a single timestep.
        step, result = (shape[:1] + shape[2:] for shape in (call.input_shape, call.output_shape))
        calls = (Call(inner, path, step, result),)
    layers = [layer for part in calls for layer in read_call(part)]
    if any(isinstance(layer, (net.LSTM, net.GRU, net.SimpleRNN, net.Masking)) for layer in layers):
        raise call.not_carried("wraps a layer that works on sequences", "wrap per-step layers alone")
    return [replace(layer, name=call.layer.name) for layer in layers]


@_reads("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax")
def _activation(call: Call) -> list[net.Layer]:
    where = f'layer "{call.path}" ({call.kind})'
    return [net.Activation(call.layer.name, function_of_layer(call.layer, where, len(call.input_shape)))]


@_reads("PReLU")
def _prelu(call: Call) -> list[net.Layer]:
    slope = _weights(call, call.layer.alpha)
    features = call.input_shape[-1] or 1
    if slope.size not in (1, features) or slope.shape[-1] != slope.size:
        raise call.not_carried(
            f"has a slope of its own for every timestep (its slopes have the shape {slope.shape})",
            "train it with PReLU(shared_axes=[1])",
        )
    return [net.PReLU(call.layer.name, _spread(slope, features))]


@_reads("BatchNormalization")
def _batch_normalization(call: Call) -> list[net.Layer]:
    layer = call.layer
    _check_feature_axis(call, layer.axis)
    mean, variance = _double(call, layer.moving_mean), _double(call, layer.moving_variance)
    scale = (_double(call, layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    offset = _double(call, layer.beta) if layer.center else 0.0
    return [_affine(call, mean, scale, offset)]


@_reads("LayerNormalization")
def _layer_normalization(call: Call) -> list[net.Layer]:
    layer = call.layer
    _check_feature_axis(call, layer.axis)
    if layer.rms_scaling:
        raise call.not_carried("rms_scaling=True is deprecated and not exported", "train without it")
    features = call.input_shape[-1] or 1
    gamma = _weights(call, layer.gamma) if layer.gamma is not None else np.ones(features, np.float32)
    beta = _weights(call, layer.beta) if layer.beta is not None else np.zeros(features, np.float32)
    return [net.LayerNormalization(layer.name, gamma, beta, float(layer.epsilon))]


@_reads("Normalization")
def _normalization(call: Call) -> list[net.Layer]:
    import keras

    layer = call.layer
    # layer.mean and layer.variance are rounded to the dtype that the layer computes in.
    adapted = layer.input_mean is None
    if layer.axis not in (None, ()):
        _check_feature_axis(call, layer.axis)
    mean = _per_feature(call, layer.adapt_mean if adapted else layer.input_mean)
    variance = _per_feature(call, layer.adapt_variance if adapted else layer.input_variance)
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return [_affine(call, 0.0, deviation, mean)]
    return [_affine(call, mean, 1 / deviation, 0.0)]


@_reads("Rescaling")
def _rescaling(call: Call) -> list[net.Layer]:
    return [_affine(call, 0.0, _per_feature(call, call.layer.scale), _per_feature(call, call.layer.offset))]


@_reads("Masking")
def _masking(call: Call) -> list[net.Layer]:
    value = float(call.layer.mask_value)
    if not np.isfinite(np.float32(value)):
        raise call.not_carried(
            f"its mask_value {value} never equals a finite input, so it masks nothing",
            "use a finite mask_value, or remove the layer",
        )
    return [net.Masking(call.layer.name, value)]


def _affine(call: Call, center: Any, scale: Any, offset: Any) -> net.Affine:
    features = call.input_shape[-1] or 1
    values = (_finite(call, _spread(np.asarray(value), features)) for value in (center, scale, offset))
    return net.Affine(call.layer.name, *values)


def _check_feature_axis(call: Call, axis: Any) -> None:
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    rank = len(call.input_shape)
    if [a % rank for a in axes] != [rank - 1]:
        raise call.not_carried(
            f"normalises along axis {axis}, and a single timestep has only its features (axis -1)", "use axis=-1"
        )


def _per_feature(call: Call, value: Any) -> np.ndarray:
    """A value that Keras broadcasts over an input, as (features,) or a single number."""
    array = _double(call, value)
    features = call.input_shape[-1] or 1
    if array.size not in (1, features) or (array.ndim and array.shape[-1] != array.size):
        raise call.not_carried(
            f"has a value of its own for every timestep (shape {array.shape})", "use one per feature (axis=-1)"
        )
    return array.reshape(-1)


def _spread(array: np.ndarray, features: int) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (features,)))


def _bias(call: Call, owner: Any, width: int) -> np.ndarray:
    return np.zeros(width, np.float32) if owner.bias is None else _weights(call, owner.bias)


def _weights(call: Call, variable: Any) -> np.ndarray:
    return _finite(call, _double(call, variable))


def _double(call: Call, variable: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _finite(call: Call, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        weights = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(weights).all():
        raise call.refused(
            "has weights that are not finite (NaN or infinity): its training diverged",
            "train again with a smaller learning rate or clipnorm, or load an earlier checkpoint",
        )
    return weights
