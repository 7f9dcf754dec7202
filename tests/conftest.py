"""Settings of all tests.

Numerics libraries use one thread, because on few cores their spinning threads cost more than they gain. Hypothesis has
no deadline, because single examples may take long on a loaded machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.postgresql import PrivatePostgresql

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when the libraries load, so set before any test
    os.environ.setdefault(name, "1")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it; tests choose their own width

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the database for tests that start whole servers; tests of the store use both."""
    parser.addoption("--database", choices=["sqlite", "postgresql"], default="sqlite")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PrivatePostgresql]:
    """A PostgreSQL for the session; skips the test where there is none."""
    server = PrivatePostgresql()
    yield server
    server.stop()
