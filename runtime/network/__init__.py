"""The network: a framework-neutral description of a model, and the one definition of what each kind of layer computes.

A kind of layer is a dataclass with float32 NumPy weights. Its `lower` says what it computes in a dozen of operators,
which every format interprets: NumPy computes them (`ARRAYS`), the exporters write them (`edgelstm.export`).
"""

from .arrays import ARRAYS, ArrayOps
from .graph import Network, Reference, check_width
from .layer import Layer, StateSpec, layer_fields, parameter_count
from .ops import Ops
from .pointwise import Activation, Affine, Dense, LayerNormalization, Masking, PReLU
from .recurrent import GRU, LSTM, Recurrent, SimpleRNN

__all__ = [
    "ARRAYS",
    "GRU",
    "LSTM",
    "Activation",
    "Affine",
    "ArrayOps",
    "Dense",
    "Layer",
    "LayerNormalization",
    "Masking",
    "Network",
    "Ops",
    "PReLU",
    "Recurrent",
    "Reference",
    "SimpleRNN",
    "StateSpec",
    "check_width",
    "layer_fields",
    "parameter_count",
]
