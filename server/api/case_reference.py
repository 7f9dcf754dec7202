"""The case and the reason that a caller gives for a request; the audit log keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from server.api.app_state import AppState
from server.domain.validation import invalid
from server.storage.audit_log import RequestReference, request_reference

__all__ = ["REFERENCE_HEADERS", "read_reference", "require_case"]

_CASE, _REASON = "X-Case-Reference", "X-Reason"
_LONGEST = 256

REFERENCE_HEADERS: Sequence[Mapping[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": f"{description}, in UTF-8; the audit log keeps it.",
        "schema": {"type": "string", "maxLength": _LONGEST},
    }
    for name, description in ((_CASE, "Reference of the case"), (_REASON, "Reason of the request"))
]
"""The headers as parameters of the OpenAPI document."""


def read_reference(request: Request) -> RequestReference:
    """Return the case and the reason in the headers of a request, which are UTF-8.

    Raises:
        InvalidRequest: a value is too long or has control characters.
    """
    return RequestReference(_value(request, _CASE), _value(request, _REASON))


def require_case(state: AppState) -> None:
    """Raise ``InvalidRequest`` if the current request must name its case and does not."""
    reference = request_reference.get() or RequestReference()
    if state.settings.audit_case_required and reference.case_reference is None:
        raise invalid(_CASE, "is required: this server refuses searches without the reference of a case")


def _value(request: Request, name: str) -> str | None:
    try:
        text = request.headers.get(name, "").encode("latin-1").decode().strip()
    except UnicodeDecodeError:
        raise invalid(name, "must be UTF-8") from None
    if len(text) > _LONGEST or not text.isprintable():
        raise invalid(name, f"must have at most {_LONGEST} characters, without control characters")
    return text or None
