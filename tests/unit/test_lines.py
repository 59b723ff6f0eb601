"""JSON lines: exact bytes and counts, whatever the blocks are that the lines come in."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.download.lines import JsonLines
from service.errors import BadLine
from tests.splitting import CUTS, Cuts, split

BOM = b"\xef\xbb\xbf"
WIDE = 10_000  # no line of these tests is longer, but for those that are meant to be

FRAMING = [
    (b"", WIDE, b"", 0, 0),
    (b"1", WIDE, b"1\n", 1, 0),
    (b"1\n", WIDE, b"1\n", 1, 0),
    (b"1\n2\n", WIDE, b"1\n2\n", 2, 0),
    (b"1\n2", WIDE, b"1\n2\n", 2, 0),
    (b"1\r\n2\r\n3\r", WIDE, b"1\n2\n3\n", 3, 0),
    (b"1\r\r\n", WIDE, b"1\n", 1, 0),
    (b" 1\t \n\t 2 \r\n  3  ", WIDE, b"1\n2\n3\n", 3, 0),
    (b"\n\n1\n\n\n2\n\n", WIDE, b"1\n2\n", 2, 0),
    (b" \n\t\n\r\n \r\n1\n ", WIDE, b"1\n", 1, 0),
    (b"\n", WIDE, b"", 0, 0),
    (b"\r", WIDE, b"", 0, 0),
    (b" \t ", WIDE, b"", 0, 0),
    (b"1\r2\r", WIDE, b"", 0, 1),  # CR alone ends no line
    (b"[1,\r2]\n", WIDE, b"[1,\r2]\n", 1, 0),
    (b'{"a" : [ 1 , 2 ]}\n', WIDE, b'{"a" : [ 1 , 2 ]}\n', 1, 0),
    ('"\u2028\x85"\n'.encode(), WIDE, '"\u2028\x85"\n'.encode(), 1, 0),  # nor do these
]

BYTE_ORDER_MARKS = [
    (BOM, WIDE, b"", 0, 0),
    (BOM + b"1\n2\n", WIDE, b"1\n2\n", 2, 0),
    (BOM + b" 1", WIDE, b"1\n", 1, 0),
    (BOM + b"\n1\n", WIDE, b"1\n", 1, 0),
    (BOM + b"123\n", 3, b"123\n", 1, 0),
    (BOM + BOM + b"1\n2\n", WIDE, b"2\n", 1, 1),
    (b" " + BOM + b"1\n2\n", WIDE, b"2\n", 1, 1),
    (b"\n" + BOM + b"1\n2\n", WIDE, b"2\n", 1, 1),
    (b"1\n" + BOM + b"2\n3\n", WIDE, b"1\n3\n", 2, 1),
    (BOM[:1], WIDE, b"", 0, 1),
    (BOM[:2], WIDE, b"", 0, 1),
    (BOM[:2] + b"\n1\n", WIDE, b"1\n", 1, 1),
    (b"\xff\xfe1\x00\n\x00", WIDE, b"", 0, 2),  # UTF-16
]

MALFORMED = [
    (b"1\nx\n2\n", WIDE, b"1\n2\n", 2, 1),
    (b"x", WIDE, b"", 0, 1),
    (b'{"a":1', WIDE, b"", 0, 1),
    (b'{"a":\n1}\n', WIDE, b"", 0, 2),
    (b'"a\nb"\n', WIDE, b"", 0, 2),
    (b"1,2\n", WIDE, b"", 0, 1),
    (b"1 2\n", WIDE, b"", 0, 1),
    (b"1],[2\n", WIDE, b"", 0, 1),
    (b"[1\n2]\n", WIDE, b"", 0, 2),
    (b"1,2\n[3\n4]\n5\n", WIDE, b"5\n", 1, 3),
    (b"[[1\n2]]\n1],[2\n", WIDE, b"", 0, 3),
    (b'"a\n,b"\n', WIDE, b"", 0, 2),
    (b"[1,]\n", WIDE, b"", 0, 1),
    (b"\x0c1\n\x0b2\n3\x00\n\xc2\xa04\n", WIDE, b"", 0, 4),  # other white space
    (b'"\xff"\n"\xc0\x80"\n"\xed\xa0\x80"\n"\xf4\x90\x80\x80"\n', WIDE, b"", 0, 4),  # not UTF-8
    ("€".encode() + b'\n"\xe2\x82\n\xac"\n', WIDE, b"", 0, 3),
    (b'"\t"\n"\r"\n"\x00"\n"\x1f"\n', WIDE, b"", 0, 4),
    (b"NaN\nInfinity\n-Infinity\nnan\nTrue\nnul\n", WIDE, b"", 0, 6),
    (b"01\n1.\n.1\n+1\n0x1\n1e\n-\n", WIDE, b"", 0, 7),
    (b"'a'\n{a:1}\n{1:2}\n/**/1\n1//\n", WIDE, b"", 0, 5),
]

# What the grammar allows and RFC 8259 leaves to the reader, and what others are known to change.
ALLOWED = [
    b'"\\ud83d\\ude00"',
    b'"\\u0000"',
    b'"\x7f"',
    b'"\xef\xbb\xbf"',
    b'"\xef\xbf\xbf"',
    b'"\\/\\b"',
    b'{"a":1,"a":2}',
    b'{"":0}',
    b"18446744073709551616",
    b"9" * 300,
    b"0." + b"3" * 300,
    b"-0",
    b"-0.0",
    b"1E5",
    b"1e-999",
    b"1.0e+2",
    b"[" * 1024 + b"]" * 1024,
    b'{"a":' * 1024 + b"1" + b"}" * 1024,
    b"null",
    b'""',
]
REFUSED = [
    b'"\\ud800"',
    b'"\\udc00"',
    b'"\\ud800\\ud800"',
    b'"\\ud800x"',
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b"[" * 1025 + b"]" * 1025,
    b'{"a":' * 1025 + b"1" + b"}" * 1025,
    b"[" * 3_000,
]
READERS = [
    *((value + b"\n", WIDE, value + b"\n", 1, 0) for value in ALLOWED),
    *((value + b"\n0\n", WIDE, b"0\n", 1, 1) for value in REFUSED),
]

LONG = [
    (b"123\n", 3, b"123\n", 1, 0),
    (b"123", 3, b"123\n", 1, 0),
    (b"1234\n", 3, b"", 0, 1),
    (b"1234", 3, b"", 0, 1),
    (b"123\r\n", 3, b"123\n", 1, 0),
    (b"123\r", 3, b"123\n", 1, 0),
    (b"1\n1234\n2\n", 3, b"1\n2\n", 2, 1),
    (b"1234\n5678\n", 3, b"", 0, 2),
    (b"1234\n\n5", 3, b"5\n", 1, 1),
    (b"[1,2,3,4,5,6,7]\n8\n", 3, b"8\n", 1, 1),
    (b"x" * 100 + b"\n8\n", 3, b"8\n", 1, 1),
    (b"1\n" * 40, 1, b"1\n" * 40, 40, 0),
    # The space around a line has no length; what is between its bytes has.
    (b"     123     \n", 3, b"123\n", 1, 0),
    (b"     123     ", 3, b"123\n", 1, 0),
    (b"     1234     \n5", 3, b"5\n", 1, 1),
    (b"1       \n2\n", 3, b"1\n2\n", 2, 0),
    (b"1       2\n3\n", 3, b"3\n", 1, 1),
    (b"1  \r\r\r\r x  \n3\n", 3, b"3\n", 1, 1),
    (b"[     ]\n[    ]\n", 6, b"[    ]\n", 1, 1),
    (b"          \n1\n          ", 3, b"1\n", 1, 0),
]

TABLE = [*FRAMING, *BYTE_ORDER_MARKS, *MALFORMED, *READERS, *LONG]

# Without skip: what is given before it is refused, and why.
MALFORMED_AT = "Line {} is malformed: it is not one JSON text."
LONGER_AT = "Line {} is longer than 3 bytes (max_line)."
REFUSALS = [
    (b"1\n2\n", b"1\n2\n", None),
    (b"x\n1\n", b"", MALFORMED_AT.format(1)),
    (b"x", b"", MALFORMED_AT.format(1)),
    (b"1\n2\nx\n3\n", b"1\n2\n", MALFORMED_AT.format(3)),
    (b"1\n\n \r\nx", b"1\n", MALFORMED_AT.format(4)),
    (b"\n\nx\ny\n1234\n", b"", MALFORMED_AT.format(3)),
    (BOM + b"1\nx\n", b"1\n", MALFORMED_AT.format(2)),
    (BOM[:2], b"", MALFORMED_AT.format(1)),
    (b"1\n1234\n5\n", b"1\n", LONGER_AT.format(2)),
    (b"1\n1234", b"1\n", LONGER_AT.format(2)),
    (b"\r\n\r\n[,,,,,,,\nx\n", b"", LONGER_AT.format(3)),
    (b"1\n2    3\nx\n", b"1\n", LONGER_AT.format(2)),
]


@dataclass(frozen=True, slots=True)
class Passed:
    """What was given, counted, and why it went no further; None: it reached the end."""

    data: bytes
    rows: int
    skipped: int
    refusal: str | None = None


def passed(pieces: Iterable[bytes], max_line: int, *, skip: bool = True) -> Passed:
    lines = JsonLines(max_line, skip=skip)
    made = []
    refusal = None
    try:
        for piece in pieces:
            made.append(lines.feed(piece))  # noqa: PERF401 - what was given before it is refused
        made.append(lines.finish())
    except BadLine as error:
        refusal = error.detail
    return Passed(b"".join(made), lines.rows, lines.skipped, refusal)


def cut(data: bytes, cuts: Cuts) -> list[bytes]:
    return [piece for piece, _ in split(data, cuts)]


def ways(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in every two pieces (in some hundred where it is long)."""
    yield [data]
    yield [data[place : place + 1] for place in range(len(data))]
    places = range(0, len(data) + 1, len(data) // 200 + 1)
    yield from ([data[:place], data[place:]] for place in places)


def reference(data: bytes, max_line: int) -> Passed:
    """The same by splitting the whole, with skip."""
    lines = [line.strip(b" \t\r") for line in data.removeprefix(BOM).split(b"\n")]
    filled = [line for line in lines if line]
    good = [line for line in filled if len(line) <= max_line and loads(line)]
    return Passed(b"".join(line + b"\n" for line in good), len(good), len(filled) - len(good))


def loads(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("data", "max_line", "expected", "rows", "skipped"),
    [pytest.param(*case, id=f"{number} {case[0][:20]!r}") for number, case in enumerate(TABLE)],
)
def test_lines_in_every_two_pieces(
    data: bytes, max_line: int, expected: bytes, rows: int, skipped: int
) -> None:
    for pieces in ways(data):
        assert passed(pieces, max_line) == Passed(expected, rows, skipped)
    assert reference(data, max_line) == Passed(expected, rows, skipped)


@given(st.sampled_from(TABLE), CUTS)
def test_lines_in_any_pieces(case: tuple[bytes, int, bytes, int, int], cuts: Cuts) -> None:
    data, max_line, expected, rows, skipped = case
    assert passed(cut(data, cuts), max_line) == Passed(expected, rows, skipped)


@pytest.mark.parametrize(
    ("data", "given", "refusal"), REFUSALS, ids=[repr(case[0]) for case in REFUSALS]
)
def test_a_bad_line_is_refused_behind_the_good_ones_in_every_two_pieces(
    data: bytes, given: bytes, refusal: str | None
) -> None:
    for pieces in ways(data):
        assert passed(pieces, 3, skip=False) == Passed(given, given.count(b"\n"), 0, refusal)


def test_what_is_refused_stays_refused() -> None:
    lines = JsonLines(3, skip=False)
    assert lines.feed(b"1\nsecret\n2\n") == b"1\n"
    for _ in range(2):
        with pytest.raises(BadLine, match="Line 2 is longer"):
            lines.feed(b"3\n")
        with pytest.raises(BadLine, match="Line 2 is longer"):
            lines.finish()
    assert (lines.rows, lines.skipped) == (1, 0)


def test_a_line_is_refused_as_soon_as_it_is_too_long() -> None:
    lines = JsonLines(3, skip=False)
    assert lines.feed(b"1\n123") == b"1\n"
    assert lines.feed(b" ") == b""
    with pytest.raises(BadLine):
        lines.feed(b"4")


def test_an_error_quotes_nothing_of_a_line_and_has_no_cause_that_does() -> None:
    with pytest.raises(BadLine) as caught:
        JsonLines(WIDE, skip=False).feed(b'{"password": "hunter2"\n')
    assert caught.value.detail == MALFORMED_AT.format(1)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("skip", [True, False])
def test_lines_are_given_when_they_end(skip: bool) -> None:  # noqa: FBT001 - a case
    lines = JsonLines(WIDE, skip=skip)
    assert [lines.feed(piece) for piece in (b"1", b"2\n3", b"\n4\n5\n", b"", b"6")] == [
        *(b"", b"12\n", b"3\n4\n5\n", b"", b"")
    ]
    assert (lines.rows, lines.skipped) == (4, 0)
    assert lines.finish() == b"6\n"
    assert lines.rows == 5


def len_and_first(piece: bytes) -> str:
    return f"{len(piece)} of {piece[:1]!r}"


SPACES = st.text(" \t\r", max_size=5).map(str.encode)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FRAGMENTS = [*(bytes([byte]) for byte in b'[]{}:,"\\1 \t\r'), BOM, BOM[:2]]
GOOD = st.tuples(VALUES, st.booleans()).map(
    lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1]).encode()
)
GARBAGE = st.binary(max_size=12) | st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join)
LINES = st.tuples(SPACES, GOOD | GOOD | GARBAGE, SPACES).map(b"".join)
BODIES = st.tuples(
    st.sampled_from([b"", BOM, BOM[:2]]),
    st.lists(LINES, max_size=8).map(b"\n".join),
    st.sampled_from([b"", b"\n", b"\r\n"]),
).map(b"".join)


@given(BODIES, CUTS, st.integers(1, 40))
@example(b"1,2\n[3\n4]", [], 40)
def test_any_body_in_any_pieces_is_what_splitting_the_whole_gives(
    data: bytes, cuts: Cuts, max_line: int
) -> None:
    assert passed(cut(data, cuts), max_line) == reference(data, max_line)


@given(BODIES, CUTS, st.integers(1, 40))
def test_a_refusal_does_not_depend_on_the_pieces(data: bytes, cuts: Cuts, max_line: int) -> None:
    whole = passed([data], max_line, skip=False)
    assert passed(cut(data, cuts), max_line, skip=False) == whole
    skipping = passed([data], max_line)
    assert skipping.data.startswith(whole.data)
    assert (whole.refusal is None) == (skipping.skipped == 0)


@given(st.lists(VALUES, max_size=8), CUTS)
def test_values_come_back(values: list[object], cuts: Cuts) -> None:
    data = b"".join(json.dumps(value).encode() + b"\r\n" for value in values)
    made = passed(cut(data, cuts), len(data), skip=False)
    assert [json.loads(line) for line in made.data.split(b"\n")[:-1]] == values
    assert made.data == data.replace(b"\r\n", b"\n")
    assert made.rows == len(values)


def test_a_long_line_in_many_pieces_is_put_together_once() -> None:
    piece = b"0123456789"
    line = b'"' + piece * 200_000 + b'"'
    single = passed([b'"', *[piece] * 200_000, b'"\n'], len(line), skip=False)
    assert single == Passed(line + b"\n", 1, 0)


def test_a_long_block_of_many_lines_is_split_once() -> None:
    assert passed([b"1\n" * 300_000], 1, skip=False) == Passed(b"1\n" * 300_000, 300_000, 0)


@pytest.mark.parametrize("piece", [b"x", b" ", b"x" * 5_000, b" " * 5_000], ids=len_and_first)
@pytest.mark.parametrize("begun", [b"", b"1"], ids=["empty", "begun"])
def test_what_does_not_end_is_not_kept(begun: bytes, piece: bytes) -> None:
    max_line = 2_000
    lines = JsonLines(max_line, skip=True)
    lines.feed(begun)
    tracemalloc.start()
    try:
        given = {lines.feed(piece) for _ in range(20_000)}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert given == {b""}
    assert peak < 2 * (max_line + len(piece))
    blank = not piece.strip()
    assert lines.feed(b"\n2\n") == (b"1\n2\n" if begun and blank else b"2\n")
    assert lines.skipped == (0 if blank else 1)
