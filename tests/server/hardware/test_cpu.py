from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from server.hardware.cpu import lower_priority, schedule_as_batch


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows priorities of threads")
def test_lower_priority_affects_only_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before = niceness()
    with ThreadPoolExecutor(1, initializer=partial(lower_priority, 3)) as pool:
        assert pool.submit(niceness).result() == min(before + 3, 19)
    assert niceness() == before

    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    with ThreadPoolExecutor(1, initializer=partial(lower_priority, 3)) as pool:
        assert pool.submit(niceness).result() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows patient threads")
def test_batch_scheduling_affects_only_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def policy() -> int:
        return os.sched_getscheduler(threading.get_native_id())

    with ThreadPoolExecutor(1, initializer=schedule_as_batch) as pool:
        assert pool.submit(policy).result() == os.SCHED_BATCH
    assert policy() == os.SCHED_OTHER

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with ThreadPoolExecutor(1, initializer=schedule_as_batch) as pool:
        assert pool.submit(policy).result() == os.SCHED_OTHER
