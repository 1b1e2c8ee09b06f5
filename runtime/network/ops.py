"""The operators of which every layer is made. NumPy computes them, the exporters write them into files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..activations import FUNCTIONS, Function

if TYPE_CHECKING:
    from .layer import Layer
    from .pointwise import Masking

V = TypeVar("V")
Array = npt.NDArray[np.floating[Any]]


class Ops(ABC, Generic[V]):
    """An interpretation of the operators; V is what stands for a row of numbers in it.

    An operand that is a number stands for a row that holds nothing else.
    """

    def apply(self, layer: Layer, inputs: Sequence[V], states: Sequence[V]) -> tuple[V, Sequence[V]]:
        """One timestep of a layer: its output and next states. Here goes what has a faster form of whole layers."""
        return layer.lower(self, inputs, states)

    def act(self, function: Function, x: V) -> V:
        """An activation function. Here goes what has an operator of its own for one."""
        return FUNCTIONS[function.name](self, x, *function.parameters)

    @abstractmethod
    def product(self, parts: Sequence[tuple[V, Array]], bias: Array) -> V:
        """Σ xᵢ · Wᵢ + bias, of rows xᵢ and matrices Wᵢ (width of xᵢ, columns).

        No other operator has many weights, so a precision is nothing but a way to compute this one. The n-th
        product of a layer is the n-th in every interpretation.
        """

    @abstractmethod
    def vector(self, what: str, values: Array) -> V:
        """A row of a layer's weights, which multiplies or is added element by element; `what` names it in files."""

    @abstractmethod
    def unary(self, kind: str, x: V) -> V:
        """An elementary function: neg, abs, exp, log, sqrt, tanh, sigmoid, erf, elu (with alpha 1).

        And of whole rows: softmax, log_softmax.
        """

    @abstractmethod
    def binary(self, kind: str, a: V | float, b: V | float) -> V:
        """Element by element: add, sub, mul, div, minimum, maximum."""

    @abstractmethod
    def above(self, x: V, threshold: float, then: V, otherwise: V | float) -> V:
        """Element by element: `then` where x exceeds the threshold, else `otherwise`."""

    @abstractmethod
    def split(self, x: V, parts: int) -> Sequence[V]:
        """A row in parts of the same width."""

    @abstractmethod
    def concat(self, rows: Sequence[V]) -> V:
        """Rows beside each other."""

    @abstractmethod
    def mean(self, x: V) -> V:
        """The mean of a row, of width 1."""

    @abstractmethod
    def masked(self, layer: Masking, x: V) -> tuple[V, V]:
        """A gate that `hold` takes, shut where all of x equals the mask value; and x, whatever it is there."""

    @abstractmethod
    def hold(self, gate: V, old: V, new: V) -> V:
        """The new row, or the old one where the gate is shut."""

    def add(self, a: V | float, b: V | float) -> V:
        """a + b."""
        return self.binary("add", a, b)

    def sub(self, a: V | float, b: V | float) -> V:
        """a - b."""
        return self.binary("sub", a, b)

    def mul(self, a: V | float, b: V | float) -> V:
        """a · b."""
        return self.binary("mul", a, b)

    def div(self, a: V | float, b: V | float) -> V:
        """a / b."""
        return self.binary("div", a, b)

    def minimum(self, a: V | float, b: V | float) -> V:
        """The lesser of both."""
        return self.binary("minimum", a, b)

    def maximum(self, a: V | float, b: V | float) -> V:
        """The greater of both."""
        return self.binary("maximum", a, b)

    def clip(self, x: V, least: float, most: float) -> V:
        """x, not below `least` and not above `most`."""
        return self.minimum(self.maximum(x, least), most)
