"""Banned words are found as whole words, with their line."""

from __future__ import annotations

from tests.language.banned_words import find, read_words


def test_whole_words_are_found_with_their_line() -> None:
    words = read_words("# a comment\nfoo bar = baz\nold = new\n")
    assert words == {"foo bar": "baz", "old": "new"}
    assert sorted(find("x\nFoo\nbar and OLD\nolder old-style\n", words)) == [(2, "foo bar"), (3, "old")]
