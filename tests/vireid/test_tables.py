"""Answers as rows and as pandas tables."""

from __future__ import annotations

import pytest

from tests.server.image_files import crop
from vireid.client import Client, ItemFields, to_pandas, to_rows


@pytest.fixture
def filled(client: Client, gallery: str) -> str:
    fields = [ItemFields(id=f"p{n}", modality="visible", attributes={"site": "north"}) for n in range(3)]
    client.add_items(gallery, [(crop(n), one) for n, one in enumerate(fields)])
    return gallery


def test_hits_and_items_are_flat_rows(client: Client, filled: str) -> None:
    rows = to_rows(client.search(filled, item_id="p0"))
    assert [row["rank"] for row in rows] == [1, 2]
    assert {row["item.attributes.site"] for row in rows} == {"north"}
    assert [row["id"] for row in to_rows(client.items(filled))] == ["p0", "p1", "p2"]


def test_hits_are_a_pandas_table(client: Client, filled: str) -> None:
    table = to_pandas(client.search(filled, item_id="p0"))
    assert table.shape[0] == 2
    assert table["score"].is_monotonic_decreasing
    assert set(table["item.id"]) == {"p1", "p2"}
