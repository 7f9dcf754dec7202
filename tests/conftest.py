"""Settings of all tests.

Numerics libraries use one thread, because on few cores their spinning threads cost more than they gain. Hypothesis has
no deadline, because single examples may take long on a loaded machine.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when the libraries load, so set before any test
    os.environ.setdefault(name, "1")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; tests choose their own width

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
