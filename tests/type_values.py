"""Texts that the input functions of PostgreSQL's types take, as hypothesis draws them."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Texts = SearchStrategy[str]

BITING = "\"',;\\{}()[]<>:|&!*%$-+=# \t\r\n\x01\x02\x03\x7f\x85\u2028\ufeff\uffff\U0010ffff"
NOT_FINITE = st.sampled_from(["infinity", "-infinity"])


def characters(most: int = 12) -> Texts:
    """Any text that PostgreSQL holds: every character but NUL and the surrogates."""
    any_of = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(any_of | st.sampled_from(BITING), max_size=most)


def integers(bits: int, *, signed: bool = True) -> Texts:
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(lowest, highest).map(str)


@st.composite
def numerics(draw: st.DrawFn) -> str:
    """Up to 1,000 digits on either side of the point, made of little randomness."""
    seed = str(draw(st.integers(0, 10**12)))
    longest = draw(st.sampled_from([3, 3, 20, 1000]))
    before, after = draw(st.integers(1, longest)), draw(st.integers(0, longest))
    digits = seed * 1000
    part = f".{digits[:after]}" if after else ""
    return draw(st.sampled_from(["", "-"])) + digits[:before] + part


def floats(width: int) -> Texts:
    drawn = (st.floats(width=32) if width == 32 else st.floats()).map(repr)
    return drawn | st.sampled_from(["-0", "NaN", "Infinity", "-Infinity"])


@st.composite
def clocks(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 9)) == 0:
        return "24:00:00"
    hour, minute, second = (draw(st.integers(0, most)) for most in (23, 59, 59))
    return f"{hour:02}:{minute:02}:{second:02}.{draw(st.integers(0, 999_999)):06}"


def zoned_clocks() -> Texts:
    offsets = st.builds(
        "{}{:02}:{:02}:{:02}".format,
        st.sampled_from("+-"),
        st.integers(0, 15),
        st.sampled_from([0, 30, 59]),
        st.sampled_from([0, 0, 1]),
    )
    return st.builds("{}{}".format, clocks(), offsets)


def days(last_year: int) -> Texts:
    """Days from 4713 before Christ, PostgreSQL's first, to ``last_year``."""

    def spelled(year: int, month: int, day: int) -> str:
        era, shown = ("", year) if year > 0 else (" BC", 1 - year)
        return f"{shown:04}-{month:02}-{day:02}{era}"

    years = st.integers(-4711, last_year) | st.integers(-2, 12) | st.integers(1999, 2038)
    return st.builds(spelled, years, st.integers(1, 12), st.integers(1, 28))


def moments(*zones: str) -> Texts:
    def joined(day: str, clock: str, zone: str) -> str:
        date, _, era = day.partition(" ")
        return f"{date} {clock}{zone} {era}".strip()

    last = 294_275  # 294276 is the last year; a time zone may push a day into the next
    return st.builds(joined, days(last), clocks(), st.sampled_from([*zones, ""])) | NOT_FINITE


def intervals(longest: int = 2**63 - 2) -> Texts:
    """Months, days and up to ``longest`` microseconds, each with a sign of its own."""
    parts = st.integers(-(2**31) + 1, 2**31 - 2) | st.integers(-40, 40)
    ticks = st.integers(-longest, longest) | st.integers(-(10**9), 10**9)
    return st.builds("{} mons {} days {} microseconds".format, parts, parts, ticks)


def quoted(text: str) -> str:
    """An element or a member as it may always be written: in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@st.composite
def arrays_of(
    draw: st.DrawFn, elements: Texts, separator: str = ",", *, shifted: bool = True
) -> str:
    """Empty, flat or square arrays with NULLs; ``shifted`` ones may begin at another index."""
    rows, columns = draw(st.sampled_from([(0, 0), (1, 1), (1, 3), (2, 2)]))
    if not rows:
        return "{}"
    cells = elements.map(quoted) | st.just("NULL")
    lines = [separator.join(draw(cells) for _ in range(columns)) for _ in range(rows)]
    first = draw(st.integers(-2, 2)) if shifted else 1
    bounds = f"[{first}:{first + columns - 1}]"
    if rows == 1:
        return f"{bounds}={{{lines[0]}}}"
    return f"{bounds}{bounds}={{{separator.join(f'{{{line}}}' for line in lines)}}}"


def composites(*members: Texts) -> Texts:
    cells = [member.map(quoted) | st.just("") for member in members]
    return st.tuples(*cells).map(lambda drawn: f"({','.join(drawn)})")


@st.composite
def ranges(draw: st.DrawFn, bounds: Texts, order: Callable[[str], float | str | bytes]) -> str:
    if draw(st.integers(0, 9)) == 0:
        return "empty"
    ends = draw(bounds), draw(bounds)
    low, high = ends if order(ends[0]) <= order(ends[1]) else ends[::-1]  # type: ignore[operator]  # one type each
    shown = [quoted(end) if draw(st.integers(0, 4)) else "" for end in (low, high)]
    return f"{draw(st.sampled_from('[('))}{','.join(shown)}{draw(st.sampled_from('])'))}"


def multiranges(parts: Texts) -> Texts:
    return st.lists(parts, max_size=3).map(lambda drawn: f"{{{','.join(drawn)}}}")


def hexadecimal(count: int) -> Texts:
    return st.binary(min_size=count, max_size=count).map(lambda octets: octets.hex(":"))


ANY = st.floats(allow_nan=False).map(repr) | st.sampled_from(["-0", "0", "1.5"])
NEAR = st.floats(-1e6, 1e6, allow_subnormal=False).map(repr)
STEEP = st.floats(1, 1e6).map(repr)
POINTS = st.builds("({},{})".format, ANY, ANY)
CORNERS = st.lists(st.builds("({},{})".format, NEAR, NEAR), min_size=1, max_size=4).map(",".join)
LINES = st.builds("{{{},{},{}}}".format, STEEP, NEAR, NEAR)
CIRCLES = st.builds("<{},{}>".format, POINTS, st.floats(0, allow_nan=False).map(repr))

IPV4, IPV6 = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
INET = (
    st.builds("{}/{}".format, IPV4, st.integers(0, 32))
    | st.builds("{}/{}".format, IPV6, st.integers(0, 128))
    | IPV4
    | IPV6
)
OCTETS = st.integers(0, 255)
CIDR = st.builds("{}.{}.0.0/{}".format, OCTETS, OCTETS, st.integers(16, 32))


def _lexeme(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


LEXEMES = characters(5).filter(bool).map(_lexeme)
PLACES = st.sampled_from(["", ":1", ":2A,3", ":16383D"])
TSVECTOR = st.lists(st.builds("{}{}".format, LEXEMES, PLACES), max_size=3).map(" ".join)
TSQUERY = st.builds(
    str.format,
    st.sampled_from(["{}", "!{}", "{} & !{}:*", "({} | {}:AB) & {}", "{} <2> {}"]),
    LEXEMES,
    LEXEMES,
    LEXEMES,
)
