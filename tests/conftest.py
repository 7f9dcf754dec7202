"""One thread for every numerics library: on few cores their spinning threads cost more than they bring."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when the libraries load, so set before any test
    os.environ.setdefault(name, "1")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; tests choose their own width
