"""EdgeLSTM's runtime: loads an exported model and steps it, one timestep per call, with its state kept.

>>> model = load("pump.edge")
>>> stream = model.stream()
>>> y = stream.step(x)
"""

from .bundle import Bundle, Golden, Manifest
from .errors import (
    BackendUnavailableError,
    BundleError,
    EdgeLSTMError,
    InputError,
    ParityError,
    UnsupportedModelError,
)
from .fleet import Fleet
from .model import Model, load
from .parity import Parity
from .stream import Stream

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "EdgeLSTMError",
    "Fleet",
    "Golden",
    "InputError",
    "Manifest",
    "Model",
    "Parity",
    "ParityError",
    "Stream",
    "UnsupportedModelError",
    "load",
]
