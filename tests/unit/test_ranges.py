"""``Range``: what is valid, what is there, and the exact frame around several parts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import RangeNotSatisfiable
from service.ranges import MAX_RANGES, VERY_LARGE, Multipart, Span, content_range, live_span, spans

SIZE = 100
HUGE = "9" * 900


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 0)]),
        ("bytes=0-99", [(0, 99)]),
        ("bytes=0-100", [(0, 99)]),
        ("bytes=10-19", [(10, 19)]),
        ("bytes=007-010", [(7, 10)]),
        ("bytes=99-", [(99, 99)]),
        ("bytes=0-", [(0, 99)]),
        ("bytes=-1", [(99, 99)]),
        ("bytes=-100", [(0, 99)]),
        ("bytes=-101", [(0, 99)]),
        (f"bytes=-{HUGE}", [(0, 99)]),
        (f"bytes=5-{HUGE}", [(5, 99)]),
        ("BYTES=1-2", [(1, 2)]),
        (" \tBytes= 1-2\t", [(1, 2)]),
        ("bytes=1-2 ,\t4-5", [(1, 2), (4, 5)]),
        ("bytes=,,1-2,,", [(1, 2)]),
        ("bytes=0-0,-1", [(0, 0), (99, 99)]),
        ("bytes=50-59,10-19", [(50, 59), (10, 19)]),
        ("bytes=1-2,100-200", [(1, 2)]),
        ("bytes=1-2,-0", [(1, 2)]),
        ("bytes=10-19,20-29", [(10, 29)]),
        ("bytes=10-19,21-29", [(10, 19), (21, 29)]),
        ("bytes=20-29,10-19", [(10, 29)]),
        ("bytes=10-19,10-19,10-19", [(10, 19)]),
        ("bytes=90-,10-19,0-4,-95", [(0, 99)]),
        ("bytes=40-49,0-9,20-29,5-24", [(40, 49), (0, 29)]),
    ],
)
def test_what_is_sent(header: str, expected: list[tuple[int, int]]) -> None:
    assert spans(header, SIZE) == tuple(Span(*pair) for pair in expected)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=1",
        "bytes=--1",
        "bytes=1--2",
        "bytes=1-2-3",
        "bytes=2-1",
        "bytes=0-1,2-1",
        "bytes=200-100",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=1.0-2",
        "bytes=1 - 2",
        "bytes=\u0661-\u0662",
        "bytes=1-2;3-4",
        "bytes =1-2",
        "byte\u017f=1-2",
        "items=0-1",
        "none",
        "bytes=0-" + "9" * 5_000,
        "bytes=0-1\n",
    ],
)
def test_the_whole_is_sent(header: str | None) -> None:
    assert spans(header, SIZE) is None
    assert live_span(header) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=5-9", "bytes=-0"])
def test_of_an_empty_file_the_whole_is_sent(header: str) -> None:
    assert spans(header, 0) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=-0", "bytes=100-200,-0", f"bytes={HUGE}-"])
def test_nothing_is_there(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        spans(header, SIZE)
    assert caught.value.headers == {"Content-Range": "bytes */100"}


def test_so_many_ranges_and_no_more() -> None:
    asked = [f"{first}-{first}" for first in range(0, 2 * MAX_RANGES + 2, 2)]
    assert spans("bytes=" + ",".join(asked), 1_000) is None
    most = spans("bytes=,," + ",".join(asked[:-1]), 1_000)
    assert most is not None
    assert len(most) == MAX_RANGES


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-", (0, None)),
        ("bytes=0-0", (0, 0)),
        ("Bytes= 7-9 ", (7, 9)),
        (f"bytes=5-{VERY_LARGE - 1}", (5, VERY_LARGE - 1)),
        (f"bytes=5-{VERY_LARGE}", (5, None)),
        (f"bytes=5-{HUGE}", (5, None)),
        ("bytes=-5", None),
        ("bytes=0-1,2-3", None),
        ("bytes=0-,0-", None),
        (f"bytes={VERY_LARGE + 1}-{VERY_LARGE}", None),
    ],
)
def test_a_range_of_what_still_grows(header: str, expected: tuple[int, int | None] | None) -> None:
    assert live_span(header) == expected


def test_a_size_that_is_not_known_is_a_star() -> None:
    assert content_range(0, 9, 10) == "bytes 0-9/10"
    assert content_range(3, 4, None) == "bytes 3-4/*"


def test_the_frame_around_parts() -> None:
    """The example of RFC 9110, section 14.6, in our spelling."""
    frame = Multipart((Span(500, 999), Span(7000, 7999)), 8000, "application/pdf", "SEPARATES")
    assert frame.content_type == "multipart/byteranges; boundary=SEPARATES"
    kind = b"SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes "
    assert frame.heads() == [
        b"--" + kind + b"500-999/8000\r\n\r\n",
        b"\r\n--" + kind + b"7000-7999/8000\r\n\r\n",
    ]
    assert frame.tail() == b"\r\n--SEPARATES--\r\n"
    assert frame.length() == 500 + 1000 + 81 + 85 + 17


POSITIONS = st.integers(0, 60)
ASKED = st.one_of(
    st.tuples(POSITIONS, st.none()),
    st.tuples(st.none(), POSITIONS),
    st.tuples(POSITIONS, POSITIONS).filter(lambda pair: pair[0] <= pair[1]),
)


def model(first: int | None, last: int | None, size: int) -> set[int]:
    """The positions asked for, by slicing."""
    positions = range(size)
    if first is None:
        return set(positions[-last:]) if last else set()
    return set(positions[first:] if last is None else positions[first : last + 1])


def spelt(first: int | None, last: int | None) -> str:
    return f"{'' if first is None else first}-{'' if last is None else last}"


@given(asked=st.lists(ASKED, min_size=1, max_size=8), size=st.integers(1, 50))
@example(asked=[(20, 29), (40, 49), (0, 9), (5, 24)], size=50)
def test_spans_cover_exactly_what_was_asked(
    asked: list[tuple[int | None, int | None]], size: int
) -> None:
    wanted = [found for pair in asked if (found := model(*pair, size))]
    header = "bytes=" + ", ".join(spelt(*pair) for pair in asked)
    if not wanted:
        with pytest.raises(RangeNotSatisfiable):
            spans(header, size)
        return
    sent = [set(range(span.first, span.last + 1)) for span in spans(header, size) or ()]
    assert set().union(*sent) == set().union(*wanted)
    assert all(
        {*one, max(one) + 1}.isdisjoint(other) for one in sent for other in sent if one != other
    )
    places = [next(place for place, span in enumerate(sent) if found <= span) for found in wanted]
    assert list(dict.fromkeys(places)) == list(range(len(sent)))


@given(text=st.text(st.sampled_from("0123456789-,= \tbytes")), size=st.integers(0, 20))
@example(text="," * 60_000 + "x", size=9)
@example(text="1-2" + " " * 60_000 + "x", size=9)
def test_any_other_text_gives_spans_of_the_file_or_none(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            found = spans(header, size) or ()
        except RangeNotSatisfiable:
            continue
        assert all(0 <= span.first <= span.last < size for span in found)
