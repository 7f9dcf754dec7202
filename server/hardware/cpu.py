"""Scheduling priorities of threads."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

__all__ = ["lower_priority", "schedule_as_batch"]


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
