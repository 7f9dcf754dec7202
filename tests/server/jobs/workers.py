"""The threads that run jobs, as tests see them."""

from __future__ import annotations

import time

from server.jobs.runner import Jobs

__all__ = ["wait_for_dead_worker"]


def wait_for_dead_worker(jobs: Jobs, patience_s: float) -> None:
    """Wait until one of the threads has ended."""
    deadline = time.monotonic() + patience_s
    while all(thread.is_alive() for thread in jobs._threads):
        assert time.monotonic() < deadline
        time.sleep(0.01)
