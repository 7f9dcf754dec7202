"""Item ids and printable names derived from paths."""

from __future__ import annotations

import re
from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.crop_files import InvalidPath, display_name, id_of, relative_path

VALID_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=200), min_size=1, max_size=4))
@example(["\ud800"])  # not possible in a file name, but in a pattern or an archive
@example(["\udcff.png"])  # a file name byte that is not UTF-8
def test_every_path_has_a_valid_stable_id(parts: list[str]) -> None:
    path = "/".join(parts)
    assert VALID_ID.fullmatch(id_of(path))
    assert id_of(path) == id_of(path)


def test_ids_are_readable_where_possible_and_unique() -> None:
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
def test_accepted_path_is_normalized_and_relative(name: str) -> None:
    with suppress(InvalidPath):
        path = relative_path(name)
        assert relative_path(path) == path
        assert not path.startswith("/")
        assert all(part not in ("", ".", "..") for part in path.split("/"))


@settings(max_examples=50)
@given(st.text())
@example("\x1b[2J\u202eetirw")
def test_shown_name_is_printable(name: str) -> None:
    assert display_name(name).isprintable()
    assert len(display_name(name)) <= 256
