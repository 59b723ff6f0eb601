"""How many seeds a fault test runs: two, and all of them with ``TAILRACE_FAULTS=full``."""

from __future__ import annotations

import os

FULL = os.environ.get("TAILRACE_FAULTS") == "full"
FEW = 2


def seeds(count: int) -> range:
    return range(count if FULL else min(count, FEW))
