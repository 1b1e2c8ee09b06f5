"""EdgeLSTM's export: Keras → network → artifacts, each replayed against Keras → bundle.

>>> network = read_keras("pump.keras")
>>> bundle = export(network, "pump.edge", precisions=["float32", "int8"], calibration=sequences)
"""

from ..runtime.network import Network
from .calibration import read_sequences
from .converters import WindowModel
from .from_keras import read_keras
from .pipeline import Result, Step, Target, export, targets
from .reading import read_for_sequences, read_model
from .to_c import CProject, export_c, is_c_folder, read_for_c
from .windows import on_windows, streaming_of

__all__ = [
    "CProject",
    "Network",
    "Result",
    "Step",
    "Target",
    "WindowModel",
    "export",
    "export_c",
    "is_c_folder",
    "on_windows",
    "read_for_c",
    "read_for_sequences",
    "read_keras",
    "read_model",
    "read_sequences",
    "streaming_of",
    "targets",
]
