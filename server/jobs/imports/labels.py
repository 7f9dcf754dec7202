"""What is known of an entry, as people's programs write it, in the form that is validated and stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from server.domain.validation import invalid

__all__ = ["normalized", "zone_of"]

_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_NUMBER = re.compile(r"\d{9,19}(\.\d+)?")
_DATE_AND_TIME = re.compile(r"(\d{4})[-/:.](\d\d)[-/:.](\d\d)[Tt ]+(\d\d:\d\d.*)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = ("id", "identity", "camera")

_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6))
"""Below each number a time since 1970 is in seconds, milliseconds, microseconds; above, in nanoseconds."""


def zone_of(name: str) -> tzinfo:
    """Return the time zone of an IANA name (``Europe/Berlin``) or an offset (``+02:00``).

    Raises:
        InvalidRequest: there is none of that name.
    """
    if match := _OFFSET.fullmatch(name):
        sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        if offset < timedelta(days=1):
            return timezone(-offset if sign == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise invalid("timezone", "must be a time zone such as Europe/Berlin, UTC or +02:00") from None


def normalized(fields: Mapping[str, Any], zone: tzinfo | None) -> dict[str, Any]:
    """Return fields with whole numbers as text where text is expected, and times with a zone.

    A time may be seconds, milliseconds, microseconds or nanoseconds since 1970; one without a zone is of ``zone``.

    Raises:
        InvalidRequest: a time does not exist in ``zone``.
    """
    result = dict(fields)
    for name in _TEXTS:
        if (text := _text(result.get(name))) is not None:
            result[name] = text
    if "captured_at" in result:
        result["captured_at"] = _time(result["captured_at"], zone)
    return result


def _text(value: object) -> str | None:
    """Return a whole number as text: 7, and 7.0, as spreadsheets and data frames write it beside empty cells."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: Any, zone: tzinfo | None) -> Any:
    """Return a time as ``datetime`` or RFC 3339 where it can be read so, else ``value``, which will be refused."""
    if isinstance(value, int | float | str) and not isinstance(value, bool) and _NUMBER.fullmatch(str(value).strip()):
        return _since_1970(str(value).strip())
    if isinstance(value, str) and (match := _DATE_AND_TIME.fullmatch(value.strip())):
        year, month, day, rest = match.groups()
        value = f"{year}-{month}-{day}T{rest.strip()}"
    if zone is None or not isinstance(value, str | datetime):
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return moment if moment.tzinfo is not None else _in_zone(moment, zone)


def _in_zone(local: datetime, zone: tzinfo) -> datetime:
    """Return a local time with its zone: the first of two where clocks are put back.

    Raises:
        InvalidRequest: clocks are put forward over it, so it never was.
    """
    moment = local.replace(tzinfo=zone)
    try:
        exists = moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
    except OverflowError:  # at the ends of the calendar; validation refuses it
        return moment
    if not exists:
        raise invalid("captured_at", f"{local} does not exist in {zone}, where clocks are put forward over it")
    return moment


def _since_1970(number: str) -> datetime | str:
    try:
        amount = Decimal(number)
        unit = next((unit for limit, unit in _UNITS if amount < limit), 10**9)
        return _EPOCH + timedelta(microseconds=int(amount * 10**6 / unit))
    except (InvalidOperation, OverflowError):
        return number
