"""CPU quotas, and scheduling priorities of threads."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["limit_native_threads", "lower_priority", "schedule_as_batch", "usable_cores"]

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the cores that this process may use, at least 1.

    It is the smallest of its CPU affinity and the quotas of its cgroup and all cgroups above it (version 1 or 2).
    """
    return max(1, min([_affinity(), *(math.ceil(quota) for quota in _quotas(cgroups, membership))]))


def limit_native_threads() -> None:
    """Make OpenMP and OpenBLAS start no more threads than there are usable cores; they ignore CPU quotas.

    Call it before NumPy and FAISS are imported, because they read the variable when they are loaded.
    """
    if (cores := usable_cores()) < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def lower_priority(niceness: int) -> None:
    """Lower the priority of the calling thread by ``niceness`` (0 to 19) relative to the process.

    Threads that it starts later inherit the priority. Only Linux has priorities per thread; on other systems, and where
    a sandbox forbids the call, this does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, os.getpid())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + niceness, 19))


def schedule_as_batch() -> None:
    """Make the calling thread wait, when it wakes, until the running thread has used its time slice (SCHED_BATCH).

    Its share of the CPU stays the same. Short pieces of work that preempt another thread cost it more than their own
    time, because caches have to be refilled. Only Linux has this policy; on other systems this does nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_BATCH, os.sched_param(0))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the CPU quotas that apply to this process, in cores."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = ["0::/", "1:cpu:/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for folder in _ancestors(cgroups, path):
                yield from _read_quota(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for mount in {"cpu", controllers}:
                for folder in _ancestors(cgroups / mount, path):
                    yield from _read_quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _ancestors(root: Path, path: str) -> list[Path]:
    """Return the folders of a cgroup and those above it, up to the root.

    In a container the path may be the host's; then only the root exists, and it is the container's cgroup.
    """
    names = [name for name in PurePosixPath(path).parts if name not in {"/", ".."}]
    return [root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def _read_quota(*files: Path) -> Iterator[float]:
    """Yield the quota that the files (quota and period) hold, if any."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
    except (OSError, ValueError):
        return
    if quota not in {"max", "-1"}:
        yield int(quota) / int(period)
