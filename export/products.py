"""The matrix products of layers: the only places where weights are many, and so where a precision lives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.activations import Function
from ..runtime.network import GRU, LSTM, Dense, FloatArray, Layer, SimpleRNN, State

Weighted: TypeAlias = Dense | LSTM | GRU | SimpleRNN
# A matrix of fewer weights is not rounded to integers, as TFLite's own converter leaves it: there is nothing to gain in
# size or speed, and precision to lose.
LEAST_WEIGHTS = 1024


@dataclass(frozen=True, eq=False)
class Product:
    """One matrix product of a layer: some of its inputs with some columns of its kernels.

    Attributes:
        layer: the layer.
        inputs: which of `product_inputs`: `x`, the layer's own; `h`, its last output; `rh`, that behind a reset gate.
        columns: of the kernels, `units` for each gate.
        functions: the activation functions that its sums with their bias go into, where they go nowhere else.
    """

    layer: Weighted
    inputs: tuple[str, ...]
    columns: slice
    functions: tuple[Function, ...] = ()

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        """What tells it from every other product of the network."""
        return self.layer.name, self.inputs, self.columns.start

    @property
    def parts(self) -> tuple[npt.NDArray[np.float32], ...]:
        """For each input its weights, (width of the input, columns)."""
        return tuple(getattr(self.layer, _kernel(name))[:, self.columns] for name in self.inputs)

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """Those of all inputs, one below the other: (inputs, columns)."""
        return np.concatenate(self.parts)

    def __str__(self) -> str:
        kernels = dict.fromkeys(_kernel(name).replace("_", " ") for name in self.inputs)
        what = " and ".join(kernels)
        if isinstance(self.layer, GRU):
            what += " of the candidate" if self.columns.start else " of both gates"
        return f"{what} of layer {self.layer.name!r}"

    def only(self, *inputs: str) -> Product:
        """The part of it that these inputs have."""
        return replace(self, inputs=tuple(name for name in self.inputs if name in inputs))

    def of(self, layer: Weighted) -> Product:
        """The same product of a layer of the same shape."""
        return replace(self, layer=layer)

    def with_weights(self, weights: npt.NDArray[np.floating]) -> Weighted:
        """The layer with these in their place, (inputs, columns)."""
        changed: dict[str, npt.NDArray[np.float32]] = {}
        at = 0
        for name, part in zip(self.inputs, self.parts, strict=True):
            kernel = np.array(getattr(self.layer, _kernel(name)))
            kernel[:, self.columns] = weights[at : at + len(part)]
            changed[_kernel(name)] = kernel
            at += len(part)
        return replace(self.layer, **changed)


def products(layer: Layer) -> tuple[Product, ...]:
    """The products of a layer, in the order in which a step computes them; none where it has no matrix."""
    if isinstance(layer, Dense):
        return (Product(layer, ("x",), slice(0, layer.kernel.shape[1]), (layer.activation,)),)
    if isinstance(layer, SimpleRNN):
        return (Product(layer, ("x", "h"), slice(0, layer.units), (layer.activation,)),)
    if isinstance(layer, LSTM):
        functions = (layer.recurrent_activation, layer.activation)
        return (Product(layer, ("x", "h"), slice(0, 4 * layer.units), functions),)
    if isinstance(layer, GRU):
        split = 2 * layer.units
        gates = Product(layer, ("x", "h"), slice(0, split), (layer.recurrent_activation,))
        candidate = Product(layer, ("x", "rh"), slice(split, 3 * layer.units), (layer.activation,))
        if layer.reset_after:  # The sums of h pass the gate before they meet those of x.
            candidate = replace(candidate, functions=())
            return gates, replace(candidate, inputs=("x",)), replace(candidate, inputs=("h",))
        return gates, candidate
    return ()


def is_integer(product: Product) -> bool:
    """Whether TFLite's integer precisions and `dynamic` round its weights."""
    return sum(part.size for part in product.parts) >= LEAST_WEIGHTS


def is_large(layer: Layer) -> bool:
    """Whether a layer has enough weights to be worth rounding to integers."""
    if isinstance(layer, Dense):
        return layer.kernel.size >= LEAST_WEIGHTS
    if isinstance(layer, (LSTM, GRU, SimpleRNN)):
        return layer.kernel.size + layer.recurrent_kernel.size >= LEAST_WEIGHTS
    return False


def product_inputs(layer: Weighted, x: FloatArray, state: State) -> dict[str, FloatArray]:
    """What the products of a layer multiply at a timestep: x (..., inputs) and the last state (..., units)."""
    if isinstance(layer, Dense):
        return {"x": x}
    h = state[0]
    if isinstance(layer, GRU) and not layer.reset_after:
        gate = slice(layer.units, 2 * layer.units)
        bias = layer.bias[gate] + layer.recurrent_bias[gate]
        r = layer.recurrent_activation(x @ layer.kernel[:, gate] + h @ layer.recurrent_kernel[:, gate] + bias)
        return {"x": x, "h": h, "rh": r * h}
    return {"x": x, "h": h}


def answers(layer: Weighted, xs: FloatArray) -> FloatArray:
    """A layer's output over sequences from zero state: (T, batch, inputs) → (T, batch, units)."""
    if isinstance(layer, Dense):
        return layer.apply(xs)
    state: State = tuple(np.zeros((xs.shape[1], layer.units), xs.dtype) for _ in layer.state_names)
    ys = np.empty((*xs.shape[:2], layer.units), xs.dtype)
    for t, x in enumerate(xs):
        state = layer.step(state, x)
        ys[t] = state[0]
    return ys


def _kernel(of: str) -> str:
    return "kernel" if of == "x" else "recurrent_kernel"
