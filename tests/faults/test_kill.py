"""A few rounds of ``python -m tests.faults.kill``."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.kill import rounds


def test_every_acknowledged_write_survives_kill_9_and_nothing_deleted_comes_back(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    figures = rounds(tmp_path, 3, seed, longest_s=0.5, tell=print)
    assert figures.writes.total() > figures.rounds
