"""EdgeLSTM's export: Keras → network → artifacts, each replayed against Keras → bundle.

>>> network = read_keras("pump.keras")
>>> bundle = export(network, "pump.edge", precisions=["float32", "int8"], calibration=sequences)
"""

from ..runtime.network import Network
from .calibration import read_sequences
from .from_keras import read_keras
from .pipeline import Result, Target, export, targets
from .to_c import CProject, export_c
from .windows import on_windows, streaming_of

__all__ = [
    "CProject",
    "Network",
    "Result",
    "Target",
    "export",
    "export_c",
    "on_windows",
    "read_keras",
    "read_sequences",
    "streaming_of",
    "targets",
]
