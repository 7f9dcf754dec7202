"""Tests that need an NVIDIA GPU; without one they are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest


def _missing() -> str | None:
    if not Path("/dev/nvidiactl").exists():
        return "no NVIDIA GPU on this machine"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason := _missing():
                item.add_marker(pytest.mark.skip(reason=reason))
