"""EdgeLSTM's devices: what is known of the targets, and what is put on them.

>>> profile = find_profile("raspberry-pi-4b-64")
>>> for each in fit(Bundle.open("pump.edge"), profile): ...
"""

from .fit import Fit, fit
from .profile import DeviceProfile, find_profile, profiles, read_profile

__all__ = ["DeviceProfile", "Fit", "find_profile", "fit", "profiles", "read_profile"]
