"""The network: a framework-neutral description of a model, and the readable definition of what it computes.

A `Network` is an ordered tuple of frozen layers with float32 NumPy weights. Every export starts from it,
the `numpy` backend runs it, and `Network.step` is the reference of what one timestep means.

The recurrences are those of Keras: gate order i f c o for LSTM, z r h for GRU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .activations import LINEAR, SIGMOID, TANH, FloatArray, Function
from .errors import InputError

State: TypeAlias = tuple[FloatArray, ...]
Weights: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LSTM:
    """Long short-term memory. Kernels (inputs, 4·units) and (units, 4·units), bias (4·units,)."""

    name: str
    kernel: Weights
    recurrent_kernel: Weights
    bias: Weights
    activation: Function = TANH
    recurrent_activation: Function = SIGMOID

    @property
    def units(self) -> int:
        """Width of the output and of each state."""
        return self.recurrent_kernel.shape[0]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states, in the order of `step`."""
        return ("h", "c")

    def step(self, state: State, x: FloatArray) -> State:
        """Next (h, c) from the last and the input (..., inputs)."""
        h, c = state
        i, f, g, o = np.split(x @ self.kernel + h @ self.recurrent_kernel + self.bias, 4, axis=-1)
        i, f, o = (self.recurrent_activation(gate) for gate in (i, f, o))
        c = f * c + i * self.activation(g)
        return o * self.activation(c), c


@dataclass(frozen=True, eq=False)
class GRU:
    """Gated recurrent unit. Kernels (inputs, 3·units) and (units, 3·units), two biases (3·units,).

    With `reset_after` the reset gate is applied after the recurrent product (Keras's default), else to h
    before it; `recurrent_bias` is zero then.
    """

    name: str
    kernel: Weights
    recurrent_kernel: Weights
    bias: Weights
    recurrent_bias: Weights
    activation: Function = TANH
    recurrent_activation: Function = SIGMOID
    reset_after: bool = True

    @property
    def units(self) -> int:
        """Width of the output and of the state."""
        return self.recurrent_kernel.shape[0]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states, in the order of `step`."""
        return ("h",)

    def step(self, state: State, x: FloatArray) -> State:
        """Next (h,) from the last and the input (..., inputs)."""
        (h,) = state
        split = 2 * self.units
        xz, xr, xh = np.split(x @ self.kernel + self.bias, 3, axis=-1)
        gates = h @ self.recurrent_kernel[:, :split] + self.recurrent_bias[:split]
        z = self.recurrent_activation(xz + gates[..., : self.units])
        r = self.recurrent_activation(xr + gates[..., self.units :])
        if self.reset_after:
            candidate = r * (h @ self.recurrent_kernel[:, split:] + self.recurrent_bias[split:])
        else:
            candidate = (r * h) @ self.recurrent_kernel[:, split:] + self.recurrent_bias[split:]
        return (z * h + (1 - z) * self.activation(xh + candidate),)


@dataclass(frozen=True, eq=False)
class SimpleRNN:
    """Fully connected recurrence. Kernels (inputs, units) and (units, units), bias (units,)."""

    name: str
    kernel: Weights
    recurrent_kernel: Weights
    bias: Weights
    activation: Function = TANH

    @property
    def units(self) -> int:
        """Width of the output and of the state."""
        return self.recurrent_kernel.shape[0]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states, in the order of `step`."""
        return ("h",)

    def step(self, state: State, x: FloatArray) -> State:
        """Next (h,) from the last and the input (..., inputs)."""
        return (self.activation(x @ self.kernel + state[0] @ self.recurrent_kernel + self.bias),)


@dataclass(frozen=True, eq=False)
class Dense:
    """activation(x · kernel + bias), kernel (inputs, units), bias (units,)."""

    name: str
    kernel: Weights
    bias: Weights
    activation: Function = LINEAR

    def apply(self, x: FloatArray) -> FloatArray:
        """(..., inputs) → (..., units)."""
        return self.activation(x @ self.kernel + self.bias)


@dataclass(frozen=True, eq=False)
class Affine:
    """(x - center) · scale + offset, each (features,): BatchNormalization, Normalization, Rescaling.

    `center` stands apart from `offset` because features far from zero would lose their precision in one sum.
    """

    name: str
    center: Weights
    scale: Weights
    offset: Weights

    def apply(self, x: FloatArray) -> FloatArray:
        """(..., features) → the same shape."""
        return (x - self.center) * self.scale + self.offset


@dataclass(frozen=True, eq=False)
class LayerNormalization:
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta over the last axis; gamma and beta (features,)."""

    name: str
    gamma: Weights
    beta: Weights
    epsilon: float

    def apply(self, x: FloatArray) -> FloatArray:
        """(..., features) → the same shape."""
        centered = x - x.mean(-1, keepdims=True)
        variance = np.square(centered).mean(-1, keepdims=True)
        return (centered / np.sqrt(variance + x.dtype.type(self.epsilon))) * self.gamma + self.beta


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation function as a layer of its own."""

    name: str
    function: Function

    def apply(self, x: FloatArray) -> FloatArray:
        """(..., features) → the same shape."""
        return self.function(x)


@dataclass(frozen=True, eq=False)
class PReLU:
    """x above zero, slope · x below, with one trained slope per feature (features,)."""

    name: str
    slope: Weights

    def apply(self, x: FloatArray) -> FloatArray:
        """(..., features) → the same shape."""
        return np.maximum(x, 0) + self.slope * np.minimum(x, 0)


@dataclass(frozen=True, eq=False)
class Masking:
    """A timestep whose features all equal `mask_value` leaves every state of the network as it was.

    Only ever the first layer: Keras would compute the mask from the raw input then, and so can a device.
    """

    name: str
    mask_value: float


Recurrent: TypeAlias = LSTM | GRU | SimpleRNN
Stateless: TypeAlias = Dense | Affine | LayerNormalization | Activation | PReLU
Layer: TypeAlias = Recurrent | Stateless | Masking

LAYER_KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (LSTM, GRU, SimpleRNN, Dense, Affine, LayerNormalization, Activation, PReLU, Masking)
}


def parameter_count(layer: Layer) -> int:
    """Number of weights of a layer, as it is exported."""
    return sum(value.size for _, value in layer_fields(layer) if isinstance(value, np.ndarray))


def layer_fields(layer: Layer) -> list[tuple[str, Any]]:
    """A layer's fields and values in the order of their definition, its name left out."""
    return [(f.name, getattr(layer, f.name)) for f in fields(layer) if f.name != "name"]


@dataclass(frozen=True, eq=False)
class StateSpec:
    """One state of a network: which layer keeps it, what it is called, and its width."""

    layer: str
    kind: str
    units: int

    @property
    def name(self) -> str:
        """The name it has in every exported graph, such as `lstm_1_h`."""
        return f"{self.layer}_{self.kind}"


class Reference(Protocol):
    """Keras itself, as what a network is to compute."""

    def __call__(self, xs: Weights) -> Weights:
        """(T, features) → (T, outputs): the model's output on every prefix of a sequence."""
        ...

    def windows(self, xs: Weights) -> Weights:
        """(N, T, features) → (N, outputs): the model's output on each sequence from zero state, the last if many."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """A chain of layers that computes one timestep after another.

    Attributes:
        name: what the model is called.
        layers: the layers in order.
        features: number of inputs of a timestep.
        return_sequences: whether the Keras model gives an output for every timestep of a sequence or only for
            the last. Streaming gives one for every timestep either way (the model's output on the prefix).
        reference: Keras itself, set by `read_keras`; what exports are proved against. Not part of a saved network.
        window: timesteps that the Keras model takes at a time, where its input has a fixed length and it keeps no
            state between calls. Not part of a saved network.
    """

    name: str
    layers: tuple[Layer, ...]
    features: int
    return_sequences: bool
    reference: Reference | None = field(default=None, repr=False)
    window: int | None = None

    @property
    def outputs(self) -> int:
        """Number of outputs of a timestep."""
        width = self.features
        for layer in self.layers:
            if isinstance(layer, (LSTM, GRU, SimpleRNN)):
                width = layer.units
            elif isinstance(layer, Dense):
                width = layer.kernel.shape[1]
        return width

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter_count(layer) for layer in self.layers)

    @property
    def recurrent_layers(self) -> tuple[Recurrent, ...]:
        """The layers that keep a state, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, (LSTM, GRU, SimpleRNN)))

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """The states in the order in which `step` takes and gives them."""
        return tuple(
            StateSpec(layer.name, kind, layer.units) for layer in self.recurrent_layers for kind in layer.state_names
        )

    @property
    def mask_value(self) -> float | None:
        """The value that marks a masked timestep, or None where the network has no input Masking."""
        first = self.layers[0] if self.layers else None
        return first.mask_value if isinstance(first, Masking) else None

    def zero_state(self, *batch: int, dtype: npt.DTypeLike = np.float32) -> State:
        """The state before the first timestep: zeros of shape (*batch, units)."""
        return tuple(np.zeros((*batch, spec.units), dtype) for spec in self.states)

    def step(
        self,
        state: State,
        x: FloatArray,
        observe: Callable[[Layer, FloatArray, State, State], None] | None = None,
    ) -> tuple[FloatArray, State]:
        """One timestep.

        Args:
            state: from `zero_state` or from the last step.
            x: (features,), or (batch, features) with a state of the same batch. Its dtype is the precision of
                the computation: float64 gives a float64 reference.
            observe: called for calibration with each layer, its input, its last state and its next state;
                for a layer without state these are () and its output alone.

        Returns:
            (outputs,) or (batch, outputs), and the next state.
        """
        keep = None
        if self.mask_value is not None:
            keep = (x == x.dtype.type(self.mask_value)).all(-1, keepdims=True)
            x = np.where(keep, x.dtype.type(0), x)
        following: list[FloatArray] = []
        for layer in self.layers:
            if isinstance(layer, (LSTM, GRU, SimpleRNN)):
                at = len(following)
                last = state[at : at + len(layer.state_names)]
                new = layer.step(last, x)
                if keep is not None:
                    new = tuple(np.where(keep, old, now) for old, now in zip(last, new, strict=True))
                following.extend(new)
            elif isinstance(layer, Masking):
                continue
            else:
                last, new = (), (layer.apply(x),)
            if observe is not None:
                observe(layer, x, last, new)
            x = new[0]
        return x, tuple(following)

    def run(self, xs: FloatArray) -> FloatArray:
        """A whole sequence from zero state: (T, features) → (T, outputs), or (T, batch, …) for a batch."""
        state = self.zero_state(*xs.shape[1:-1], dtype=xs.dtype)
        ys = np.empty((*xs.shape[:-1], self.outputs), xs.dtype)
        for t, x in enumerate(xs):
            ys[t], state = self.step(state, x)
        return ys


def check_width(xs: npt.NDArray[Any], features: int, what: str) -> None:
    """Raise `InputError` unless the last axis of `xs` holds `features` values."""
    if xs.ndim == 0 or xs.shape[-1] != features:
        raise InputError(f"{what}: the model takes {features} features per timestep, got an array of shape {xs.shape}")
