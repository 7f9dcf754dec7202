from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from server.embedding.cores import be_patient, give_way, usable_cores

AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", AFFINITY), ("100000 100000", 1), ("50000 100000", 1), ("999900000 100000", AFFINITY)],
)
def test_the_quota_of_a_version_2_cgroup_counts(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", AFFINITY), ("100000", 1)])
def test_the_quota_of_a_version_1_cgroup_counts(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == cores


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == AFFINITY


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows priorities of threads")
def test_a_thread_that_gives_way_leaves_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = niceness()
    with ThreadPoolExecutor(1, initializer=partial(give_way, 3)) as pool:
        assert pool.submit(niceness).result() == min(before + 3, 19)
    assert niceness() == before

    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    with ThreadPoolExecutor(1, initializer=partial(give_way, 3)) as pool:
        assert pool.submit(niceness).result() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows patient threads")
def test_a_patient_thread_leaves_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def policy() -> int:
        return os.sched_getscheduler(threading.get_native_id())

    with ThreadPoolExecutor(1, initializer=be_patient) as pool:
        assert pool.submit(policy).result() == os.SCHED_BATCH
    assert policy() == os.SCHED_OTHER

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with ThreadPoolExecutor(1, initializer=be_patient) as pool:
        assert pool.submit(policy).result() == os.SCHED_OTHER
