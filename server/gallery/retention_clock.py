"""Protection of retention against a wrong clock: a jump into the future would delete everything at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock

from server.storage.audit_log import AuditLog

__all__ = ["RetentionClock"]

_SEEN, _JUMPED, _CONFIRMED = "clock.seen", "clock.jumped", "clock.confirmed"
_SEEN_INTERVAL = timedelta(days=1)
"""An audit entry that the clock is right is added this often, so that an idle server can be restarted."""
_LONGEST_STOP = timedelta(days=7)
"""A server that was stopped for longer cannot know whether its clock is right."""
_TOLERANCE = timedelta(hours=1)
"""Largest correction of the clock while the server runs, and largest step back."""

_log = logging.getLogger(__name__)


def _steady_seconds() -> float:
    """Return seconds that no change of the clock affects, and that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class RetentionClock:
    """Compares the clock with the audit log at the start, and later with a steady clock. Thread-safe.

    A jump stops retention, also after a restart, until an admin confirms the clock.
    """

    def __init__(
        self,
        audit: AuditLog,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = _steady_seconds,
    ) -> None:
        self._audit, self._now, self._steady = audit, now, steady
        self._lock = Lock()
        self._reference: tuple[datetime, float] | None = None
        self._recorded_at = datetime.min.replace(tzinfo=UTC)
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Check the clock; return why retention must not run, or None."""
        with self._lock:
            now, steady = self._now(), self._steady()
            if self._problem is None:
                self._check(now, steady)
            if self._problem is None:
                self._reference = now, steady
                if now - self._recorded_at > _SEEN_INTERVAL:
                    self._audit.record(None, _SEEN, None, {})
                    self._recorded_at = now
            return self._problem

    def confirm(self, key_id: str | None) -> None:
        """Accept the current time, so that retention runs again."""
        with self._lock:
            now = self._now()
            self._audit.record(key_id, _CONFIRMED, None, {"time": now.isoformat()})
            self._reference, self._recorded_at, self._problem = (now, self._steady()), now, None

    def _check(self, now: datetime, steady: float) -> None:
        if self._reference is not None:
            then, steady_then = self._reference
            expected = then + timedelta(seconds=steady - steady_then)
            if abs(now - expected) > _TOLERANCE:
                self._stop(expected, now)
            return
        last = self._audit.newest(_SEEN, _JUMPED, _CONFIRMED) or self._audit.newest()
        self._recorded_at = now if last is None else last.at
        if last is None:
            return
        if last.action == _JUMPED:
            self._problem = _message(str(last.detail["expected"]), now)
        elif not -_TOLERANCE <= now - last.at <= _LONGEST_STOP:
            self._stop(last.at, now)

    def _stop(self, expected: datetime, now: datetime) -> None:
        self._problem = _message(expected.isoformat(timespec="seconds"), now)
        _log.error("retention is stopped: %s", self._problem)
        self._audit.record(None, _JUMPED, None, {"expected": expected.isoformat(), "found": now.isoformat()})


def _message(expected: str, now: datetime) -> str:
    return (
        f"the clock shows {now.isoformat(timespec='seconds')}, while {expected} or shortly after was expected; if the "
        "clock is right, confirm it with vireid audit confirm-clock"
    )
