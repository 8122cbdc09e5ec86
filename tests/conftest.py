"""Linear algebra of every worker in one thread: as many workers as cores would otherwise wait for each other's threads."""

from __future__ import annotations

import os

# Read when numpy and torch are loaded, which test modules do.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
