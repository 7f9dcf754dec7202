"""The parts of a running server, and how routes access them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope as AsgiScope

from server.api.metrics import Metrics
from server.api.oidc import TokenVerifier
from server.api.search_cursor import RecentQueries
from server.api.spans import Spans
from server.api.waiting import Pools
from server.domain.errors import DatabaseUnavailable
from server.embedding.admission import Admission
from server.embedding.registry import Models
from server.gallery.galleries import Galleries
from server.gallery.retention_clock import RetentionClock
from server.jobs.runner import Jobs
from server.settings import Settings
from server.storage.api_keys import ApiKeys
from server.storage.audit_log import AuditLog
from server.storage.calibrations import CalibrationTable
from server.storage.encryption import Encryption

__all__ = ["AppState", "StateDep", "state_of"]


@dataclass(frozen=True, slots=True)
class AppState:
    """The parts of a running server."""

    settings: Settings
    models: Models
    galleries: Galleries
    keys: ApiKeys
    audit: AuditLog
    calibrations: CalibrationTable
    jobs: Jobs
    admission: Admission
    pools: Pools
    metrics: Metrics
    clock: RetentionClock
    encryption: Encryption
    tokens: TokenVerifier | None
    storage_problems: Callable[[], list[str]]
    recent_queries: RecentQueries = field(default_factory=RecentQueries)
    spans: Spans | None = None

    def problems(self) -> list[str]:
        """Return why the server is not ready, without names of galleries; empty when it is ready."""
        try:
            progress, unloaded = self.galleries.loader.progress(), self.galleries.loader.unloaded()
        except DatabaseUnavailable as error:
            return list(error.reasons)
        behind = sum(stored != indexed for name, (stored, indexed) in progress.items() if name not in unloaded)
        done, total = (sum(counts) for counts in zip(*unloaded.values(), strict=True)) if unloaded else (0, 0)
        reasons = {
            f"{len(unloaded)} galleries are still being loaded ({done:,} of {total:,} items)": bool(unloaded),
            "the store is still being checked": not unloaded and not self.galleries.loader.loading.done(),
            f"the index of {behind} galleries is behind its store": bool(behind),
        }
        return self.storage_problems() + self.models.problems() + [reason for reason, holds in reasons.items() if holds]


def state_of(scope: AsgiScope) -> AppState:
    """Return the state of the app that serves this connection."""
    state: AppState = scope["app"].state.service
    return state


async def _state(request: Request) -> AppState:
    return state_of(request.scope)


StateDep = Annotated[AppState, Depends(_state)]
