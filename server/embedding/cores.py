"""How many cores this process may really use, and who comes first on them."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from pathlib import Path

__all__ = ["be_patient", "give_way", "usable_cores"]

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by CPU affinity, or by the cgroup's quota (version 2 or 1) where that is smaller; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def give_way(niceness: int) -> None:
    """Let the calling thread have what other threads leave of the cores, the more so the larger ``niceness`` (0 to 19).

    It counts from the priority of the main thread; threads that the calling one makes later have its own.
    Only Linux knows priorities of threads; elsewhere, and where a sandbox forbids it, nothing changes.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, os.getpid())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + niceness, 19))


def be_patient() -> None:
    """Let the calling thread, when it wakes, wait for a core until who runs there has had its turn, some milliseconds.

    It still has its whole share. Work in short pieces that comes in between costs whoever it interrupts more than its
    own time: caches have to be filled again. Only Linux knows such threads; elsewhere nothing changes.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))


def _quota(cgroup: Path) -> float | None:
    """Cores granted by the cgroup; None: no limit, or no cgroup."""
    try:
        allowance, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        try:
            allowance = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if allowance in {"max", "-1"} else int(allowance) / int(period)
