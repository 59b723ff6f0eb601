"""The measures by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from bench.measures.copy_lane import beginning, compression, direct, memory
from bench.measures.rows_lane import rows_lane
from bench.measures.shapes import shapes
from bench.measures.sizes import sizes
from bench.measures.sqlite import sqlite
from bench.measures.tiny import tiny
from bench.result import Measured
from bench.service_under_test import Bench

Measure = Callable[[Bench, int], Iterator[Measured]]

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "direct": direct,
        "compression": compression,
        "first byte": beginning,
        "memory": memory,
        "rows lane": rows_lane,
        "sqlite": sqlite,
        "sizes": sizes,
        "shapes": shapes,
        "tiny": tiny,
    }
)
