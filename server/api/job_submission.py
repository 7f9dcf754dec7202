"""Submission of jobs: storing an uploaded body and queueing the job."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from server.api.app_state import AppState
from server.api.auth import Caller
from server.domain.errors import StorageFull
from server.jobs.runner import PendingJob
from server.jobs.types import Job
from server.jobs.upload import start_upload
from server.storage.encryption import Encryption
from server.storage.files import fsync_directory

__all__ = ["UPLOAD_PATHS", "store_body", "submit"]

UPLOAD_PATHS = re.compile(r"/v1/galleries/[^/]+/(imports|restore)")
"""Paths whose bodies are stored on disk and limited by ``max_import_bytes``."""

_BUFFER = 2**20
_SYNC_EVERY = 256 * 2**20


async def store_body(request: Request, path: Path, encryption: Encryption) -> None:
    """Write the body of a request to a new file (``Upload``), in constant memory; it is durable when this returns.

    Raises:
        StorageFull: the disk has no room for it.
    """
    try:
        if int(request.headers.get("content-length", 0)) > shutil.disk_usage(path.parent).free:
            raise StorageFull
        with path.open("xb", buffering=_BUFFER) as file:
            write, unsynced = start_upload(file, encryption), 0
            async for block in request.stream():
                await run_in_threadpool(write, block)
                unsynced += len(block)
                if unsynced >= _SYNC_EVERY:  # so that the last sync does not wait for gigabytes
                    await run_in_threadpool(_sync, file)
                    unsynced = 0
            await run_in_threadpool(_sync, file)
            for directory in (path.parent, path.parent.parent):
                await run_in_threadpool(fsync_directory, directory)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull from error
        raise


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def submit(
    state: AppState, caller: Caller, pending: PendingJob, kind: str, gallery: str, parameters: Mapping[str, object]
) -> Job:
    """Queue a job and record it in the audit log."""
    job = pending.submit(kind, gallery, parameters, caller.key_id)
    state.audit.record(caller.key_id, "job.create", gallery, {"job": job.id, "kind": job.kind})
    return job
