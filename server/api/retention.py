"""Retention: whether it runs, and confirmation of a clock that has jumped."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.app_state import AppState, StateDep
from server.api.auth import Admin
from server.api.errors import problems
from vireid.schemas.retention import RetentionStatus

__all__ = ["router"]

router = APIRouter(prefix="/v1/retention", tags=["service"])


@router.get("", summary="Get the state of retention", responses=problems())
def get_retention(state: StateDep, _caller: Admin) -> RetentionStatus:
    """Return whether retention is stopped, because the clock has jumped since the last audit entry."""
    return _status(state)


@router.post("/confirm", summary="Confirm the clock", responses=problems())
def confirm_clock(state: StateDep, caller: Admin) -> RetentionStatus:
    """Confirm that the clock is right, so that retention runs again and deletes what has expired."""
    state.clock.confirm(caller.key_id)
    return _status(state)


def _status(state: AppState) -> RetentionStatus:
    problem = state.clock.problem()
    return RetentionStatus(stopped=problem is not None, reason=problem)
