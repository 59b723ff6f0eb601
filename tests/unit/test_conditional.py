"""``If-None-Match``: lists, weak tags, and what is no list at all."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.preconditions import entity_tag, names

TAG = '"a"'
OPAQUE = st.text(st.sampled_from([chr(code) for code in (0x21, *range(0x23, 0x7F), 0x80, 0xFF)]))
GAPS = st.text(" \t", max_size=2)


@pytest.mark.parametrize(
    "field",
    [
        '"a"',
        'W/"a"',
        '  "a"\t',
        '"b", "a"',
        '"b","a"',
        '"b" ,\t"a" , "c"',
        '"b", W/"a"',
        ', ,"a", ,',
        '"x,y", "a"',
        '"b,", "a"',
        '"\xff", "a"',
        "*",
        " * ",
    ],
)
def test_a_field_that_names_the_tag(field: str) -> None:
    assert names(field, TAG)


@pytest.mark.parametrize(
    "field",
    [
        "",
        ",",
        '"b"',
        '"A"',
        '"ab"',
        '""',
        "a",
        'w/"a"',
        'W/ "a"',
        'W"a"',
        '"a',
        'a"',
        '"a" "a"',
        '"a""b"',
        '"b", "a" x',
        'x, "a"',
        '"a", *',
        '*, "a"',
        '"x, "a"',
        "'a'",
        '"b\x7f", "a"',
        '"b c", "a"',
        '"a"\n',
        '"€", "a"',
        '"b"; "a"',
    ],
)
def test_a_field_that_does_not(field: str) -> None:
    """Also what keeps to no grammar: then the whole answer is sent, which is never wrong."""
    assert not names(field, TAG)


@pytest.mark.parametrize(("tag", "found"), [('"a,b"', True), ('"a"', False), ('"b"', False)])
def test_a_comma_inside_of_a_tag_parts_nothing(tag: str, found: bool) -> None:  # noqa: FBT001 - a column of the table
    assert names('"a,b"', tag) is found


def test_a_tag_is_of_exactly_these_bytes() -> None:
    assert entity_tag(b"{}") == f'"{hashlib.sha256(b"{}").hexdigest()}"'
    assert entity_tag(b"{}") != entity_tag(b"{} ")


@given(tags=st.lists(st.tuples(GAPS, st.sampled_from(["", "W/"]), OPAQUE, GAPS)), tag=OPAQUE)
@example(tags=[("", "", ",", ""), ("", "", "", "")], tag="")
def test_a_list_names_what_stands_in_it(tags: list[tuple[str, str, str, str]], tag: str) -> None:
    field = ",".join(f'{before}{weak}"{opaque}"{after}' for before, weak, opaque, after in tags)
    assert names(field, f'"{tag}"') is (tag in {opaque for _, _, opaque, _ in tags})


@given(field=st.text(st.characters(codec="latin-1")), body=st.binary(max_size=9))
@example(field='"' * 4_000, body=b"")
@example(field=', "x"' * 4_000, body=b"")
@example(field="," + " " * 30_000 + "x", body=b"")
def test_any_other_text_names_nothing_and_takes_no_time(field: str, body: bytes) -> None:
    assert names(field, entity_tag(body)) is (field.strip(" \t") == "*")
