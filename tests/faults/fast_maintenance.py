"""A server whose maintenance runs within milliseconds and on few items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest.mock import patch

import server.app
from server.gallery import maintenance, snapshots
from server.gallery.maintenance import start_maintenance
from server.gallery.snapshots import SnapshotDirectory
from server.jobs.imports import images
from server.storage import sql_galleries, sql_reembedding

__all__ = ["LEAST", "fast_maintenance"]

LEAST = 8
"""Rows of the smallest gallery that has a snapshot."""


@contextmanager
def fast_maintenance() -> Iterator[None]:
    """Make servers compact and write snapshots continuously, and work in small batches."""
    with ExitStack() as stack:
        for where, name, value in (
            (server.app, "SnapshotDirectory", partial(SnapshotDirectory, least=LEAST)),
            (server.app, "start_maintenance", partial(start_maintenance, interval_s=0.02)),
            (maintenance, "_SNAPSHOT_PAUSE_S", 0.0),
            (maintenance, "_MAX_CHANGED_SHARE", 0.02),
            (snapshots, "_ROWS", 32),
            (snapshots, "_CHUNK", 8),
            (sql_galleries, "_BATCH", 10),
            (sql_reembedding, "_BATCH", 10),
            (images, "GROUP", 16),
        ):
            stack.enter_context(patch.object(where, name, value))
        yield
