"""EdgeLSTM's runtime: loads an exported model and steps it, one timestep per call, with its state kept.

>>> model = load("pump.edge")
>>> stream = model.stream()
>>> y = stream.step(x)
"""

from .bundle import Bundle
from .errors import (
    BackendUnavailableError,
    BundleError,
    EdgeLSTMError,
    InputError,
    ParityError,
    UnsupportedModelError,
)
from .fleet import Fleet
from .golden import Golden
from .manifest import Manifest
from .model import Model, load
from .parity import Parity
from .stream import Stream
from .streaming import Streaming, Window

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
    "Streaming",
    "UnsupportedModelError",
    "Window",
    "load",
]
