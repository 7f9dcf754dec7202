"""What one request leaves behind: its id, who asked, and where the time went."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass, field
from typing import Literal, get_args

from starlette.requests import HTTPConnection
from starlette.types import Scope

from server.api.schemas import TimingMs

__all__ = ["STAGES", "Stage", "Trace", "start_trace", "trace_of"]

Stage = Literal["queue", "decode", "embed", "search"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY = "trace"


@dataclass(slots=True)
class Trace:
    """Filled while a request is worked on. ``problem``: last part of the problem's type, if it ended in one."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    seconds: dict[Stage, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def total(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self.started

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds by stage until now; a stage that was not passed is 0."""
        found: dict[str, float] = {stage: round(1e3 * self.seconds.get(stage, 0.0), 3) for stage in STAGES}
        return found | {"total": round(1e3 * self.total, 3)}

    def timing(self) -> TimingMs:
        """:meth:`milliseconds` for an answer."""
        return TimingMs(**self.milliseconds())

    def server_timing(self) -> str:
        """Value of the ``Server-Timing`` header."""
        return ", ".join(f"{stage};dur={ms:.3f}" for stage, ms in self.milliseconds().items())


def start_trace(scope: Scope) -> Trace:
    """Begin the trace of a request; its id is the caller's ``X-Request-Id`` where that is harmless."""
    given = HTTPConnection(scope).headers.get("x-request-id", "")
    trace = Trace(given if _SAFE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}")
    scope.setdefault("state", {})[_KEY] = trace
    return trace


def trace_of(connection: HTTPConnection) -> Trace:
    """The trace of a request that :func:`start_trace` has seen."""
    trace: Trace = connection.scope["state"][_KEY]
    return trace
