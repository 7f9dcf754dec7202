"""What every test is run with.

One thread for every numerics library: on few cores their spinning threads cost more than they bring. No deadline for
Hypothesis: on a loaded machine anything may take long once.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when the libraries load, so set before any test
    os.environ.setdefault(name, "1")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; tests choose their own width

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
