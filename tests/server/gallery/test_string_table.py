"""The string table against a list."""

from __future__ import annotations

import sys
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gallery import string_table as strings
from server.gallery.string_table import StringTable

texts = st.lists(st.sampled_from(["", "a", "b", "ab", "ä", "名前", "a" * 50]) | st.text(max_size=3), max_size=30)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the limits, so that a few strings cover merging, growth and reading in pieces."""
    monkeypatch.setattr(strings, "_MIN_CAPACITY", 4)
    monkeypatch.setattr(strings, "_CHUNK", 3)


def _empty() -> StringTable:
    return StringTable(np.empty(0, np.uint8), np.empty(0, np.int64))


def _found(held: StringTable, strings: list[str]) -> list[tuple[int, int]]:
    return sorted(zip(*(part.tolist() for part in held.find(strings)), strict=True))


@settings(max_examples=100)
@given(st.lists(texts, max_size=8), texts, st.data())
def test_a_string_table_behaves_like_a_list(batches: list[list[str]], strings: list[str], data: st.DataObject) -> None:
    held, model = _empty(), list[str]()
    for batch in batches:
        held.append(batch)
        model += batch
        assert list(held) == held[:] == model
        places = [(n, number) for n, one in enumerate(strings) for number, other in enumerate(model) if one == other]
        assert _found(held, strings) == places
    numbers = data.draw(st.lists(st.integers(-1, len(model) - 1), max_size=12))
    taken = StringTable(*held.take(np.array(numbers, np.int64)))
    expected = ["" if number < 0 else model[number] for number in numbers]
    assert list(taken) == expected
    taken.append(["more"])
    assert _found(taken, ["more"]) == [(0, number) for number, one in enumerate([*expected, "more"]) if one == "more"]


def test_strings_with_equal_hashes_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_hash", lambda _string: 7)
    held = _empty()
    model = [f"s{n % 5}" for n in range(30)]
    for one in model:
        held.append([one])
    assert _found(held, ["s3", "absent", "s0"]) == [(0, n) for n in range(3, 30, 5)] + [(2, n) for n in range(0, 30, 5)]


def test_a_number_keeps_its_meaning_while_strings_are_added() -> None:
    held, added = _empty(), [0]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write() -> None:
        for n in range(0, 3000, 3):
            held.append([f"s{n}", f"s{n + 1}", f"s{n + 2}"])
            added[0] = n + 3

    writer = Thread(target=write)
    try:
        writer.start()
        while writer.is_alive():
            known = added[0]
            if known:
                assert held[known - 1] == f"s{known - 1}"
                assert _found(held, ["s0", f"s{known - 1}"]) == [(0, 0), (1, known - 1)]
    finally:
        sys.setswitchinterval(usual)
        writer.join()


def test_reading_an_unknown_number_is_an_error() -> None:
    with pytest.raises(IndexError):
        _empty()[0]
    with pytest.raises(ValueError, match="step 1"):
        _empty()[::2]
