"""A few rounds of ``python -m tests.faults.kill``."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.kill import run_rounds


def test_kill_9_loses_no_acknowledged_write_and_restores_no_deleted_item(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    figures = run_rounds(tmp_path, 3, seed, longest_s=0.5, report=print)
    assert figures.writes.total() > figures.rounds
