"""A server that does within milliseconds, and to a few items, what it else does to many and seldom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest.mock import patch

import server.app
from server.gallery import service, snapshots, store
from server.gallery.snapshots import Snapshots
from server.gallery.upkeep import Upkeep
from server.jobs.imports import images

__all__ = ["LEAST", "hurried"]

LEAST = 8
"""Rows of the smallest gallery that has a snapshot."""


@contextmanager
def hurried() -> Iterator[None]:
    """Servers made inside compact and write snapshots all the time, and do all that is done in parts in small ones."""
    with ExitStack() as stack:
        for where, name, value in (
            (server.app, "Snapshots", partial(Snapshots, least=LEAST)),
            (server.app, "Upkeep", partial(Upkeep, interval_s=0.02)),
            (service, "_SNAPSHOT_REST_S", 0.0),
            (service, "_CHANGED_SHARE", 0.02),
            (snapshots, "_ROWS", 32),
            (snapshots, "_CHUNK", 8),
            (store, "_BATCH", 10),
            (images, "GROUP", 16),
        ):
            stack.enter_context(patch.object(where, name, value))
        yield
