"""What a gallery may keep for so many days is gone after them, from the store and from searches."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.audit import Audit
from server.gallery.flat import FaissFlat
from server.gallery.retention import Retention
from server.gallery.service import Galleries
from server.gallery.store import SqlStore, Store
from server.gallery.types import Filter
from tests.server.gallery.making import DIMENSION, FINGERPRINT, new_items, search

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def galleries(store: Store) -> Galleries:
    opened = Galleries(store, FaissFlat)
    for name, days in (("kept", None), ("month", 30)):
        opened.create(name, model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, retention_days=days)
        aged = [replace(new, stored_at=NOW - timedelta(days=29 + 2 * (n % 2))) for n, new in enumerate(new_items(8))]
        opened.put(name, aged, fingerprint=FINGERPRINT)
    return opened


def ids(galleries: Galleries, name: str) -> list[str]:
    return [item.id for item in galleries.items(name, Filter(), limit=100)]


def test_what_is_older_than_the_retention_days_goes_and_the_rest_stays(galleries: Galleries) -> None:
    assert galleries.expire(NOW) == {"month": 4}
    assert ids(galleries, "month") == [f"item-{n:03d}" for n in range(0, 8, 2)]
    assert len(ids(galleries, "kept")) == 8
    assert galleries.get("month").items == 4
    assert galleries.expire(NOW) == {}


def test_what_has_expired_is_not_found_any_more(galleries: Galleries) -> None:
    galleries.expire(NOW)
    found = search(galleries, "month", new_items(2)[1].vector)
    assert sorted(hit.item.id for hit in found.hits) == ids(galleries, "month")


def test_an_item_that_is_stored_again_begins_anew(galleries: Galleries) -> None:
    again = replace(new_items(8)[1], stored_at=NOW - timedelta(days=1))
    galleries.put("month", [again], fingerprint=FINGERPRINT)
    assert galleries.expire(NOW) == {"month": 3}
    assert again.item.id in ids(galleries, "month")


def test_a_running_server_deletes_what_is_due_and_records_it(sql_store: SqlStore) -> None:
    opened, audit = Galleries(sql_store, FaissFlat), Audit(sql_store.engine)
    opened.create("day", model="m", fingerprint=FINGERPRINT, dimension=DIMENSION, retention_days=1)
    old, young = new_items(2)
    opened.put("day", [replace(old, stored_at=datetime.now(UTC) - timedelta(days=2)), young], fingerprint=FINGERPRINT)
    retention = Retention(opened, audit, interval_s=0.01)
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
