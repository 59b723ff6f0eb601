"""Durations, sizes, lists and URLs as they are written, read, and written again."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from service.values import (
    LONGEST,
    format_duration,
    masked_url,
    parse_duration,
    parse_list,
    parse_size,
    postgres_url,
)

SECRET = "hunter2secret"
URL = f"postgresql://tailrace:{SECRET}@db.internal:5433/exports"

DURATIONS = {
    60.0: ("60s", "1m", "60", " 60.0 ", 60, 60.0),
    0.1: ("100ms", "0.1s", "0.1", 0.1),
    5_400.0: ("1h30m", "1.5h", "90m"),
    604_800.0: ("7d", "168h"),
    120.5: ("2m500ms", "2m0.5s"),
    90_061.001: ("1d1h1m1s1ms", "1d1h1m1.001s"),
}
NO_DURATIONS = ["", " ", "s", "60 s", "1m1h", "1s1s", "-5s", "5S", "5sec", "1e3", "٣s", "inf"]


@pytest.mark.parametrize("seconds", DURATIONS)
def test_durations_are_read_as_seconds(seconds: float) -> None:
    assert {parse_duration(written) for written in DURATIONS[seconds]} == {seconds}


@pytest.mark.parametrize("written", [*NO_DURATIONS, "5s\nx", True, None, [5], 10**400])
def test_other_durations_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|is too long"):
        parse_duration(written)


def test_durations_are_written_shortly() -> None:
    for written in ("1m", "100ms", "4h", "7d", "1m30s", "1.5s", "0.0001s", "1h250ms", "1d0.0005s"):
        assert format_duration(parse_duration(written)) == written
    assert format_duration(0) == "0s"


@given(st.floats(min_value=0, max_value=LONGEST, exclude_min=True))
@example(5e-324)
@example(LONGEST)
@example(0.30000000000000004)
def test_durations_round_trip(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=1, max_value=int(LONGEST) * 1000))
def test_milliseconds_round_trip_without_long_fractions(milliseconds: int) -> None:
    written = format_duration(milliseconds / 1000)
    assert parse_duration(written) == milliseconds / 1000
    assert len(written) <= len("36500d23h59m59.999s")


def test_sizes_are_read_as_bytes() -> None:
    assert {parse_size(size) for size in (4096, "4096", "4096B", "4KiB", "4 kib")} == {4096}
    assert parse_size(" 8MiB ") * 128 == parse_size("1GiB") == 1_073_741_824


@pytest.mark.parametrize("written", ["", "KiB", "256KB", "1.5MiB", "-1", True, 1.5, None, "٣"])
def test_other_sizes_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(written)


def test_lists_are_read_from_text() -> None:
    assert parse_list("a, b ,,c") == ["a", "b", "c"]
    assert parse_list("") == []
    assert parse_list(' ["a,b", "c"]') == ["a,b", "c"]
    assert parse_list(["a,b"]) == ["a,b"]
    with pytest.raises(ValueError, match="is not a JSON list"):
        parse_list('["a"')


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("PostgreSQL://h/d\n", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql:///d?host=/run/pg", "postgresql+asyncpg:///d?host=%2Frun%2Fpg"),
        ("postgresql://u:@/d?host=/run/pg", "postgresql+asyncpg://u:@/d?host=%2Frun%2Fpg"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql://[::1]:5432/d", "postgresql+asyncpg://[::1]:5432/d"),
        ("postgresql://u:p%40%2F%3A@h/d", "postgresql+asyncpg://u:p%40%2F%3A@h/d"),
    ],
)
def test_urls_are_rewritten_for_asyncpg(written: str, read: str) -> None:
    assert make_url(postgres_url(written)) == make_url(read)
    assert postgres_url(written).startswith("postgresql+asyncpg://")


@given(user=st.text(min_size=1), password=st.text(), database=st.from_regex(r"\A[a-z]+\Z"))
def test_urls_keep_every_password(user: str, password: str, database: str) -> None:
    url = make_url("postgresql://h/d").set(username=user, password=password, database=database)
    read = make_url(postgres_url(url.render_as_string(hide_password=False)))
    assert (read.username, read.password, read.database) == (user, password, database)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (URL, "postgresql://tailrace:***@db.internal:5433/exports"),
        ("postgresql://h/d", "postgresql://h/d"),
        (f"postgresql://h/d?password={SECRET}&port=5433", "postgresql://h/d?port=5433"),
        (f"postgresql:///d?host=/run/pg&passfile={SECRET}", "postgresql:///d?host=%2Frun%2Fpg"),
    ],
)
def test_a_masked_url_has_no_secret(written: str, shown: str) -> None:
    assert masked_url(postgres_url(written)) == shown
