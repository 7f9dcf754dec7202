"""Conversion of times to whole microseconds since 1970 in UTC, the form in which they are stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["from_microseconds", "to_microseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(time: datetime) -> int:
    """Return the microseconds since the epoch, exact.

    Raises:
        ValueError: ``time`` has no time zone.

    >>> to_microseconds(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if time.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, found {time.isoformat()}")
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the time in UTC; the inverse of ``to_microseconds``."""
    return _EPOCH + timedelta(microseconds=microseconds)
