"""A live gallery follows its writes, and its views never change."""

from __future__ import annotations

import sys
from functools import partial
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.domain.types import Filter, Item, Vectors
from server.gallery import columns
from server.gallery.columns import pack
from server.gallery.live_gallery import LiveGallery
from server.index.exact import ExactIndex
from tests.server.gallery.builders import (
    DIMENSION,
    START,
    filters,
    ids,
    items_strategy,
    new_items,
    passes,
    unit_vectors,
)


def _contents(live: LiveGallery) -> dict[str, tuple[Item, int, bytes]]:
    """Return everything visible: metadata, store row and vector of each item."""
    view = live.view()
    rows = np.flatnonzero(view.allowed(Filter()))
    vectors = view.index.vectors(rows)
    held = {
        view.ids[row]: (view.item(row), int(view.row[row]), vector.tobytes())
        for row, vector in zip(rows.tolist(), vectors, strict=True)
    }
    assert {id: view.row_of(id) for id in held} == {view.ids[row]: row for row in rows.tolist()}
    return held


def _put(live: LiveGallery, items: list[Item], vectors: Vectors, sequence: int) -> None:
    live.put(items, np.arange(len(items)) + 100 * sequence, vectors, sequence)


def _compacted(live: LiveGallery) -> LiveGallery:
    return live.compacted(partial(ExactIndex, DIMENSION))


def _packed_copy(live: LiveGallery) -> LiveGallery:
    """Return the same gallery rebuilt from its packed arrays, as from a snapshot."""
    view = live.view()
    return LiveGallery(view.index, pack(view, np.arange(len(view.alive))), view.sequence)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(items_strategy, max_size=4)),
        st.tuples(st.just("update"), items_strategy),
        st.tuples(st.just("delete"), st.frozensets(ids, max_size=3)),
        st.tuples(st.sampled_from(["compact", "pack"]), st.none()),
    ),
    max_size=15,
)


@pytest.fixture(autouse=True)
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep few recent values, so that others are looked up again."""
    monkeypatch.setattr(columns, "_MAX_RECENT", 2)


@settings(max_examples=40)
@given(steps, filters)
def test_memory_follows_any_writes_and_no_view_ever_changes(steps: list[tuple[str, object]], where: Filter) -> None:
    live, model = LiveGallery(ExactIndex(DIMENSION)), dict[str, tuple[Item, int, bytes]]()
    views = []
    for sequence, (action, what) in enumerate(steps, 1):
        if action == "put":
            assert isinstance(what, list)
            vectors = unit_vectors(len(what), seed=sequence)
            _put(live, what, vectors, sequence)
            rows = range(100 * sequence, 100 * sequence + len(what))
            model |= {
                item.id: (item, row, vector.tobytes()) for item, row, vector in zip(what, rows, vectors, strict=True)
            }
        elif action == "update":
            assert isinstance(what, Item)
            if what.id not in model:
                continue
            live.update(what, sequence)
            model[what.id] = (what, *model[what.id][1:])
        elif action == "delete":
            assert isinstance(what, frozenset)
            removed = sorted(what & model.keys())
            live.delete(removed, sequence)
            for id in removed:
                del model[id]
        else:
            live = _compacted(live) if action == "compact" else _packed_copy(live)
            assert (live.dead_share == 0) or action == "pack"
            assert _contents(live) == model
            continue
        assert live.sequence == sequence
        assert _contents(live) == model
        view = live.view()
        views.append((view, view.allowed(where).tolist(), [view.item(row) for row in range(len(view.alive))]))
    for view, mask, items in views:
        assert view.allowed(where).tolist() == mask
        assert [view.item(row) for row in range(len(mask))] == items
    view = live.view()
    visible = {view.ids[row] for row in np.flatnonzero(view.allowed(where)).tolist()}
    assert visible == {id for id, (item, *_) in model.items() if passes(item, where)}


def test_the_row_of_an_item_belongs_to_its_view() -> None:
    live = LiveGallery(ExactIndex(DIMENSION))
    items = [new.item for new in new_items(3)]
    _put(live, items, unit_vectors(3), 1)
    before = live.view()
    _put(live, items[1:2], unit_vectors(1, seed=7), 2)
    live.delete(["item-002"], 3)
    view = live.view()
    assert [before.row_of(id) for id in ("item-001", "item-002")] == [1, 2]
    assert [view.row_of(id) for id in ("item-001", "item-002", "item-009")] == [3, None, None]
    np.testing.assert_array_equal(view.index.vectors(np.array([3])), unit_vectors(1, seed=7))


def test_the_row_of_an_item_is_found_while_items_are_replaced() -> None:
    live = LiveGallery(ExactIndex(DIMENSION))
    items = [new.item for new in new_items(3000)]
    vectors = unit_vectors(3000)
    _put(live, items, vectors, 1)

    def write() -> None:
        for sequence in range(2, 25):
            _put(live, items, vectors, sequence)

    writer = Thread(target=write)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        writer.start()
        while writer.is_alive():
            view = live.view()
            row = view.row_of("item-000")
            assert row is not None
            assert view.alive[row]
            assert view.ids[row] == "item-000"
    finally:
        sys.setswitchinterval(usual)
        writer.join()


def test_packed_arrays_hold_nothing_of_dead_items() -> None:
    live = LiveGallery(ExactIndex(DIMENSION))
    secret = Item("secret-id", Modality.VISIBLE, "secret name", "secret camera", START, {"secret": "secret"})
    kept = Item("kept", Modality.VISIBLE, "some name", "some camera", START, {"some": "thing"})
    _put(live, [secret, kept], unit_vectors(2), 1)
    live.delete([secret.id], 2)
    view = live.view()
    for rows in (np.arange(2), np.flatnonzero(view.alive)):
        everything = b"".join(array.tobytes() for array in pack(view, rows).values())
        assert b"secret" not in everything
        assert b"some name" in everything


def test_keep_only_drops_items_the_store_lacks_and_refuses_unknown_rows() -> None:
    live = LiveGallery(ExactIndex(DIMENSION))
    _put(live, [new.item for new in new_items(4)], unit_vectors(4), 1)
    assert live.keep_only(np.array([100, 103]), 7) == 2
    assert (sorted(_contents(live)), live.sequence) == (["item-000", "item-003"], 7)
    with pytest.raises(ValueError, match="in memory"):
        live.keep_only(np.array([100, 103, 104]), 8)
    with pytest.raises(ValueError, match="in memory"):
        live.delete(["item-001"], 8)
    with pytest.raises(ValueError, match="item-001 is not in memory"):
        live.update(new_items(2)[1].item, 8)


def test_replaced_and_deleted_rows_are_counted_as_dead() -> None:
    live = LiveGallery(ExactIndex(DIMENSION))
    assert live.dead_share == 0
    items = [new.item for new in new_items(8)]
    _put(live, items, unit_vectors(8), 1)
    _put(live, items[:1], unit_vectors(1), 2)
    live.delete([items[5].id], 3)
    assert live.dead_share == pytest.approx(2 / 9)
