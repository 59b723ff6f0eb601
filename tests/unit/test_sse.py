"""Server-Sent Events: exact bytes, read back as WHATWG HTML, section 9.2.6, reads them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sse import MEDIA_TYPE, PING, comment, frame, json_data, last_event_id, retry
from tests.splitting import CUTS, Cuts, split

Event = tuple[str, str, str]  # name, data, last event ID

BOM = codecs.BOM_UTF8
CRLF = b"\r\n"


@dataclass
class Reader:
    """The algorithm of the standard, word for word; it is fed bytes in any pieces."""

    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None
    last_id: str = ""
    _rest: bytes = b""
    _started: bool = False
    _name: str = ""
    _data: str = ""
    _id: str = ""

    def feed(self, piece: bytes) -> None:
        self._rest += piece
        if not self._started:
            if BOM.startswith(self._rest):
                return  # it may yet become one
            self._started = True
            self._rest = self._rest.removeprefix(BOM)
        while line := self._line():
            self._process(line.rstrip(CRLF).decode())

    def _line(self) -> bytes:
        """The next line with its end, which is CR, LF or CRLF; empty while there is none."""
        ends = [place for end in CRLF if (place := self._rest.find(end)) >= 0]
        first = min(ends, default=len(self._rest))
        after = first + (2 if self._rest[first : first + 2] == CRLF else 1)
        if first == len(self._rest) or self._rest[first:] == b"\r":
            return b""  # after CR there may yet be LF
        line, self._rest = self._rest[:after], self._rest[after:]
        return line

    def finish(self) -> None:
        if self._rest.endswith(b"\r"):
            self._process(self._rest[:-1].decode())
            self._rest = b""

    def _process(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments.append(line[1:])
        else:
            name, _, value = line.partition(":")
            self._take(name, value.removeprefix(" "))

    def _take(self, name: str, value: str) -> None:
        match name:
            case "event":
                self._name = value
            case "data":
                self._data += value + "\n"
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_id = self._id
        if self._data:
            self.events.append((self._name or "message", self._data[:-1], self.last_id))
        self._name = self._data = ""


def read(pieces: Iterable[bytes]) -> Reader:
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader


def read_split(stream: bytes, cuts: Cuts) -> Reader:
    return read(piece for piece, _ in split(stream, cuts))


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        ([b"data: a\n\n"], [("message", "a", "")]),
        ([b"data:a\ndata:  b\ndata\n\n"], [("message", "a\n b\n", "")]),
        ([BOM[:1], BOM[1:] + b"data: a\r", b"\n\r", b"\n"], [("message", "a", "")]),
        ([b"data: a\r", b"data: b\r\r"], [("message", "a\nb", "")]),
        ([b"data: a\r", b"\ndata: b\n\r"], [("message", "a\nb", "")]),
        ([b"event: x\nid: 1\n\ndata: a\n\n"], [("message", "a", "1")]),
        ([b"id: 1\0\nid: 2\ndata\n\nid\ndata\n\n"], [("message", "", "2"), ("message", "", "")]),
        ([BOM + BOM + b"data: a\n\n: a\ndata: b\n\n"], [("message", "b", "")]),
        ([b"data: a\n"], []),
    ],
)
def test_the_reader_of_these_tests(pieces: list[bytes], events: list[Event]) -> None:
    assert read(pieces).events == events


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("state", b"{}", b"event: state\ndata: {}\n\n"),
        ("s", "", b"event: s\ndata: \n\n"),
        ("s", "é".encode(), b"event: s\ndata: \xc3\xa9\n\n"),
        ("s", " a", b"event: s\ndata:  a\n\n"),
        ("s", ":a", b"event: s\ndata: :a\n\n"),
        ("s", "a\nb", b"event: s\ndata: a\ndata: b\n\n"),
        ("s", b"a\rb", b"event: s\ndata: a\ndata: b\n\n"),
        ("s", b"a\r\nb", b"event: s\ndata: a\ndata: b\n\n"),
        ("s", b"a\n\rb", b"event: s\ndata: a\ndata: \ndata: b\n\n"),
        ("s", b"a\n", b"event: s\ndata: a\ndata: \n\n"),
        ("s", "\n", b"event: s\ndata: \ndata: \n\n"),
        ("s", "a\u2028\x85\v\x1c", b"event: s\ndata: a\xe2\x80\xa8\xc2\x85\v\x1c\n\n"),
        ("", "a", b"event: \ndata: a\n\n"),
        (" s", "a", b"event:  s\ndata: a\n\n"),
    ],
)
def test_name_and_data(name: str, data: bytes | str, expected: bytes) -> None:
    assert frame(name, data) == expected


@pytest.mark.parametrize(
    ("last_id", "retry_ms", "fields"),
    [
        (None, None, b""),
        (7, None, b"id: 7\n"),
        (0, None, b"id: 0\n"),
        ("a b", None, b"id: a b\n"),
        (" 7", None, b"id:  7\n"),
        ("", None, b"id: \n"),
        (None, 0, b"retry: 0\n"),
        (1, 2500, b"id: 1\nretry: 2500\n"),
    ],
)
def test_id_and_retry(last_id: int | str | None, retry_ms: int | None, fields: bytes) -> None:
    made = frame("s", "a", id=last_id, retry_ms=retry_ms)
    assert made == b"event: s\ndata: a\n" + fields + b"\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ping", PING),
        ("", b": \n"),
        ("a\ndata: b\r\n\rc", b": a\n: data: b\n: \n: c\n"),
    ],
)
def test_comment(text: str, expected: bytes) -> None:
    assert comment(text) == expected


@pytest.mark.parametrize(
    ("milliseconds", "expected"), [(0, b"retry: 0\n"), (2500, b"retry: 2500\n")]
)
def test_retry(milliseconds: int, expected: bytes) -> None:
    assert retry(milliseconds) == expected


def test_constants() -> None:
    assert MEDIA_TYPE == "text/event-stream"
    assert PING == b": ping\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\r\n", "\0", "\n"])
def test_a_name_or_an_id_of_several_lines_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="line break or NUL"):
        frame(bad, b"")
    with pytest.raises(ValueError, match="line break or NUL"):
        frame("state", b"", id=bad)


def test_a_time_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 ms"):
        frame("state", b"", retry_ms=-1)
    with pytest.raises(ValueError, match="-1 ms"):
        retry(-1)


@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", "\ud800"])
def test_what_is_not_utf_8_is_refused(data: bytes | str) -> None:
    with pytest.raises(UnicodeError):
        frame("state", data)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("42", 42),
        ("007", 7),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("0" * 19, None),
        ("", None),
        (" 1", None),
        ("1\n", None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        ("1.0", None),
        ("0x1", None),
        ("٤", None),
        ("²", None),
        ("4٢", None),
    ],
)
def test_last_event_id(text: str, number: int | None) -> None:
    assert last_event_id(text) == number


@given(st.text() | st.text(alphabet="0123456789"))
def test_any_header_is_a_number_or_nothing(text: str) -> None:
    number = last_event_id(text)
    assert number is None or (0 <= number < 2**63 and str(number) == (text.lstrip("0") or "0"))


@given(st.integers(0, 10**18 - 1))
def test_every_id_comes_back(number: int) -> None:
    [(_, _, last_id)] = read([frame("state", b"", id=number)]).events
    assert last_event_id(last_id) == number


MARKS = "\x85\u2028\u2029"
NEW_LINES = "\v\f\x1c\x1d\x1e" + MARKS  # where str.splitlines ends a line, beside CR and LF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1}', b'{"a":1}'),
        ('"é\U0001f600"', '"é\U0001f600"'),
        ('"\u2028"', rb'"\u2028"'),
        ('"é\u2029\u2028\x85"', '"é\\u2029\\u2028\\u0085"'),
        ('"\u2027\u202a\x84\u0645"', '"\u2027\u202a\x84\u0645"'),
        ('"\\\\\u2028"', rb'"\\\u2028"'),
    ],
)
def test_json_without_new_lines(data: bytes | str, expected: bytes | str) -> None:
    given_, wanted = (text.encode() if isinstance(text, str) else text for text in (data, expected))
    assert json_data(given_) == wanted


VALUES = st.text() | st.text(alphabet=f'{NEW_LINES}\r\n"\\aé')


@given(st.dictionaries(VALUES, VALUES | st.lists(VALUES)))
def test_json_is_the_same_and_one_line_for_everybody(value: dict[str, object]) -> None:
    data = json_data(orjson.dumps(value))
    assert json.loads(data) == orjson.loads(data) == value
    assert len(data.decode().splitlines()) == 1


WORDS = st.text(alphabet=st.characters(exclude_characters="\r\n\0", codec="utf-8"), max_size=8)
TEXTS = st.text(max_size=20) | st.text(alphabet=f"{NEW_LINES}\r\n\0: \ufeffadtidé", max_size=20)
FRAMES = st.tuples(
    WORDS,
    TEXTS,
    st.none() | st.integers(0) | WORDS,
    st.none() | st.integers(0, 10**6),
    st.none() | TEXTS,
)
Frame = tuple[str, str, int | str | None, int | None, str | None]


def lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def expected_of(frames: list[Frame]) -> Reader:
    """What the standard's reader knows after ``frames``."""
    reader = Reader()
    for name, data, last_id, retry_ms, remark in frames:
        if last_id is not None:
            reader.last_id = str(last_id)
        if retry_ms is not None:
            reader.retry_ms = retry_ms
        if remark is not None:
            reader.comments += [f" {line}" for line in lines(remark)]
        reader.events.append((name or "message", "\n".join(lines(data)), reader.last_id))
    return reader


def streamed(frames: list[Frame]) -> bytes:
    made = []
    for name, data, last_id, retry_ms, remark in frames:
        if remark is not None:
            made.append(comment(remark))
        made.append(frame(name, data.encode(), id=last_id, retry_ms=retry_ms))
    return b"".join(made)


@pytest.mark.parametrize("start", [b"", BOM], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r", CRLF], ids=["lf", "cr", "crlf"])
@given(st.lists(FRAMES, max_size=6), CUTS)
def test_what_is_framed_is_read(start: bytes, end: bytes, frames: list[Frame], cuts: Cuts) -> None:
    """With the other ends of lines, too, into which a proxy may change ours."""
    reader = read_split(start + streamed(frames).replace(b"\n", end), cuts)
    expected = expected_of(frames)
    assert reader.events == expected.events
    assert reader.comments == expected.comments
    assert (reader.last_id, reader.retry_ms) == (expected.last_id, expected.retry_ms)


@given(st.lists(FRAMES, min_size=1, max_size=3), st.integers(1, 100))
def test_an_event_that_was_cut_off_is_not_there(frames: list[Frame], missing: int) -> None:
    last = streamed(frames[-1:])
    whole = streamed(frames[:-1])
    cut = last[: -min(missing, len(last))]
    assert read([whole + cut]).events == read([whole]).events


@given(CUTS)
def test_blocks_without_data_are_no_events(cuts: Cuts) -> None:
    stream = retry(2500) + PING + comment("data: a\rdata: b\n\ndata: c") + PING
    reader = read_split(stream, cuts)
    assert (reader.events, reader.retry_ms, reader.last_id) == ([], 2500, "")
