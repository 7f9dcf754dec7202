"""Trace of a request: its id and the duration of its stages."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field
from typing import Literal, get_args

from starlette.requests import HTTPConnection
from starlette.types import Scope

from vireid.schemas.search import TimingMs

__all__ = ["STAGES", "Stage", "Trace", "start_trace", "trace_of"]

Stage = Literal["queue", "decode", "embed", "search"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY = "trace"


@dataclass(slots=True)
class Trace:
    """Trace of a request in progress. ``problem`` is the last part of the problem's type, if it failed."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    seconds: dict[Stage, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def total(self) -> float:
        """Seconds since the start of the request."""
        return time.monotonic() - self.started

    def milliseconds(self) -> dict[str, float]:
        """Return the milliseconds by stage so far; 0 for a stage that was not reached."""
        stages: dict[str, float] = {stage: round(1e3 * self.seconds.get(stage, 0.0), 3) for stage in STAGES}
        return stages | {"total": round(1e3 * self.total, 3)}

    def timing(self) -> TimingMs:
        """Return :meth:`milliseconds` for a response."""
        return TimingMs(**self.milliseconds())

    def server_timing(self) -> str:
        """Return the value of the ``Server-Timing`` header."""
        return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in self.milliseconds().items())


def start_trace(scope: Scope) -> Trace:
    """Start the trace of a request; its id is the caller's ``X-Request-Id`` if that has a safe format."""
    given = HTTPConnection(scope).headers.get("x-request-id", "")
    trace = Trace(given if _SAFE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}")
    scope.setdefault("state", {})[_KEY] = trace
    return trace


def trace_of(connection: HTTPConnection) -> Trace:
    """Return the trace that :func:`start_trace` started for a request."""
    trace: Trace = connection.scope["state"][_KEY]
    return trace
