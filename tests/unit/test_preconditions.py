"""Preconditions in the order of RFC 9110, section 13.2.2."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service.errors import PreconditionFailed
from service.preconditions import http_date, not_modified, use_range

ETAG = '"a"'
MODIFIED = datetime(1994, 11, 6, 8, 49, 37, 654_321, tzinfo=UTC)
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
THEN = "Sun, 06 Nov 1994 08:49:37 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
NO_DATES = [
    "",
    "yesterday",
    "0",
    "784111777",
    "1994-11-06T08:49:37Z",
    "06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37",
    "Sun, 06 Nov 1994 08:49:37 +0000",
    "Sun, 06 Nov 1994 08:49:37 EST",
    "Sun, 06 Nov 1994 08:49 GMT",
    "Sun, 31 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 25:49:37 GMT",
    "Sun, 06 Nov 1994 ::::: :: GMT",
    "Sun, 06 Nov 1994 ::::::37 GMT",
    "Sun, 06 Xyz 1994 08:49:37 GMT",
    f"{THEN}, {THEN}",
]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"if-match": ETAG}, False),
        ({"if-match": "*"}, False),
        ({"if-match": f'"b", {ETAG}'}, False),
        ({"if-none-match": ETAG}, True),
        ({"if-none-match": f"W/{ETAG}"}, True),
        ({"if-none-match": f'"b", W/{ETAG}'}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"b"'}, False),
        ({"if-none-match": "a"}, False),
        ({"if-modified-since": BEFORE}, False),
        ({"if-modified-since": THEN}, True),
        ({"if-modified-since": AFTER}, True),
        ({"if-modified-since": f" {THEN}\t"}, True),
        ({"if-unmodified-since": THEN}, False),
        ({"if-unmodified-since": AFTER}, False),
        # A tag is more exact than a date, and the date beside it is ignored.
        ({"if-none-match": '"b"', "if-modified-since": AFTER}, False),
        ({"if-none-match": "", "if-modified-since": AFTER}, False),
        ({"if-none-match": ETAG, "if-modified-since": BEFORE}, True),
        ({"if-match": ETAG, "if-unmodified-since": BEFORE}, False),
        # What lets the method go on leads to the next step.
        ({"if-match": ETAG, "if-none-match": ETAG}, True),
        ({"if-unmodified-since": THEN, "if-none-match": ETAG}, True),
        ({"if-unmodified-since": THEN, "if-modified-since": THEN}, True),
        ({"if-match": ETAG, "if-modified-since": THEN}, True),
        # If-Range has no say here.
        ({"if-range": '"b"'}, False),
    ],
)
def test_it_is_answered(headers: dict[str, str], expected: bool) -> None:  # noqa: FBT001 - a column of the table
    assert not_modified(headers, ETAG, MODIFIED) is expected


@pytest.mark.parametrize(
    "headers",
    [
        {"if-match": '"b"'},
        {"if-match": ""},
        {"if-match": "a"},
        {"if-match": f"W/{ETAG}"},
        {"if-match": f'W/{ETAG}, "b"'},
        {"if-unmodified-since": BEFORE},
        {"if-match": '"b"', "if-unmodified-since": AFTER},
        {"if-match": '"b"', "if-none-match": ETAG},
        {"if-unmodified-since": BEFORE, "if-none-match": ETAG},
        {"if-unmodified-since": BEFORE, "if-modified-since": AFTER},
    ],
)
def test_it_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        not_modified(headers, ETAG, MODIFIED)


@pytest.mark.parametrize("date", NO_DATES)
def test_what_is_no_date_is_ignored(date: str) -> None:
    assert http_date(date) is None
    for name in ("if-modified-since", "if-unmodified-since"):
        assert not not_modified({name: date}, ETAG, MODIFIED)


@pytest.mark.parametrize("name", ["if-modified-since", "if-unmodified-since"])
@pytest.mark.parametrize("date", [BEFORE, AFTER])
def test_a_date_is_ignored_while_there_is_none_to_compare_with(name: str, date: str) -> None:
    assert not not_modified({name: date}, ETAG, None)


@pytest.mark.parametrize(
    "date", [THEN, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_three_spellings_of_a_date(date: str) -> None:
    assert http_date(date) == MODIFIED.replace(microsecond=0)


@pytest.mark.parametrize(
    ("validator", "expected"),
    [
        (None, True),
        (ETAG, True),
        (f" {ETAG}", True),
        (f"W/{ETAG}", False),
        ('"b"', False),
        (f'{ETAG}, "b"', False),
        ("*", False),
        ("", False),
        ("a", False),
        (THEN, True),
        ("Sun Nov  6 08:49:37 1994", True),
        (BEFORE, False),
        (AFTER, False),
        ("yesterday", False),
    ],
)
def test_a_range_is_used(validator: str | None, expected: bool) -> None:  # noqa: FBT001 - as above
    headers = {} if validator is None else {"if-range": validator}
    assert use_range(headers, ETAG, MODIFIED) is expected


def test_a_date_lets_no_range_apply_to_what_has_none() -> None:
    assert not use_range({"if-range": THEN}, ETAG, None)
    assert use_range({"if-range": THEN}, ETAG, MODIFIED + timedelta(milliseconds=300))
    assert not use_range({"if-range": THEN}, ETAG, MODIFIED + timedelta(seconds=1))
