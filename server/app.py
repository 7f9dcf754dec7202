"""Wiring of the parts of the server."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI
from fastapi.middleware import Middleware

from models.cores import usable_cores
from server.api import errors, openapi
from server.api.app_state import AppState
from server.api.auth import Authentication
from server.api.content_encoding import ContentDecoding
from server.api.gauges import gauges
from server.api.job_submission import UPLOAD_PATHS
from server.api.metrics import Metrics
from server.api.middleware import BodyLimit, Tracing
from server.api.oidc import TokenVerifier
from server.api.root_path import RootPath
from server.api.routes import ROUTES
from server.api.spans import open_spans
from server.api.waiting import Pools
from server.embedding.admission import Admission
from server.embedding.batcher import CpuLanes
from server.embedding.engine import ImageLimits
from server.embedding.providers import CPU_PROVIDERS, Gpu, each_device
from server.embedding.registry import Models, load_embedders
from server.embedding.session import Embedder
from server.gallery.galleries import Galleries
from server.gallery.maintenance import start_maintenance, start_retention
from server.gallery.retention_clock import RetentionClock
from server.gallery.snapshots import SnapshotDirectory
from server.index.gpu import choose_index
from server.jobs.calibrate import CALIBRATE, Calibrate
from server.jobs.cleanup import remove_leftovers
from server.jobs.imports.handler import IMPORT, Import
from server.jobs.reembed import REEMBED, Reembed
from server.jobs.restore import RESTORE, Restore
from server.jobs.runner import JobHandler, Jobs
from server.jobs.table import JobTable
from server.settings import Settings
from server.storage.api_keys import ApiKeys, Scope
from server.storage.audit_log import AuditLog
from server.storage.calibrations import CalibrationTable
from server.storage.directory_lock import DirectoryLock
from server.storage.encryption import Encryption, KeysRejected, read_keys
from server.storage.health import storage_problems
from server.storage.postgresql import database_identity
from server.storage.sql_store import SqlStore

__all__ = ["create_app"]

_BLOCKING_THREADS = 16
log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Return the server as an ASGI app, which opens data and models when it starts and closes them when it stops.

    Starting raises ``StartupError`` or ``ModelRefused`` if the data or the models cannot be served.
    """
    app = FastAPI(
        title=openapi.TITLE,
        version=version("vireid"),
        lifespan=partial(_running, settings),
        middleware=[
            Middleware(RootPath, prefix=settings.root_path),
            Middleware(Tracing),
            Middleware(Authentication, required=settings.auth_required, failures=settings.most_failed_auth),
            Middleware(ContentDecoding),
            Middleware(
                BodyLimit,
                limit=settings.max_body_bytes,
                memory=settings.max_body_memory,
                others={UPLOAD_PATHS: settings.max_import_bytes},
            ),
        ],
        docs_url=None,  # the viewers load external scripts
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    errors.install(app)
    app.router.routes.extend(ROUTES)
    app.openapi = openapi.document  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _running(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _BLOCKING_THREADS
    with ExitStack() as stack:
        app.state.service = _open(settings, stack)
        yield


def _open(settings: Settings, stack: ExitStack) -> AppState:
    """Open every part of the server; ``stack`` closes them in reverse order, even if a later one fails to open."""
    log.info("opening the data in %s and the models in %s", settings.data_dir, settings.model_dir)
    encryption = _encryption(settings)
    store = stack.enter_context(closing(_open_store(settings, encryption, stack)))
    identity = database_identity(store.engine)
    galleries = Galleries(
        store,
        choose_index(settings.search_device, codes=settings.search_codes),
        SnapshotDirectory(settings.data_dir / "index", encryption=encryption, database=identity),
        approximate_above=settings.approximate_above,
        in_background=True,
    )
    stack.enter_context(closing(galleries))
    if (spans := open_spans(settings.otlp_endpoint)) is not None:
        stack.enter_context(closing(spans))
    metrics, admission = Metrics(), Admission(settings.max_in_flight)
    models = stack.enter_context(closing(_load_models(settings, metrics)))
    audit = AuditLog(store.engine)
    calibrations = CalibrationTable(store.engine)
    handlers: dict[str, JobHandler] = {
        IMPORT: Import(galleries, models, settings.import_roots, settings.max_image_bytes, encryption),
        RESTORE: Restore(galleries, store, encryption),
        CALIBRATE: Calibrate(galleries, calibrations),
        REEMBED: Reembed(galleries, store, models),
    }
    state = AppState(
        settings=settings,
        models=models,
        galleries=galleries,
        keys=ApiKeys(store.engine),
        audit=audit,
        calibrations=calibrations,
        jobs=stack.enter_context(
            closing(
                Jobs(
                    JobTable(store.engine),
                    settings.data_dir / "jobs",
                    handlers,
                    errors.describe_as_json,
                    audit,
                    partial(remove_leftovers, store),
                    observe=metrics.job,
                )
            )
        ),
        admission=admission,
        pools=Pools(settings.request_timeout_s),
        metrics=metrics,
        clock=RetentionClock(audit),
        encryption=encryption,
        tokens=stack.enter_context(closing(TokenVerifier(settings))) if settings.oidc_issuer else None,
        storage_problems=partial(storage_problems, store.engine, settings.data_dir),
        spans=spans,
    )
    for task in (
        start_retention(galleries.erasure, audit, audit_days=settings.audit_retention_days, clock=state.clock),
        *start_maintenance(galleries.maintenance),
    ):
        stack.enter_context(closing(task))
    metrics.watch(state.models, gauges(state))
    for engine in state.models:
        log.info("model %s runs in %s on %s", engine.card.name, engine.precision, engine.provider)
    _announce_access(settings, state.keys)
    return state


def _encryption(settings: Settings) -> Encryption:
    """Return the encryption at rest. Raises ``KeysRejected``."""
    if settings.encryption_keys is not None:
        return Encryption(read_keys(settings.encryption_keys.get_secret_value()))
    if settings.encryption_key_file is None:
        return Encryption()
    try:
        return Encryption(read_keys(settings.encryption_key_file.read_text("utf-8")))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise KeysRejected(f"the encryption keys in {settings.encryption_key_file} cannot be read: {reason}") from error


def _open_store(settings: Settings, encryption: Encryption, stack: ExitStack) -> SqlStore:
    file = settings.data_dir / "vireid.db"
    if settings.database_url is None:
        return SqlStore(f"sqlite:///{file}", encryption)
    stack.enter_context(DirectoryLock(settings.data_dir))
    if file.exists():
        log.warning("%s is not used: VIREID_DATABASE_URL names another database", file)
    return SqlStore(settings.database_url.get_secret_value(), encryption)


def _load_models(settings: Settings, metrics: Metrics) -> Models:
    gpu = Gpu(settings.gpu_memory, settings.data_dir / "engines")
    embedders = [
        load_embedders(
            settings.model_dir,
            precision=settings.precision,
            device=device,
            threads=settings.threads,
            gpu=gpu,
            callers=3 if _cores(settings) == 1 else 1,  # single queries, and the lanes of both priorities
        )
        for device in each_device(settings.device)
    ]
    on_cpu = all(embedder.provider in CPU_PROVIDERS for each in embedders for embedder in each.values())
    return Models(
        embedders,
        settings.model,
        ImageLimits(settings.max_image_bytes, settings.max_pixels),
        metrics.batch,
        lanes=_cpu_lanes(settings, embedders[0]) if on_cpu else None,
    )


def _cpu_lanes(settings: Settings, embedders: Mapping[str, Embedder]) -> CpuLanes:
    """Return one lane per core with sessions of one thread each; on a single core, the existing sessions are used."""
    count = _cores(settings)
    if count == 1:
        return CpuLanes(embedders, count)
    callers = count + 1  # one lane of imports continues while queries are processed
    found = load_embedders(settings.model_dir, precision=settings.precision, device="cpu", threads=1, callers=callers)
    return CpuLanes(found, count)


def _cores(settings: Settings) -> int:
    return settings.threads or usable_cores()


def _announce_access(settings: Settings, keys: ApiKeys) -> None:
    if not settings.auth_required:
        log.info(
            "no API keys are required: only this machine can reach %s; behind a proxy set VIREID_AUTH=required",
            settings.host,
        )
    elif not keys.any_admin():
        _, secret = keys.create("admin", frozenset({Scope.ADMIN}), None)
        sys.stdout.write(f"\nAdmin API key, shown only once:\n\n    {secret}\n\n")
        sys.stdout.flush()
