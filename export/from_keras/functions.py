"""Keras's activation functions as `Function`s."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ...runtime.activations import UNLIMITED, Function
from .call import NotCarriedError

ROWWISE = ("softmax", "log_softmax")
"""Functions of all units of a timestep together; the others work element by element."""

_TENSORFLOW = (
    "relu",
    "relu6",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "tanh",
    "sigmoid",
    "silu",
    "softmax",
    "log_softmax",
)

_REFUSED = {
    "glu": "halves the number of features",
    "sparsemax": "sorts its inputs",
}


def keras2_hard_sigmoid(x: Any) -> Any:
    """Keras 2's `hard_sigmoid`, which Keras 3 has no more: clip(0.2 · x + 0.5, 0, 1)."""
    import keras

    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def keras2_functions() -> AbstractContextManager[Any]:
    """A scope in which Keras finds the functions of Keras 2 by the names that models of Keras 2 are given."""
    import keras

    return keras.saving.custom_object_scope({keras2_hard_sigmoid.__name__: keras2_hard_sigmoid})


def operations() -> dict[str, type]:
    """Keras's operations outside of layers, which it does not find by their names in an `.h5` by itself."""
    import keras
    from keras.src.ops import core, nn, numpy

    return {
        name: kind
        for module in (core, nn, numpy)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, keras.Operation) and not hasattr(keras.layers, name)
    }


def function_of(activation: Any, where: str) -> Function:
    """The `Function` of a Keras activation.

    Args:
        activation: one of `keras.activations`, a `functools.partial` of one, the same function of `keras.ops` or
            `tf.nn`, or an activation layer without weights; None is linear.
        where: the layer, for the error.

    Raises:
        UnsupportedModelError: the function is not one of Keras's, or cannot be exported.
    """
    import keras

    if activation is None:
        return Function("linear")
    if activation is keras2_hard_sigmoid:
        return Function("hard_sigmoid_keras2")
    if isinstance(activation, keras.layers.Layer):
        return function_of_layer(activation, where)
    partial = activation if isinstance(activation, functools.partial) else functools.partial(activation)
    found = _lookup(partial.func)
    if found is None:
        shown = getattr(partial.func, "__name__", repr(partial.func))
        raise NotCarriedError(
            where,
            f'the activation "{shown}" is not one of keras.activations, so what it computes cannot be read',
            "replace it by one of those",
        )
    name, definition = found
    return _function(name, definition, partial, where)


def function_of_layer(layer: Any, where: str, rank: int = 0) -> Function:
    """The `Function` of an activation layer that has no weights.

    Args:
        layer: the layer.
        where: what to call it in an error.
        rank: of its input, where it is known, so that a feature axis counted from the front is understood.

    Raises:
        UnsupportedModelError: it is another layer, or set up in a way that no step is.
    """
    import keras

    kind = type(layer)
    if kind is keras.layers.Activation:
        return function_of(layer.activation, where)
    if kind is keras.layers.ReLU:
        return _relu(layer.negative_slope, layer.max_value, layer.threshold)
    if kind is keras.layers.LeakyReLU:
        return _relu(layer.negative_slope, None, 0)
    if kind is keras.layers.ELU:
        return Function("elu", (float(layer.alpha),))
    if kind is keras.layers.Softmax:
        if layer.axis != rank - 1:
            _check_axis("softmax", layer.axis, where)
        return Function("softmax")
    raise NotCarriedError(
        where, f"the layer {kind.__name__} is used as an activation function", "make it a layer of its own"
    )


def _lookup(activation: Any) -> tuple[str, Callable[..., Any]] | None:
    """Name in `_READERS` of a function, and the definition whose signature has its parameters and defaults."""
    import keras
    import tensorflow as tf

    for name in _READERS:
        for place in (keras.activations, keras.ops):  # keras.ops.gelu has another default than keras.activations.gelu
            if activation is getattr(place, name, None):
                return name, activation
    for name in _TENSORFLOW:
        if any(activation is getattr(place, name, None) for place in (tf.nn, tf.math)):
            return name, getattr(keras.activations, name)
    return ("exponential", keras.activations.exponential) if activation in (keras.ops.exp, tf.exp) else None


def _function(name: str, definition: Callable[..., Any], partial: functools.partial[Any], where: str) -> Function:
    if name in _REFUSED:
        raise NotCarriedError(
            where, f'the activation "{name}" {_REFUSED[name]}, which no step graph does', "use another activation"
        )
    bound = inspect.signature(definition).bind(None, *partial.args, **partial.keywords)
    bound.apply_defaults()
    parameters = dict(bound.arguments)
    parameters.pop("x")
    if name in ROWWISE:
        _check_axis(name, parameters.pop("axis"), where)
    return _READERS[name](**parameters)


def _check_axis(name: str, axis: Any, where: str) -> None:
    if axis not in (-1, [-1], (-1,)):
        raise NotCarriedError(
            where, f"{name} works along axis {axis}, and a single timestep has only its features", "use axis=-1"
        )


def _relu(negative_slope: float, max_value: float | None, threshold: float) -> Function:
    limit = UNLIMITED if max_value is None else float(max_value)
    return Function("relu", (float(negative_slope), limit, float(threshold)))


def _plain(name: str, *order: str) -> Callable[..., Function]:
    """Reader of a function whose parameters, in this order, are those of `Function`."""
    return lambda **parameters: Function(name, tuple(float(parameters[key]) for key in order))


_READERS: dict[str, Callable[..., Function]] = {
    "relu": _relu,
    "relu6": lambda: _relu(0, 6, 0),
    "leaky_relu": lambda negative_slope: _relu(negative_slope, None, 0),
    "elu": _plain("elu", "alpha"),
    "celu": _plain("celu", "alpha"),
    "gelu": _plain("gelu", "approximate"),
    "hard_shrink": _plain("hard_shrink", "threshold"),
    "soft_shrink": _plain("soft_shrink", "threshold"),
    "threshold": _plain("threshold", "threshold", "default_value"),
    "squareplus": _plain("squareplus", "b"),
    "silu": _plain("silu"),
    "hard_silu": _plain("hard_silu"),
    **{
        name: _plain(name)
        for name in (
            "linear",
            "sigmoid",
            "tanh",
            "selu",
            "softplus",
            "softsign",
            "exponential",
            "mish",
            "hard_sigmoid",
            "hard_tanh",
            "tanh_shrink",
            "log_sigmoid",
            "sparse_plus",
            "sparse_sigmoid",
            "softmax",
            "log_softmax",
        )
    },
    **{name: _plain("linear") for name in _REFUSED},
}
