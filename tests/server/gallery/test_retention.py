"""Retention: expired items are deleted from the store and from searches."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.domain.types import Filter
from server.gallery.galleries import Galleries
from server.gallery.maintenance import start_retention
from server.index.exact import ExactIndex
from server.storage.audit_log import AuditLog
from server.storage.sql_store import SqlStore, Store
from tests.server.gallery.builders import DIMENSION, FINGERPRINT, new_items, search

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def galleries(store: Store) -> Galleries:
    opened = Galleries(store, ExactIndex)
    for name, days in (("kept", None), ("month", 30)):
        opened.catalog.create(name, model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, retention_days=days)
        aged = [replace(new, stored_at=NOW - timedelta(days=29 + 2 * (n % 2))) for n, new in enumerate(new_items(8))]
        opened.writer.put(name, aged, fingerprint=FINGERPRINT)
    return opened


def ids(galleries: Galleries, name: str) -> list[str]:
    return [item.id for item in galleries.query.items(name, Filter(), limit=100)]


def test_only_items_older_than_the_retention_days_are_deleted(galleries: Galleries) -> None:
    assert galleries.erasure.expire(NOW) == {"month": 4}
    assert ids(galleries, "month") == [f"item-{n:03d}" for n in range(0, 8, 2)]
    assert len(ids(galleries, "kept")) == 8
    assert galleries.catalog.get("month").items == 4
    assert galleries.erasure.expire(NOW) == {}


def test_search_skips_expired_items(galleries: Galleries) -> None:
    galleries.erasure.expire(NOW)
    found = search(galleries, "month", new_items(2)[1].vector)
    assert sorted(hit.item.id for hit in found.hits) == ids(galleries, "month")


def test_retention_of_a_replaced_item_starts_again(galleries: Galleries) -> None:
    again = replace(new_items(8)[1], stored_at=NOW - timedelta(days=1))
    galleries.writer.put("month", [again], fingerprint=FINGERPRINT)
    assert galleries.erasure.expire(NOW) == {"month": 3}
    assert again.item.id in ids(galleries, "month")


def test_a_running_server_deletes_expired_items_and_records_it(sql_store: SqlStore) -> None:
    opened, audit = Galleries(sql_store, ExactIndex), AuditLog(sql_store.engine)
    opened.catalog.create("day", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, retention_days=1)
    old, young = new_items(2)
    opened.writer.put(
        "day", [replace(old, stored_at=datetime.now(UTC) - timedelta(days=2)), young], fingerprint=FINGERPRINT
    )
    retention = start_retention(opened.erasure, audit, interval_s=0.01)
    try:
        for _ in range(500):
            if ids(opened, "day") == [young.item.id] and audit.list(10):
                break
            time.sleep(0.01)
    finally:
        retention.close()
    assert ids(opened, "day") == [young.item.id]
    (entry,) = audit.list(10)
    assert (entry.action, entry.gallery, entry.detail) == ("items.expire", "day", {"deleted": 1})
