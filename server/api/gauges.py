"""Values that Prometheus reads on each scrape."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from server.api.app_state import AppState
from server.jobs.types import JobState
from vireid.schemas.paging import MAX_PAGE

__all__ = ["gauges"]

Read = Callable[[], float]


def gauges(state: AppState) -> Mapping[str, tuple[str, Read]]:
    """Return description and function of each gauge, by its name without ``vireid_``.

    A value that cannot be read, such as one of a store that has failed, is NaN, and the others are there.
    """

    def sequences(place: int) -> Read:
        return lambda: sum(numbers[place] for numbers in state.galleries.loader.progress().values())

    def jobs(job_state: JobState) -> Read:
        return lambda: len(state.jobs.list(limit=MAX_PAGE, state=job_state))

    found: Mapping[str, tuple[str, Read]] = {
        "ready": ("1 when the server is ready, see /readyz.", lambda: not state.problems()),
        "images_in_flight": ("Images in flight.", lambda: state.admission.in_flight),
        "images_in_flight_limit": ("Permits for images in flight.", lambda: state.admission.capacity),
        "galleries": ("Galleries.", lambda: len(state.galleries.loader.progress())),
        "store_sequence": ("Sequence numbers of the store, summed over galleries.", sequences(0)),
        "index_sequence": ("Sequence numbers of the index, summed over galleries.", sequences(1)),
        "jobs_queued": (f"Jobs that wait, at most {MAX_PAGE:,}.", jobs(JobState.QUEUED)),
        "jobs_running": ("Jobs that run.", jobs(JobState.RUNNING)),
    }
    return {name: (text, _or_nan(read)) for name, (text, read) in found.items()}


def _or_nan(read: Read) -> Read:
    def value() -> float:
        try:
            return read()
        except Exception:
            return math.nan

    return value
