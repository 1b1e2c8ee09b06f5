"""EdgeLSTM's devices: what is known of the targets, and what is put on them.

>>> profile = find_profile("raspberry-pi-4b-64")
>>> for each in fit(Bundle.open("pump.edge"), profile): ...
>>> with Board("pi@pi.local") as board:
...     deploy(Deployment(Path("pump.edge"), wheels=Path("dist")), board, print)
"""

from .board import Board, BoardError
from .deploy import Deployment, deploy
from .fit import Fit, fit
from .profile import DeviceProfile, find_profile, profiles, read_profile

__all__ = [
    "Board",
    "BoardError",
    "Deployment",
    "DeviceProfile",
    "Fit",
    "deploy",
    "find_profile",
    "fit",
    "profiles",
    "read_profile",
]
