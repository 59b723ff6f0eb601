"""Negotiation: what a client may be sent, and under which name it is saved."""

from __future__ import annotations

import re
from contextlib import suppress
from email.message import Message
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter, NotAcceptable, RequestError
from service.export.chunk import MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from service.export.encode import FORMATS
from service.representation import (
    DELIMITERS,
    MAX_FILENAME,
    PARAMETERS,
    Representation,
    content_disposition,
    negotiate_encoding,
    negotiate_format,
    parse_representation,
)

CSV, NDJSON, JSON = FORMATS["csv"], FORMATS["ndjson"], FORMATS["json"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("TEXT/CSV", "csv"),
        ("text/csv; charset=utf-8; header=present", "csv"),
        ("text/*", "csv"),
        ("application/*", "json"),
        ("application/json", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/ndjson", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("text/csv, application/x-ndjson", "csv"),
        ("text/csv;q=0.5, application/x-ndjson", "ndjson"),
        ("text/csv;q=0.5, application/x-ndjson;q=0.4", "csv"),
        ("text/csv;q=0.001,application/json;q=0", "csv"),
        ("text/html, */*;q=0.1", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("application/json;q=0, */*", "csv"),
        ("*/*, application/json;q=0.5, text/csv;q=0.6", "ndjson"),
        ("text/*;q=0.3, */*;q=0.2", "csv"),
        ("text/csv;q=0.1, text/*;q=0.9, application/json;q=0.5", "json"),
        ("application/x-ndjson;q=0, application/jsonl", "ndjson"),
        (" text/csv ; q=0.7 , application/json ; q=0.6 ", "csv"),
        ("image/png, text/csv", "csv"),
        ("text/csv;q=1.000", "csv"),
        ("text/csv;q=1.", "csv"),
        (",,text/csv,", "csv"),
    ],
)
def test_accept_chooses_the_format(accept: str, chosen: str) -> None:
    assert negotiate_format(None, accept).name == chosen


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml",
        "*/*;q=0",
        "text/csv;q=0",
        "text/csv;q=0.000",
        "text/csv;q=high",
        "text/csv;q=-1",
        "text/csv;q=",
        "text/csv;q=1e0",
        "text/csv;q=0.0001",
        "csv",
        "text",
        "*",
        ";q=1",
        ",",
        "\x00",
    ],
)
def test_what_nothing_offered_fits_is_told_what_is_offered(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        negotiate_format(None, accept)
    assert caught.value.status == 406
    assert "application/json, text/csv, application/x-ndjson" in caught.value.detail


@pytest.mark.parametrize("accept", ["", "text/html", "application/json", "*/*;q=0"])
def test_a_suffix_wins_over_accept(accept: str) -> None:
    assert negotiate_format("csv", accept) is CSV


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("deflate, br", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.9", "gzip"),
        ("gzip;q=0.5, zstd;q=0.5", "zstd"),
        ("gzip;q=0", None),
        ("gzip;q=0, zstd;q=0", None),
        ("*", "zstd"),
        ("*;q=0", None),
        ("gzip, *;q=0", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=0.1", "gzip"),
        ("gzip;q=nonsense", None),
        ("gzip;q=nonsense, zstd;q=0.1", "zstd"),
        (";;,,;q=1", None),
    ],
)
def test_accept_encoding_chooses_the_coding(accepted: str, coding: str | None) -> None:
    assert negotiate_encoding(accepted) == coding


@pytest.mark.parametrize(
    ("accepted", "offered", "coding"),
    [
        ("gzip, zstd", [], None),
        ("*", [], None),
        ("gzip, zstd", ["gzip"], "gzip"),
        ("gzip;q=0.5, zstd", ["gzip"], "gzip"),
        ("zstd", ["gzip"], None),
        ("zstd, *;q=0.1", ["gzip"], "gzip"),
        ("gzip, zstd", ["gzip", "zstd"], "zstd"),
        ("gzip, zstd;q=0.9", ["zstd", "gzip"], "gzip"),
        ("identity;q=0.8, gzip;q=0.7, zstd;q=0.9", ["gzip"], None),
        ("identity;q=0.8, gzip;q=0.7, zstd;q=0.9", ["gzip", "zstd"], "zstd"),
        ("identity;q=0, *;q=0", ["gzip", "zstd"], None),
        ("br", ["br"], None),
    ],
)
def test_only_what_is_offered_is_chosen(
    accepted: str, offered: list[str], coding: str | None
) -> None:
    assert negotiate_encoding(accepted, offered) == coding


@given(st.text(), st.text(alphabet="gzipstdcv/*;q=01., ", max_size=30))
def test_no_header_breaks_the_negotiation(text: str, near: str) -> None:
    for header in (text, near):
        assert negotiate_encoding(header) in (None, "gzip", "zstd")
        assert negotiate_encoding(header, ["gzip"]) in (None, "gzip")
        assert negotiate_encoding(header, []) is None
        with suppress(NotAcceptable):
            assert negotiate_format(None, header) in FORMATS.values()


def parsed(name: str, *pairs: tuple[str, str], accepted: str = "") -> Representation:
    return parse_representation(FORMATS[name], pairs, accept_encoding=accepted, chunk_size=65536)


@pytest.mark.parametrize(
    ("name", "pairs", "accepted", "expected"),
    [
        ("csv", [], "", Representation(CSV, chunk_size=65536)),
        ("csv", [], "gzip", Representation(CSV, encoding="gzip", chunk_size=65536)),
        ("csv", [("compression", "none")], "", Representation(CSV, chunk_size=65536)),
        (
            "json",
            [("compression", "zstd")],
            "gzip",
            Representation(JSON, compression="zstd", chunk_size=65536),
        ),
        (
            "csv",
            [("delimiter", "\t"), ("header", "0"), ("chunk_size", "4096")],
            "",
            Representation(CSV, delimiter="\t", header=False, chunk_size=4096),
        ),
        ("ndjson", [("end", "1")], "", Representation(NDJSON, end=True, chunk_size=65536)),
        ("json", [("profile", "machine")], "", Representation(JSON, chunk_size=65536)),
        (
            "csv",
            [("profile", "excel")],
            "",
            Representation(CSV, profile="excel", chunk_size=65536),
        ),
        (
            "csv",
            [("chunk_size", str(MAX_CHUNK_SIZE))],
            "",
            Representation(CSV, chunk_size=MAX_CHUNK_SIZE),
        ),
    ],
)
def test_parameters(
    name: str, pairs: list[tuple[str, str]], accepted: str, expected: Representation
) -> None:
    assert parsed(name, *pairs, accepted=accepted) == expected


@pytest.mark.parametrize(
    ("name", "parameter", "text", "code"),
    [
        ("csv", "compression", "br", "invalid_parameter"),
        ("csv", "compression", "", "invalid_parameter"),
        ("csv", "compression", "GZIP", "invalid_parameter"),
        ("csv", "profile", "word", "invalid_parameter"),
        ("json", "profile", "excel", "invalid_parameter"),
        ("ndjson", "profile", "excel", "invalid_parameter"),
        ("csv", "delimiter", "", "invalid_parameter"),
        ("csv", "delimiter", ";;", "invalid_parameter"),
        ("csv", "delimiter", '"', "invalid_parameter"),
        ("csv", "delimiter", "'", "invalid_parameter"),
        ("csv", "delimiter", "\n", "invalid_parameter"),
        ("csv", "delimiter", "\x00", "invalid_parameter"),
        ("csv", "delimiter", "é", "invalid_parameter"),
        ("csv", "delimiter", "a", "invalid_parameter"),
        ("csv", "delimiter", "\\", "invalid_parameter"),
        ("json", "delimiter", ";", "invalid_parameter"),
        ("csv", "header", "true", "invalid_parameter"),
        ("csv", "header", "", "invalid_parameter"),
        ("ndjson", "header", "1", "invalid_parameter"),
        ("csv", "end", "1", "invalid_parameter"),
        ("ndjson", "end", "2", "invalid_parameter"),
        ("csv", "chunk_size", "", "invalid_parameter"),
        ("csv", "chunk_size", str(MIN_CHUNK_SIZE - 1), "invalid_parameter"),
        ("csv", "chunk_size", str(MAX_CHUNK_SIZE + 1), "invalid_parameter"),
        ("csv", "chunk_size", "9" * 5000, "invalid_parameter"),
        ("csv", "chunk_size", "64KiB", "invalid_parameter"),
        ("csv", "chunk_size", "-65536", "invalid_parameter"),
        ("csv", "chunk_size", "٤٠٩٦", "invalid_parameter"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, parameter: str, text: str, code: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed(name, (parameter, text))
    assert caught.value.code == code
    assert caught.value.members["parameter"] == parameter


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed("csv", ("header", "1"), ("header", "1"))
    assert caught.value.members["parameter"] == "header"


@given(st.sampled_from([*FORMATS]), st.sampled_from([*PARAMETERS]), st.text())
def test_any_value_of_a_parameter_is_taken_or_refused(name: str, parameter: str, text: str) -> None:
    made = answer(name, parameter, text)
    if isinstance(made, RequestError):
        assert made.members["parameter"] == parameter
    else:
        assert made.delimiter in DELIMITERS
        assert MIN_CHUNK_SIZE <= made.chunk_size <= MAX_CHUNK_SIZE


def answer(name: str, parameter: str, text: str) -> Representation | RequestError:
    try:
        return parsed(name, (parameter, text))
    except RequestError as error:
        return error


@pytest.mark.parametrize(
    ("representation", "media_type", "filename"),
    [
        (Representation(CSV), "text/csv; charset=utf-8; header=present", "a.csv"),
        (Representation(CSV, header=False), "text/csv; charset=utf-8; header=absent", "a.csv"),
        (Representation(NDJSON), "application/x-ndjson; charset=utf-8", "a.ndjson"),
        (Representation(JSON, encoding="gzip"), "application/json; charset=utf-8", "a.json"),
        (Representation(CSV, compression="gzip"), "application/gzip", "a.csv.gz"),
        (Representation(NDJSON, compression="zstd"), "application/zstd", "a.ndjson.zst"),
    ],
)
def test_media_types_and_names(
    representation: Representation, media_type: str, filename: str
) -> None:
    assert representation.media_type == media_type
    assert representation.filename("a") == filename


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("flights.csv", 'attachment; filename="flights.csv"'),
        ("a b.csv", 'attachment; filename="a b.csv"'),
        ("../../x.csv", 'attachment; filename="_.._x.csv"'),
        ("..\\..\\x.csv", 'attachment; filename="_.._x.csv"'),
        ("/etc/passwd", 'attachment; filename="_etc_passwd"'),
        ("C:\\x.csv", 'attachment; filename="C_x.csv"'),
        (".bashrc", 'attachment; filename="bashrc"'),
        ('a"b.csv', 'attachment; filename="a_b.csv"'),
        ('a"; filename="b.csv', 'attachment; filename="a_; filename=_b.csv"'),
        ("a\r\nSet-Cookie: x=1\r\n\r\n.csv", 'attachment; filename="a_Set-Cookie_ x=1_.csv"'),
        ("a\x00b\x7f.csv", 'attachment; filename="a_b_.csv"'),
        ("a%2e%2e%2fb.csv", 'attachment; filename="a_2e_2e_2fb.csv"'),
        ("", 'attachment; filename="export"'),
        (".", 'attachment; filename="export"'),
        ("......", 'attachment; filename="export"'),
        ("größe.csv", "attachment; filename=\"gr__e.csv\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"),
        ("日.csv", "attachment; filename=\"_.csv\"; filename*=UTF-8''%E6%97%A5.csv"),
        ("é'(1).csv", "attachment; filename=\"_'(1).csv\"; filename*=UTF-8''%C3%A9%27%281%29.csv"),
    ],
)
def test_content_disposition(name: str, header: str) -> None:
    assert content_disposition(name) == header


@pytest.mark.parametrize("letter", ["x", "é", "日", "😀"])
def test_a_very_long_name_keeps_its_suffixes_and_fits_a_file_system(letter: str) -> None:
    name = saved_as(content_disposition(letter * 5000 + ".ndjson.gz"))
    assert MAX_FILENAME - 4 < len(name.encode()) <= MAX_FILENAME
    assert re.fullmatch(f"{letter}+.ndjson.gz", name)


def saved_as(header: str) -> str:
    """The name that a reader of RFC 6266 takes, which prefers the extended one."""
    extended = re.search(r"filename\*=UTF-8''(\S+)", header)
    if extended:
        return unquote(extended[1], errors="strict")
    message = Message()
    message["Content-Disposition"] = header
    return str(message.get_filename())


@given(st.text())
def test_a_name_is_one_harmless_file_in_one_header_line(name: str) -> None:
    header = content_disposition(name)
    assert re.fullmatch(r'attachment; filename="[^"\\\r\n]+"(; filename\*=UTF-8\'\'\S+)?', header)
    assert header.isascii()
    assert header.isprintable()
    saved = saved_as(header)
    assert saved[0] != "."
    assert len(saved.encode()) <= MAX_FILENAME
    assert not set(saved) & set('/\\:*?"<>|\r\n\0')
