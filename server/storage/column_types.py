"""Column types that the database itself does not have."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.types import TypeDecorator

from server.domain.timestamps import from_microseconds, to_microseconds

__all__ = ["UtcDateTime"]


class UtcDateTime(TypeDecorator[datetime]):
    """A time with a time zone, stored as whole microseconds since 1970 in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else from_microseconds(value)
