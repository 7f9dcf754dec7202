"""Item ids and harmless names from paths."""

from __future__ import annotations

import re
from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.errors import EntryRejected
from server.jobs.imports.naming import checked_path, id_of, shown

VALID_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=200), min_size=1, max_size=4))
@example(["\ud800"])  # no name of a file, but of a pattern or an archive it may be
@example(["\udcff.png"])  # a byte of a file name that is no UTF-8
def test_every_path_makes_a_valid_id_that_stays_the_same(parts: list[str]) -> None:
    path = "/".join(parts)
    assert VALID_ID.fullmatch(id_of(path))
    assert id_of(path) == id_of(path)


def test_ids_are_readable_where_possible_and_never_meet() -> None:
    long = "x" * 200
    paths = [
        "a/b.png", "a:b.png", "a_b.png", "a b.png", "ä_b.png", "a/b c.png", "a/b_c.png", "a/b/c.png",
        f"{long}1.png", f"{long}2.png", f"{long}/1.png",
    ]  # fmt: skip
    assert id_of("a/b.png") == "a:b.png"
    assert len({id_of(path) for path in paths}) == len(paths)


@settings(max_examples=50)
@given(st.text(max_size=60))
@example("a\ud800")
def test_a_path_is_taken_whole_and_plain_or_not_at_all(name: str) -> None:
    with suppress(EntryRejected):
        path = checked_path(name)
        assert checked_path(path) == path
        assert not path.startswith("/")
        assert all(part not in ("", ".", "..") for part in path.split("/"))


@settings(max_examples=50)
@given(st.text())
@example("\x1b[2J\u202eetirw")
def test_a_name_that_is_shown_can_be_printed(name: str) -> None:
    assert shown(name).isprintable()
    assert len(shown(name)) <= 256
