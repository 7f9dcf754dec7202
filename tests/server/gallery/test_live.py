"""A gallery in memory follows its writes, and a view of it never changes."""

from __future__ import annotations

import sys
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gallery.flat import FaissFlat
from server.gallery.live import LiveGallery
from server.gallery.types import Filter, Item
from tests.server.gallery.making import DIMENSION, filters, ids, items_strategy, new_items, passes, unit_vectors


def _held(live: LiveGallery) -> dict[str, tuple[Item, bytes]]:
    """Everything visible: of each item its facts and its vector."""
    view = live.view()
    rows = np.flatnonzero(view.allowed(Filter()))
    vectors = view.index.vectors(rows)
    return {
        view.ids[row]: (view.item(row), vector.tobytes()) for row, vector in zip(rows.tolist(), vectors, strict=True)
    }


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(items_strategy, max_size=4)),
        st.tuples(st.just("update"), items_strategy),
        st.tuples(st.just("delete"), st.frozensets(ids, max_size=3)),
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(steps, filters)
def test_memory_follows_any_writes_and_no_view_ever_changes(steps: list[tuple[str, object]], where: Filter) -> None:
    live, model = LiveGallery(FaissFlat(DIMENSION)), dict[str, tuple[Item, bytes]]()
    views = []
    for sequence, (action, what) in enumerate(steps, 1):
        if action == "put":
            assert isinstance(what, list)
            vectors = unit_vectors(len(what), seed=sequence)
            live.put(what, vectors, sequence)
            model |= {item.id: (item, vector.tobytes()) for item, vector in zip(what, vectors, strict=True)}
        elif action == "update":
            assert isinstance(what, Item)
            if what.id not in model:
                continue
            live.update(what, sequence)
            model[what.id] = (what, model[what.id][1])
        else:
            assert isinstance(what, frozenset)
            gone = sorted(what & model.keys())
            live.delete(gone, sequence)
            for id in gone:
                del model[id]
        assert live.sequence == sequence
        assert _held(live) == model
        view = live.view()
        views.append((view, view.allowed(where).tolist(), [view.item(row) for row in range(len(view.alive))]))
    for view, mask, items in views:
        assert view.allowed(where).tolist() == mask
        assert [view.item(row) for row in range(len(mask))] == items
    view = live.view()
    visible = {view.ids[row] for row in np.flatnonzero(view.allowed(where)).tolist()}
    assert visible == {id for id, (item, _) in model.items() if passes(item, where)}


def test_the_row_of_an_item_belongs_to_the_view_it_came_with() -> None:
    live = LiveGallery(FaissFlat(DIMENSION))
    items = [new.item for new in new_items(3)]
    live.put(items, unit_vectors(3), 1)
    live.put(items[1:2], unit_vectors(1, seed=7), 2)
    view, row = live.view_and_row("item-001")
    assert row is not None
    assert (view.ids[row], view.alive[row]) == ("item-001", True)
    np.testing.assert_array_equal(view.index.vectors(np.array([row])), unit_vectors(1, seed=7))
    assert live.view_and_row("item-009")[1] is None
    assert live.view_and_row(None)[1] is None


def test_view_and_row_are_of_one_moment_while_items_are_replaced() -> None:
    live = LiveGallery(FaissFlat(DIMENSION))
    items = [new.item for new in new_items(3000)]
    vectors = unit_vectors(3000)
    live.put(items, vectors, 1)

    def write() -> None:
        for sequence in range(2, 25):
            live.put(items, vectors, sequence)

    writer = Thread(target=write)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        writer.start()
        while writer.is_alive():
            view, row = live.view_and_row("item-000")
            assert row is not None
            assert view.alive[row : row + 1].all()
            assert len(view.alive) > row
    finally:
        sys.setswitchinterval(usual)
        writer.join()


def test_replaced_and_deleted_rows_are_counted_as_dead() -> None:
    live = LiveGallery(FaissFlat(DIMENSION))
    assert live.dead_share == 0
    items = [new.item for new in new_items(8)]
    live.put(items, unit_vectors(8), 1)
    live.put(items[:1], unit_vectors(1), 2)
    live.delete([items[5].id], 3)
    assert live.dead_share == pytest.approx(2 / 9)
