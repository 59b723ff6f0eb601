"""An export request as an address and as a line for a shell: the same rows, whatever is in it."""

from __future__ import annotations

import operator
import shlex
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.query_string import query_parameters
from service.api.rows import split_suffix
from service.column import Column, Kind
from service.errors import InvalidParameter
from service.export.assembly import Asked
from service.export.encode import FORMATS
from service.grammar.cursor import Cursors
from service.grammar.query import parse_query
from service.jobs.address import address, curl_line, query_string
from service.jobs.request import ExportRequest, understand
from service.representation import PARAMETERS, parse_representation
from tests.attacks import in_grammar
from tests.datasets import HOSTILE_NAMES, ID, dataset

BASE = "http://127.0.0.1:8000/a%20prefix"
CURSORS = Cursors("a secret of the tests alone, long enough")
CHUNK = 64 * 1024
NAMES = (*HOSTILE_NAMES, *sorted(PARAMETERS), "&=?#%+", "end\n", "🙂", "and(", "in")
HERE = dataset(ID, *(Column(name, "text", Kind.TEXT) for name in NAMES), key=("id",))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
PATTERNS = TEXTS.filter(lambda text: not text.endswith("\\"))


def spelt_list(values: list[str]) -> str:
    return f"({','.join(map(in_grammar, values))})"


CONDITIONS = st.builds(
    "{}{}".format,
    st.sampled_from(["", "not."]),
    st.one_of(
        st.builds("{}.{}".format, st.sampled_from(["eq", "neq", "gt", "lte", "match"]), TEXTS),
        st.builds("{}.{}".format, st.sampled_from(["like", "ilike"]), PATTERNS),
        st.builds("in.{}".format, st.lists(TEXTS, max_size=3).map(spelt_list)),
        st.sampled_from(["is.null", "is.not_null"]),
    ),
)
COLUMNS = st.sampled_from([name for name in NAMES if name != "select"])
WHERE = st.dictionaries(
    COLUMNS, CONDITIONS | st.lists(CONDITIONS, min_size=1, max_size=3), max_size=4
)
GROUPS = st.sampled_from(
    [{}, {"and": "(end.is.null)"}, {"not.or": '("a.b,c:d(e)".eq."x,y",id.gt.1)'}]
)
IN_ORDER = st.sampled_from(NAMES).map(in_grammar)
SELECTED = st.builds("{}:{}".format, TEXTS.map(in_grammar), IN_ORDER)
REQUESTS = st.fixed_dictionaries(
    {"dataset": st.sampled_from(["orders", "a b", "a/../b", "x.csv", "..", "Größe?#&", "it's"])},
    optional={
        "select": st.lists(SELECTED, min_size=1, max_size=3),
        "where": st.builds(operator.or_, WHERE, GROUPS),
        "order": st.lists(IN_ORDER, max_size=3, unique=True),
        "limit": st.integers(0, 2**63 - 1),
        "offset": st.integers(0, 2**63 - 1),
        "format": st.sampled_from(["csv", "ndjson", "json"]),
        "compression": st.sampled_from(["none", "gzip", "zstd"]),
        "filename": st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text),
        "count": st.just("exact"),
    },
)


def request(**given: Any) -> ExportRequest:
    return ExportRequest.model_validate({"dataset": "orders", **given})


def answered(url: str) -> tuple[str, Asked]:
    """The dataset, and what ``GET`` of that address means."""
    parts = urlsplit(url)
    assert parts.query.isascii()
    name, suffix = split_suffix(unquote(parts.path.rpartition("/v1/rows/")[2]))
    scope = {"type": "http", "query_string": parts.query.encode(), "headers": []}
    given = query_parameters(Request(scope))
    assert suffix is not None
    representation = parse_representation(
        FORMATS[suffix], [item for item in given if item[0] in PARAMETERS], chunk_size=CHUNK
    )
    rows = [item for item in given if item[0] not in PARAMETERS]
    return name, Asked(HERE, parse_query(HERE, rows, cursors=CURSORS), representation)


def meaning(asked: Asked) -> tuple[Any, ...]:
    query = asked.query
    return (query.select, query.digest, query.order, query.limit, query.offset, query.ordered)


@given(given=REQUESTS)
def test_the_address_means_what_the_request_means(given: dict[str, Any]) -> None:
    wanted = ExportRequest.model_validate(given)
    try:
        asked = understand(wanted, HERE, CURSORS, CHUNK)
    except InvalidParameter as error:
        assert "stands there twice" in error.detail  # noqa: PT017 - nothing else may be wrong
        reject()
    name, found = answered(address(wanted, BASE))
    assert name == wanted.dataset
    assert meaning(found) == meaning(asked)
    assert found.representation == asked.representation


@pytest.mark.parametrize(
    "given",
    [
        {"format": "csv", "delimiter": ";", "header": False},
        {"format": "csv", "delimiter": "&", "profile": "excel"},
        {"format": "csv", "delimiter": "+"},
        {"format": "csv", "delimiter": "\t", "compression": "zstd"},
        {"format": "ndjson", "end": True},
    ],
    ids=str,
)
def test_the_representation_is_the_same(given: dict[str, Any]) -> None:
    wanted = request(**given)
    _, found = answered(address(wanted, BASE))
    assert found.representation == understand(wanted, HERE, CURSORS, CHUNK).representation


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ({}, ""),
        ({"select": ["id", "x:a b"], "limit": 5}, "select=id,x:a%20b&limit=5"),
        ({"where": {"id": ["gt.1", "lt.9"]}}, "id=gt.1&id=lt.9"),
        ({"where": {"or": "(id.eq.1,id.eq.2)"}}, "or=(id.eq.1,id.eq.2)"),
        ({"where": {"end": "eq.a,b"}}, "and=(end.eq.%22a,b%22)"),
        ({"where": {"end": "not.in.(a,b)"}}, "and=(end.not.in.(a,b))"),
        ({"where": {"end": 'like."\\\\*'}}, "and=(end.like.%22%5C%22%5C%5C%5C%5C*%22)"),
        ({"where": {"header": "is.null"}}, "and=(header.is.null)"),
        ({"where": {"a b": "eq.1+1=2&x"}}, "a%20b=eq.1%2B1%3D2%26x"),
        ({"order": ["id.desc", '"a.b"']}, "order=id.desc,%22a.b%22"),
        ({"compression": "zstd", "filename": "x"}, "compression=zstd"),
        ({"count": "exact", "fresh": True}, ""),
    ],
    ids=str,
)
def test_the_query_string(given: dict[str, Any], query: str) -> None:
    assert query_string(request(**given)) == query


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ({}, "orders.csv"),
        ({"format": "ndjson", "compression": "gzip"}, "orders.ndjson.gz"),
        ({"filename": "late.csv"}, "late.csv"),
        ({"filename": "../../.bashrc"}, "_.._.bashrc"),
        ({"filename": "/etc/passwd"}, "_etc_passwd"),
        ({"filename": "~/.ssh/config"}, "~_.ssh_config"),
        ({"filename": "-"}, "./-"),
        ({"filename": "-K"}, "./-K"),
        ({"filename": ".."}, "export"),
        ({"filename": "a\nb"}, "a_b"),
        ({"filename": "it's $(id) `id`; !x"}, "it's $(id) `id`; !x"),
        ({"dataset": "a/b"}, "a_b.csv"),
    ],
    ids=str,
)
def test_the_line_saves_it_in_this_folder(given: dict[str, Any], file: str) -> None:
    wanted = request(**given)
    said = shlex.split(curl_line(wanted, BASE))
    assert said == ["curl", "-sSf", "-o", file, address(wanted, BASE)]


def test_the_base_cannot_leave_its_quotes() -> None:
    line = curl_line(request(), "http://a'; id; '")
    assert shlex.split(line)[4:] == ["http://a'; id; '/v1/rows/orders.csv"]
