"""The ``Prefer`` header (RFC 7240): a count of rows and the headers that tell it, a wait. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

PREFERENCE = re.compile(r"""\s*([^=;,\s]+)\s*(?:=\s*"?([^";,]*?)"?\s*)?(?:;[^,]*)?(?:,|\Z)""")
WAIT = re.compile(r"[0-9]{1,9}")
MAX_WAIT = 60  # seconds


class Count(StrEnum):
    """How well the caller wants to know how many rows there are."""

    EXACT = "exact"
    ESTIMATE = "estimate"


@dataclass(frozen=True, slots=True)
class Total:
    """The rows that the filters let through, whatever ``limit``, ``offset`` and ``after`` say."""

    rows: int
    kind: Count


COUNTS = {"exact": Count.EXACT, "planned": Count.ESTIMATE, "estimated": Count.ESTIMATE}


def preferred_count(header: str) -> Count | None:
    """``count=exact``, ``count=estimated`` or its older name ``planned``.

    What is not understood is ignored, as section 2 wants it; the first of several counts.
    """
    for name, value in PREFERENCE.findall(header):
        if name.lower() == "count" and value.lower() in COUNTS:
            return COUNTS[value.lower()]
    return None


def preferred_wait(header: str) -> int | None:
    """``wait=N`` in seconds (section 4.3), at most MAX_WAIT; None where there is no such wish."""
    for name, value in PREFERENCE.findall(header):
        if name.lower() == "wait" and WAIT.fullmatch(value):
            return min(int(value), MAX_WAIT)
    return None


def count_headers(total: Total, first: int | None, limit: int | None) -> dict[str, str]:
    """The total, and the range of rows that this response holds, as PostgREST's clients read it.

    ``first`` is the place of the first row, from 0; None where nobody knows it.
    """
    shown = "*"
    if total.kind is Count.EXACT and first is not None and first < total.rows:
        last = total.rows if limit is None else min(total.rows, first + limit)
        shown = f"{first}-{last - 1}" if last > first else "*"
    asked = "exact" if total.kind is Count.EXACT else "estimated"
    return {
        "X-Total-Count": str(total.rows),
        "X-Total-Count-Kind": total.kind.value,
        "Content-Range": f"{shown}/{total.rows}",
        "Range-Unit": "items",
        "Preference-Applied": f"count={asked}",
    }
