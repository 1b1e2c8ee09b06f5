"""The matrix products of layers: the only places where weights are many, and so where a precision lives.

They are found by following a layer's `lower` once, so no kind of layer has to be known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.activations import Function
from ..runtime.network import ARRAYS, Layer, Masking, Ops, layer_fields

Positions = npt.NDArray[np.int64]
# A matrix of fewer weights is not rounded to integers, as TFLite's own converter leaves it: there is nothing to gain in
# size or speed, and precision to lose.
LEAST_WEIGHTS = 1024


@dataclass(frozen=True, eq=False)
class Product:
    """One matrix product of a layer, or some of its inputs.

    Attributes:
        layer: the layer.
        number: which of the layer's products.
        positions: for each input where its weights lie in the layer's arrays, one array behind the other: (width of
            the input, columns).
        of_state: for each input whether the layer's own states are in it.
        rows: which of all inputs' values side by side these are.
        functions: the activation functions that its sums with their bias go into, where they go nowhere else.
    """

    layer: Layer
    number: int
    positions: tuple[Positions, ...]
    of_state: tuple[bool, ...]
    rows: Positions
    functions: tuple[Function, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other product of the network."""
        return self.layer.name, self.number

    @property
    def parts(self) -> tuple[npt.NDArray[np.float32], ...]:
        """For each input its weights, (width of the input, columns)."""
        values = np.concatenate([array.ravel() for _, array in _arrays(self.layer)])
        return tuple(values[positions] for positions in self.positions)

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """Those of all inputs, one below the other: (inputs, columns)."""
        return np.concatenate(self.parts)

    def __str__(self) -> str:
        """Such as `columns 1 to 48 of kernel and recurrent kernel of layer 'gru'`."""
        names: list[str] = []
        columns = ""
        start, where = 0, np.concatenate([positions.ravel() for positions in self.positions])
        for name, array in _arrays(self.layer):
            here = where[(where >= start) & (where < start + array.size)] - start
            if len(here):
                names.append(name.replace("_", " "))
                within = here % array.shape[-1]
                if len(np.unique(within)) < array.shape[-1]:
                    columns = f"columns {within.min() + 1} to {within.max() + 1} of "
            start += array.size
        return f"{columns}{' and '.join(names)} of layer {self.layer.name!r}"

    def only(self, chosen: Sequence[bool]) -> Product:
        """The part of it that these inputs have."""
        ends = np.cumsum([len(positions) for positions in self.positions])[:-1]
        rows = [rows for rows, keep in zip(np.split(self.rows, ends), chosen, strict=True) if keep]
        kept = [(p, s) for p, s, keep in zip(self.positions, self.of_state, chosen, strict=True) if keep]
        positions, of_state = tuple(p for p, _ in kept), tuple(s for _, s in kept)
        return replace(self, positions=positions, of_state=of_state, rows=np.concatenate([self.rows[:0], *rows]))

    def of(self, layer: Layer) -> Product:
        """The same product of a layer of the same shape."""
        return replace(self, layer=layer)

    def with_weights(self, weights: npt.NDArray[np.floating]) -> Layer:
        """The layer with these in their place, (inputs, columns)."""
        where, start = np.concatenate(self.positions), 0
        changed: dict[str, Any] = {}
        for name, array in _arrays(self.layer):
            here = (where >= start) & (where < start + array.size)
            if here.any():
                changed[name] = np.array(array)
                changed[name].ravel()[where[here] - start] = weights[here]
            start += array.size
        return replace(self.layer, **changed)


def products(layer: Layer) -> tuple[Product, ...]:
    """The products of a layer, in the order in which a step computes them; none where it has no matrix."""
    numbered: dict[str, Any] = {}
    start = 0
    for name, array in _arrays(layer):
        numbered[name] = np.arange(start, start + array.size).reshape(array.shape)
        start += array.size
    follower = _Follower()
    y, following = replace(layer, **numbered).lower(follower, (_Wire(),), [_Wire(True) for _ in layer.states])
    follower.leave(y, *following)
    return tuple(
        Product(layer, number, positions, of_state, np.arange(sum(map(len, positions))), follower.functions(number))
        for number, (positions, of_state) in enumerate(follower.found)
    )


def answers(layer: Layer, xs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A layer's output over sequences from zero state: (T, batch, inputs) → (T, batch, width)."""
    states = [np.zeros((xs.shape[1], spec.units), xs.dtype) for spec in layer.states]
    if not states:
        return layer.lower(ARRAYS, (xs,), ())[0]
    ys = np.empty((*xs.shape[:2], layer.width(xs.shape[2])), xs.dtype)
    for t, x in enumerate(xs):
        ys[t], states = layer.lower(ARRAYS, (x,), states)
    return ys


def is_integer(product: Product) -> bool:
    """Whether TFLite's integer precisions and `dynamic` round its weights."""
    return size_of(product) >= LEAST_WEIGHTS


def is_large(layer: Layer) -> bool:
    """Whether a layer has enough weights to be worth rounding to integers."""
    return sum(map(size_of, products(layer))) >= LEAST_WEIGHTS


def size_of(product: Product) -> int:
    """Number of its weights."""
    return sum(positions.size for positions in product.positions)


def _arrays(layer: Layer) -> list[tuple[str, npt.NDArray[Any]]]:
    return [(name, value) for name, value in layer_fields(layer) if isinstance(value, np.ndarray)]


@dataclass(frozen=True)
class _Wire:
    """What is known of a row: whether a state is in it, and the product whose sums it is."""

    of_state: bool = False
    sums: int | None = None


class _Follower(Ops[_Wire]):
    """Follows a layer whose weights are their own positions, and finds its products."""

    def __init__(self) -> None:
        self.found: list[tuple[tuple[Positions, ...], tuple[bool, ...]]] = []
        self._functions: dict[int, list[Function]] = {}
        self._left: set[int] = set()

    def functions(self, number: int) -> tuple[Function, ...]:
        """Those that a product's sums go into; none where they go elsewhere as well."""
        return () if number in self._left else tuple(dict.fromkeys(self._functions.get(number, ())))

    def leave(self, *rows: _Wire | float) -> _Wire:
        """What is made of some rows otherwise than by functions or products."""
        wires = [row for row in rows if isinstance(row, _Wire)]
        self._left |= {wire.sums for wire in wires if wire.sums is not None}
        return _Wire(any(wire.of_state for wire in wires))

    def product(self, parts: Sequence[tuple[_Wire, npt.NDArray[Any]]], bias: npt.NDArray[Any]) -> _Wire:
        of_state = tuple(self.leave(x).of_state for x, _ in parts)
        self.found.append((tuple(positions for _, positions in parts), of_state))
        return _Wire(any(of_state), len(self.found) - 1)

    def act(self, function: Function, x: _Wire) -> _Wire:
        if x.sums is not None:
            self._functions.setdefault(x.sums, []).append(function)
        return _Wire(x.of_state)

    def split(self, x: _Wire, parts: int) -> Sequence[_Wire]:
        return [x] * parts

    def vector(self, what: str, values: npt.NDArray[Any]) -> _Wire:
        return _Wire()

    def unary(self, kind: str, x: _Wire) -> _Wire:
        return self.leave(x)

    def binary(self, kind: str, a: _Wire | float, b: _Wire | float) -> _Wire:
        return self.leave(a, b)

    def above(self, x: _Wire, threshold: float, then: _Wire, otherwise: _Wire | float) -> _Wire:
        return self.leave(x, then, otherwise)

    def concat(self, rows: Sequence[_Wire]) -> _Wire:
        return self.leave(*rows)

    def mean(self, x: _Wire) -> _Wire:
        return self.leave(x)

    def masked(self, layer: Masking, x: _Wire) -> tuple[_Wire, _Wire]:
        return self.leave(x), self.leave(x)

    def hold(self, gate: _Wire, old: _Wire, new: _Wire) -> _Wire:
        return self.leave(gate, old, new)
