"""Models that are refused: importing this registers all of them in `REFUSED`."""

from tests.export.refused import building, ends, layers, timesteps
from tests.export.refused.cases import REFUSED, inputs

__all__ = ["REFUSED", "building", "ends", "inputs", "layers", "timesteps"]
