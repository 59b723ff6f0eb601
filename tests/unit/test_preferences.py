"""The Prefer header, and the headers that tell a total."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.preferences import Count, Total, count_headers, preferred_count


@pytest.mark.parametrize(
    ("header", "count"),
    [
        ("", None),
        ("count=exact", Count.EXACT),
        ("COUNT=Exact", Count.EXACT),
        ('count="exact"', Count.EXACT),
        ("count = exact", Count.EXACT),
        ("count=estimated", Count.ESTIMATE),
        ("count=planned", Count.ESTIMATE),
        ("return=representation, count=exact", Count.EXACT),
        ("respond-async; wait=5, count=exact; x=y", Count.EXACT),
        ("count=exact,count=planned", Count.EXACT),
        ("count=many", None),
        ("count", None),
        ("discount=exact", None),
        ("x=count=exact", None),
        ("handling=strict", None),
    ],
)
def test_what_is_preferred(header: str, count: Count | None) -> None:
    assert preferred_count(header) is count


@given(st.text() | st.text(alphabet='count=exact,; "', max_size=60))
def test_no_header_breaks_it(header: str) -> None:
    assert preferred_count(header) in (None, *Count)


@pytest.mark.parametrize(
    ("rows", "kind", "first", "limit", "shown"),
    [
        (100, Count.EXACT, 0, None, "0-99/100"),
        (100, Count.EXACT, 0, 10, "0-9/100"),
        (100, Count.EXACT, 95, 10, "95-99/100"),
        (100, Count.EXACT, 100, 10, "*/100"),
        (100, Count.EXACT, 0, 0, "*/100"),
        (0, Count.EXACT, 0, None, "*/0"),
        (100, Count.EXACT, None, 10, "*/100"),
        (100, Count.ESTIMATE, 0, 10, "*/100"),
    ],
)
def test_the_range_is_told_where_it_is_known(
    rows: int, kind: Count, first: int | None, limit: int | None, shown: str
) -> None:
    headers = count_headers(Total(rows, kind), first, limit)
    assert headers["Content-Range"] == shown
    assert headers["X-Total-Count"] == str(rows)
    assert headers["X-Total-Count-Kind"] == kind.value
    applied = {Count.EXACT: "count=exact", Count.ESTIMATE: "count=estimated"}
    assert headers["Preference-Applied"] == applied[kind]
