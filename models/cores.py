"""CPU cores that this process may use: by its affinity and the quotas of its cgroups.

Server and training count cores here. Needs the standard library only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["limit_native_threads", "usable_cores"]

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
