"""The parts of a running server, and how a route gets hold of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import Scope as AsgiScope

from server.access import Keys
from server.api.metrics import Metrics
from server.audit import Audit
from server.embedding.admission import Admission
from server.embedding.registry import Models
from server.gallery.service import Galleries
from server.jobs.runner import Jobs
from server.settings import Settings

__all__ = ["Service", "ServiceDep", "service_of"]


@dataclass(frozen=True, slots=True)
class Service:
    """What a server is made of."""

    settings: Settings
    models: Models
    galleries: Galleries
    keys: Keys
    audit: Audit
    jobs: Jobs
    admission: Admission
    metrics: Metrics

    def problems(self) -> list[str]:
        """Why the server is not ready; empty when it is. Names no gallery."""
        progress, unloaded = self.galleries.progress(), self.galleries.unloaded()
        behind = sum(stored != indexed for name, (stored, indexed) in progress.items() if name not in unloaded)
        reasons = {
            f"{len(unloaded)} galleries are still being loaded": bool(unloaded),
            "the store is still being checked": not unloaded and not self.galleries.loading.done(),
            f"the index of {behind} galleries is behind its store": bool(behind),
        }
        return self.models.batcher.problems() + [reason for reason, holds in reasons.items() if holds]


def service_of(scope: AsgiScope) -> Service:
    """The service of the app that serves this connection."""
    service: Service = scope["app"].state.service
    return service


async def _service(request: Request) -> Service:
    return service_of(request.scope)


ServiceDep = Annotated[Service, Depends(_service)]
