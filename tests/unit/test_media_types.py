"""Media types by name: the same on every machine, and never taken from the name itself."""

from __future__ import annotations

import mimetypes
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.download.media_types import OWN, UNKNOWN, _types, media_type
from service.export.compress import COMPRESSIONS
from service.export.encode import FORMATS

SHAPE = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]*")
OFFICE = "application/vnd.openxmlformats-officedocument"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("flights.csv", "text/csv"),
        ("FLIGHTS.CSV", "text/csv"),
        ("flights.2013.csv", "text/csv"),
        ("flights.tsv", "text/tab-separated-values"),
        ("flights.json", "application/json"),
        ("flights.ndjson", "application/x-ndjson"),
        ("flights.jsonl", "application/x-ndjson"),
        ("places.geojson", "application/geo+json"),
        ("flights.parquet", "application/vnd.apache.parquet"),
        ("flights.arrow", "application/vnd.apache.arrow.file"),
        ("flights.arrows", "application/vnd.apache.arrow.stream"),
        ("flights.avro", "application/avro"),
        ("flights.xlsx", f"{OFFICE}.spreadsheetml.sheet"),
        ("flights.xls", "application/vnd.ms-excel"),
        ("flights.sqlite", "application/vnd.sqlite3"),
        ("flights.xml", "application/xml"),
        ("flights.yaml", "application/yaml"),
        ("flights.yml", "application/yaml"),
        ("flights.toml", "application/toml"),
        ("flights.sql", "application/sql"),
        ("flights.zst", "application/zstd"),
        ("flights.csv.zst", "application/zstd"),
        ("flights.gz", "application/gzip"),
        ("flights.csv.gz", "application/gzip"),
        ("flights.CSV.GZ", "application/gzip"),
        ("flights.tar.gz", "application/gzip"),
        ("flights.tgz", "application/gzip"),
        ("drawing.svgz", "application/gzip"),
        ("flights.tar", "application/x-tar"),
        ("flights.csv.bz2", "application/x-bzip2"),
        ("flights.csv.xz", "application/x-xz"),
        ("flights.zip", "application/zip"),
        ("service.log", "text/plain"),
        ("read.txt", "text/plain"),
        ("read.md", "text/markdown"),
        ("page.html", "text/html"),
        ("page.htm", "text/html"),
        ("page.js", "text/javascript"),
        ("page.mjs", "text/javascript"),
        ("picture.png", "image/png"),
        ("picture.jpg", "image/jpeg"),
        ("paper.pdf", "application/pdf"),
        ("Größe.csv", "text/csv"),
        ("a b.csv", "text/csv"),
    ],
)
def test_types_by_name(name: str, told: str) -> None:
    assert media_type(name) == told


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "README",
        "csv",
        ".csv",
        "flights.",
        "flights.csv ",
        "flights.csv~",
        "flights.csv.part",
        "flights.unheard",
        "flights.csv.Z",
        "flights.csv.br",
        "data:text/html,<script>",
        "data:text/html\r\nSet-Cookie: a=b,",
        "http://example/page?.csv=",
    ],
)
def test_what_is_not_known_is_bytes(name: str) -> None:
    assert media_type(name) == UNKNOWN


def test_a_name_like_a_url_is_a_name() -> None:
    assert media_type("data:text/html,x.csv") == "text/csv"
    assert media_type("a:b/c?d#e.json") == "application/json"


def test_exports_and_files_are_called_alike() -> None:
    for name, export in FORMATS.items():
        assert media_type(f"x.{name}") == export.media_type
    for compression in COMPRESSIONS.values():
        assert media_type(f"x.csv{compression.suffix}") == compression.media_type


@pytest.fixture
def strange_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has added types of its own, as the files of a system would."""
    _types.cache_clear()
    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".unheard", "text/strange")
    monkeypatch.setitem(mimetypes.types_map, ".png", "text/strange")
    assert mimetypes.guess_type("x.unheard") == ("text/strange", None)


@pytest.mark.usefixtures("strange_system")
def test_what_a_system_adds_changes_nothing() -> None:
    assert media_type("x.unheard") == UNKNOWN
    assert media_type("x.png") == "image/png"


@given(st.text(), st.sampled_from([*OWN, "png", "sh", "unheard"]))
def test_no_name_makes_another_type(name: str, suffix: str) -> None:
    told = media_type(f"{name}.{suffix}")
    assert SHAPE.fullmatch(told)
    assert told == media_type(f"x{name}.{suffix}") or not name
    assert SHAPE.fullmatch(media_type(name))
