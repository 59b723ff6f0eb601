"""The query string: decoded once, as UTF-8, and every mistake with its place."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.query_string import MAX_PARAMETERS, query_parameters
from service.errors import InvalidParameter

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def read(query: bytes) -> list[tuple[str, str]]:
    return query_parameters(Request({"type": "http", "query_string": query, "headers": []}))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", []),
        (b"&&", []),
        (b"a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"a", [("a", "")]),
        (b"a=", [("a", "")]),
        (b"=b", [("", "b")]),
        (b"a=b=c", [("a", "b=c")]),
        (b"a=1+2%2B3", [("a", "1 2+3")]),
        (b"a=%2525", [("a", "%25")]),
        (b"a=%zz%", [("a", "%zz%")]),
        (b"a;b=1", [("a;b", "1")]),
        ("ä=ü".encode(), [("ä", "ü")]),
    ],
)
def test_what_it_says(query: bytes, expected: list[tuple[str, str]]) -> None:
    assert read(query) == expected


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_what_was_encoded_is_read_back(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
    assert read(query.encode()) == pairs


@pytest.mark.parametrize(
    ("query", "parameter", "character"),
    [
        (b"name=eq.%C3%A4%FF", "name", 5),
        (b"a=1&%FFb=1", "\ufffdb", 1),
        (b"name=\xff", "name", 1),
        (b"&".join([b"a=1"] * (MAX_PARAMETERS + 1)), "query", 4 * MAX_PARAMETERS + 1),
    ],
)
def test_a_mistake_has_a_place(query: bytes, parameter: str, character: int) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(query)
    assert caught.value.members["parameter"] == parameter
    assert caught.value.members["character"] == character
