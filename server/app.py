"""Wires the parts of the server together, and nothing else."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from functools import cache, partial
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI
from fastapi.middleware import Middleware

from server.access import Keys, Scope
from server.api import (
    aliases,
    audit,
    compare,
    duplicates,
    embeddings,
    erasures,
    errors,
    galleries,
    health,
    imports,
    items,
    jobs,
    keys,
    limits,
    models,
    openapi,
    page,
    reembed,
    restore,
    search,
    snapshot,
    vectors,
)
from server.api.auth import Authentication
from server.api.metrics import Metrics
from server.api.middleware import BodyLimit, Tracing
from server.api.service import Service
from server.audit import Audit
from server.embedding.admission import Admission
from server.embedding.batcher import Lanes
from server.embedding.cores import usable_cores
from server.embedding.engine import ImageLimits
from server.embedding.providers import ON_CPU, Gpu, each_device
from server.embedding.registry import Models, load_embedders
from server.embedding.session import Embedder
from server.gallery.gpu import choose_index
from server.gallery.retention import Retention
from server.gallery.service import Galleries
from server.gallery.snapshots import Snapshots
from server.gallery.store import SqlStore
from server.gallery.upkeep import Upkeep
from server.jobs.imports.kind import IMPORT, Import
from server.jobs.reembed import REEMBED, Reembed
from server.jobs.restore import RESTORE, Restore
from server.jobs.runner import Jobs, Kind
from server.jobs.table import JobTable
from server.jobs.unfinished import remove_unfinished
from server.settings import Settings

__all__ = ["create_app"]

_BLOCKING_THREADS = 16
_PARTS = (  # those first that are asked most: routes are tried in their order
    search,
    embeddings,
    items,
    page,
    health,
    limits,
    models,
    compare,
    galleries,
    aliases,
    vectors,
    imports,
    snapshot,
    restore,
    reembed,
    duplicates,
    erasures,
    jobs,
    keys,
    audit,
)

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The server as an ASGI app. It opens data and models when it starts, and closes them when it stops.

    Starting raises ``StartError`` over data, ``ModelRefused`` over models that cannot be served.
    """
    app = FastAPI(
        title="vireid",
        version=version("vireid"),
        description="Finds a person across visible and infrared cameras.",
        lifespan=partial(_running, settings),
        middleware=[
            Middleware(Tracing),
            Middleware(Authentication, required=settings.auth_required),
            Middleware(BodyLimit, limit=settings.max_body_bytes, others={imports.PATH: settings.max_import_bytes}),
        ],
        docs_url=None,  # the viewers load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    errors.install(app)
    # Side by side and not by include_router, which tries one router after the other: a search would cost 0.4 ms more.
    app.router.routes.extend(route for part in _PARTS for route in part.router.routes)
    app.openapi = cache(partial(openapi.document, app))  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _running(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _BLOCKING_THREADS
    with ExitStack() as stack:
        app.state.service = _open(settings, stack)
        yield


def _open(settings: Settings, stack: ExitStack) -> Service:
    """Open every part; what was opened is closed in the reverse order, however far it came."""
    store = stack.enter_context(closing(SqlStore(f"sqlite:///{settings.data_dir / 'vireid.db'}")))
    stored = Galleries(
        store,
        choose_index(settings.search_device),
        Snapshots(settings.data_dir / "index"),
        approximate_above=settings.approximate_above,
        in_background=True,
    )
    stack.enter_context(closing(stored))
    metrics, admission = Metrics(), Admission(settings.max_in_flight)
    gpu = Gpu(settings.gpu_memory, settings.data_dir / "engines")
    embedders = [
        load_embedders(
            settings.model_dir,
            precision=settings.precision,
            device=device,
            threads=settings.threads,
            gpu=gpu,
            callers=3 if _cores(settings) == 1 else 1,  # lone queries, and the lanes of both priorities
        )
        for device in each_device(settings.device)
    ]
    on_cpu = all(embedder.provider in ON_CPU for each in embedders for embedder in each.values())
    image_limits = ImageLimits(settings.max_image_bytes, settings.max_pixels)
    loaded = stack.enter_context(
        closing(
            Models(
                embedders,
                settings.model,
                image_limits,
                metrics.batch,
                lanes=_lanes_beside(settings, embedders[0]) if on_cpu else None,
            )
        )
    )
    trail = Audit(store.engine)
    kinds: dict[str, Kind] = {
        IMPORT: Import(stored, loaded, settings.import_roots, settings.max_image_bytes),
        RESTORE: Restore(stored, store),
        REEMBED: Reembed(stored, store, loaded),
    }
    service = Service(
        settings=settings,
        models=loaded,
        galleries=stored,
        keys=Keys(store.engine),
        audit=trail,
        jobs=stack.enter_context(
            closing(
                Jobs(
                    JobTable(store.engine),
                    settings.data_dir / "jobs",
                    kinds,
                    errors.explained,
                    trail,
                    partial(remove_unfinished, store),
                )
            )
        ),
        admission=admission,
        metrics=metrics,
    )
    stack.enter_context(closing(Retention(service.galleries, service.audit)))
    stack.enter_context(closing(Upkeep(service.galleries)))
    metrics.watch(service.models, lambda: admission.in_flight, service.problems)
    for engine in service.models:
        log.info("model %s runs in %s on %s", engine.card.name, engine.precision, engine.provider)
    _announce_access(settings, service.keys)
    return service


def _lanes_beside(settings: Settings, embedders: Mapping[str, Embedder]) -> Lanes:
    """A lane a core, over sessions of one thread each: where there is one core, those that run there anyway."""
    count = _cores(settings)
    if count == 1:
        return Lanes(embedders, count)
    callers = count + 1  # while queries come, one lane of the imports' goes on
    found = load_embedders(settings.model_dir, precision=settings.precision, device="cpu", threads=1, callers=callers)
    return Lanes(found, count)


def _cores(settings: Settings) -> int:
    return settings.threads or usable_cores()


def _announce_access(settings: Settings, known: Keys) -> None:
    if not settings.auth_required:
        log.info(
            "no API keys are needed: %s is reached from this machine alone; behind a proxy set VIREID_AUTH=required",
            settings.host,
        )
    elif not known.any_admin():
        _, secret = known.create("admin", frozenset({Scope.ADMIN}), None)
        sys.stdout.write(f"\nAdmin API key, shown this once:\n\n    {secret}\n\n")
        sys.stdout.flush()
