"""The process-wide lock that every HDF5 call is made under: h5py's own does not prevent crashes (h5py#2920)."""

from __future__ import annotations

import threading
from typing import Final

HDF5_LOCK: Final = threading.RLock()
