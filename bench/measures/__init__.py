"""The measures by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from bench.measures.beside import beside_an_export
from bench.measures.copy_lane import beginning, compression, direct, memory
from bench.measures.crowd import crowd
from bench.measures.downloads import downloads
from bench.measures.events import events
from bench.measures.jobs import followers, job_against_direct, job_beginning
from bench.measures.rows_lane import rows_lane
from bench.measures.shapes import shapes
from bench.measures.sizes import sizes
from bench.measures.sqlite import sqlite
from bench.measures.tiny import tiny
from bench.measures.tokens import tokens
from bench.measures.tokens_crowd import tokens_crowd
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
        "jobs": job_against_direct,
        "jobs first byte": job_beginning,
        "jobs followers": followers,
        "jobs crowd": crowd,
        "downloads": downloads,
        "events": events,
        "events beside an export": beside_an_export,
        "tokens": tokens,
        "tokens crowd": tokens_crowd,
    }
)
