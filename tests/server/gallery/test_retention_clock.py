"""Retention stops when the clock has jumped, until an admin confirms it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from server.gallery.retention_clock import RetentionClock
from server.storage.audit_log import AuditLog
from server.storage.sql_store import SqlStore


class Time:
    """A clock that can be moved, and a steady one."""

    def __init__(self) -> None:
        self.now, self.steady = datetime.now(UTC), 0.0

    def passes(self, time: timedelta) -> None:
        self.now += time
        self.steady += time.total_seconds()


@pytest.fixture
def audit(database_url: str) -> Iterator[AuditLog]:
    store = SqlStore(database_url)
    yield AuditLog(store.engine)
    store.close()


def _clock(audit: AuditLog, time: Time) -> RetentionClock:
    return RetentionClock(audit, lambda: time.now, lambda: time.steady)


@pytest.mark.parametrize("jump", [timedelta(days=60), timedelta(days=-2)])
def test_a_start_with_a_wrong_clock_stops_retention(audit: AuditLog, jump: timedelta) -> None:
    audit.record(None, "items.put", "g", {})
    time = Time()
    time.now += jump
    assert _clock(audit, time).problem() is not None
    assert [entry.action for entry in audit.list(10)] == ["clock.jumped", "items.put"]
    audit.record(None, "search", "g", {})  # an entry with the wrong time
    again = _clock(audit, time)
    assert again.problem() is not None
    again.confirm("key_1")
    assert again.problem() is None
    assert audit.newest("clock.confirmed").key_id == "key_1"  # type: ignore[union-attr]
    assert _clock(audit, Time()).problem() is None


def test_a_start_after_some_days_does_not_stop_retention(audit: AuditLog) -> None:
    assert _clock(audit, Time()).problem() is None
    audit.record(None, "items.put", "g", {})
    time = Time()
    time.now += timedelta(days=3)
    assert _clock(audit, time).problem() is None


@pytest.mark.parametrize(("jump", "stops"), [(timedelta(days=2), True), (timedelta(minutes=30), False)])
def test_a_jump_while_the_server_runs_stops_retention(audit: AuditLog, jump: timedelta, stops: bool) -> None:
    time = Time()
    clock = _clock(audit, time)
    assert clock.problem() is None
    time.passes(timedelta(days=20))
    assert clock.problem() is None  # an idle server
    time.now += jump
    assert (clock.problem() is not None) is stops


def test_an_idle_server_records_once_a_day_that_its_clock_is_right(audit: AuditLog) -> None:
    time = Time()
    clock = _clock(audit, time)
    for _ in range(51):
        assert clock.problem() is None
        time.passes(timedelta(hours=1))
    assert [entry.action for entry in audit.list(10)] == ["clock.seen"] * 2
