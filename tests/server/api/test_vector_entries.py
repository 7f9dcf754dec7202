from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.vector_entries import json_entries, longest_entry, ndjson_entries
from server.domain.errors import ServiceError
from server.domain.validation import InvalidRequest

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_entries_are_those_of_the_json_library(entries: list[Any], indent: int | None, ascii_only: bool) -> None:
    body = json.dumps({"items": entries}, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert list(json_entries(body, 10_000)) == json.loads(body.decode("utf-8", "surrogatepass"))["items"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"items": 1}',
        b'{"items": [',
        b'{"items": [1',
        b'{"items": [1,',
        b'{"items": [1,]}',
        b'{"items": [1 2]}',
        b'{"items": [1], "x": 1}',
        b'{"items": []',
        b'{"items": [] 1}',
        b'{"items": [1]} 1',
        b'{"items": [nope]}',
        b'{"items": [' + b"[" * 200_000,
        b'{"items": [' + b"9" * 10_000 + b"]}",
    ],
)
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        list(json_entries(body, 1_000_000))


def test_an_entry_that_is_too_long_is_refused_and_named() -> None:
    body = b'{"items": [1, [' + b"0," * 1000 + b"0]]}"
    with pytest.raises(InvalidRequest, match="has more than 100 bytes"):
        list(json_entries(body, 100))
    first, second, third = ndjson_entries(b"[1]\n\n" + b" " * 98 + b"12\n[3]", 100)
    assert (first, third) == (b"[1]\n", b"[3]")
    assert isinstance(second, ServiceError)


@pytest.mark.parametrize("read", [json_entries, ndjson_entries])
def test_many_numbers_need_little_memory(read: Any) -> None:
    vector = b"[" + b"0," * 65_535 + b"0]"
    body = b'{"items": [' + b",".join([vector] * 50) + b"]}" if read is json_entries else b"\n".join([vector] * 50)
    longest = longest_entry(4096)
    tracemalloc.start()
    assert sum(1 for _ in read(body, longest)) == 50
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (len(body) if read is ndjson_entries else 5_000_000)
