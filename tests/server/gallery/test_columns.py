"""A filter as a mask, and items out of columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.gallery.filters import matches
from server.gallery.index import BruteForce
from server.gallery.live import LiveGallery
from server.gallery.types import Filter, Item, Scalar
from tests.server.gallery.making import filters, items_strategy, passes, unit_vectors

item_lists = st.lists(items_strategy, max_size=20, unique_by=lambda item: item.id)


def _live(items: list[Item]) -> LiveGallery:
    live = LiveGallery(BruteForce(8))
    live.put(items, np.arange(len(items)), unit_vectors(len(items)), 1)
    return live


@settings(max_examples=120)
@given(item_lists, filters)
def test_a_mask_agrees_with_the_filter_said_plainly(items: list[Item], where: Filter) -> None:
    assert _live(items).view().allowed(where).tolist() == [passes(item, where) for item in items]


@settings(max_examples=40)
@given(item_lists)
def test_items_come_out_of_the_columns_as_they_went_in(items: list[Item]) -> None:
    view = _live(items).view()
    out = [view.item(row) for row in range(len(items))]
    assert out == items
    types = [{name: type(value) for name, value in item.attributes.items()} for item in out]
    assert types == [{name: type(value) for name, value in item.attributes.items()} for item in items]


@pytest.mark.parametrize(
    ("kept", "wanted", "same"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (0, False, False),
        (True, 1, False),
        (True, 1.0, False),
        (True, True, True),
        ("1", 1, False),
        ("true", True, False),
        (2**53, 2**53 + 1, False),
        ("é", "é", True),
    ],
)
def test_attributes_are_equal_as_json(kept: Scalar, wanted: Scalar, same: bool) -> None:
    item, where = Item("i", Modality.VISIBLE, attributes={"a": kept}), Filter(attributes={"a": wanted})
    assert _live([item]).view().allowed(where).tolist() == [same]
    assert matches(item, where) == passes(item, where) == same


def test_a_mask_is_the_callers_to_change() -> None:
    view = _live([Item("i", Modality.VISIBLE)]).view()
    view.allowed(Filter())[:] = False
    assert view.allowed(Filter()).tolist() == [True]
