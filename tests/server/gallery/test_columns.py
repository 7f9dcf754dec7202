"""Filters as masks, and items read from columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.card import Modality
from server.domain.filters import matches
from server.domain.types import Filter, Item, Scalar
from server.gallery.live_gallery import LiveGallery
from server.index.protocol import BruteForceIndex
from tests.server.gallery.builders import filters, items_strategy, passes, unit_vectors

item_lists = st.lists(items_strategy, max_size=20, unique_by=lambda item: item.id)


def _live(items: list[Item]) -> LiveGallery:
    live = LiveGallery(BruteForceIndex(8))
    live.put(items, np.arange(len(items)), unit_vectors(len(items)), 1)
    return live


@settings(max_examples=120)
@given(item_lists, filters)
def test_a_mask_agrees_with_the_reference_filter(items: list[Item], where: Filter) -> None:
    assert _live(items).view().allowed(where).tolist() == [passes(item, where) for item in items]


@settings(max_examples=40)
@given(item_lists)
def test_items_read_from_the_columns_equal_the_originals(items: list[Item]) -> None:
    view = _live(items).view()
    out = [view.item(row) for row in range(len(items))]
    assert out == items
    types = [{name: type(value) for name, value in item.attributes.items()} for item in out]
    assert types == [{name: type(value) for name, value in item.attributes.items()} for item in items]


@pytest.mark.parametrize(
    ("stored", "filtered", "same"),
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
def test_attributes_are_equal_as_json(stored: Scalar, filtered: Scalar, same: bool) -> None:
    item, where = Item("i", Modality.VISIBLE, attributes={"a": stored}), Filter(attributes={"a": filtered})
    assert _live([item]).view().allowed(where).tolist() == [same]
    assert matches(item, where) == passes(item, where) == same


def test_changing_a_mask_does_not_change_the_view() -> None:
    view = _live([Item("i", Modality.VISIBLE)]).view()
    view.allowed(Filter())[:] = False
    assert view.allowed(Filter()).tolist() == [True]
