"""Validation errors of user input, by field, with messages for users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic_core import ErrorDetails

from server.domain.errors import ServiceError

__all__ = ["FieldError", "InvalidRequest", "field_errors", "invalid"]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field or file, such as ``query.k`` and ``must be at most 1000``."""

    field: str
    detail: str


class InvalidRequest(ServiceError):
    """Request fields are missing, malformed or contradictory."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(*errors)
        self.errors = tuple(errors)


def invalid(field_name: str, detail: str) -> InvalidRequest:
    """Return the error of a single field."""
    return InvalidRequest([FieldError(field=field_name, detail=detail)])


MOST_ERRORS = 20
"""Maximum number of listed errors per object; further errors are only counted."""


def field_errors(found: Iterable[ErrorDetails], *, within: str = "") -> list[FieldError]:
    """Translate pydantic's errors into messages for users; ``within`` names the field that contains the value."""
    found = list(found)
    errors = [
        FieldError(field=_name(within, error["loc"]) or "body", detail=_message(error)) for error in found[:MOST_ERRORS]
    ]
    if len(found) > MOST_ERRORS:
        errors.append(FieldError(field=within or "body", detail=f"has {len(found) - MOST_ERRORS:,} more errors"))
    return errors


_MESSAGES: Mapping[str, str] = {
    "bool_type": "must be true or false",
    "datetime_from_date_parsing": "must be a time, RFC 3339",
    "datetime_parsing": "must be a time, RFC 3339",
    "datetime_type": "must be a time, RFC 3339",
    "dict_type": "must be an object",
    "enum": "must be {expected}",
    "extra_forbidden": "is not a known field",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "json_invalid": "is not valid JSON",
    "json_type": "must be JSON text",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "list_type": "must be an array",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "timezone_aware": "must have a time zone, such as Z",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
}


def _name(within: str, location: Iterable[int | str]) -> str:
    """Return the path of a field: ``items[2].id`` for ``("items", 2, "id")``."""
    for part in location:
        within += f"[{part}]" if isinstance(part, int) else f".{part}" if within else part
    return within


def _message(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(context["error"])  # raised by a validator of this project
    try:
        return _MESSAGES[error["type"]].format_map(context)
    except (KeyError, ValueError):
        return "is not valid"
