"""No query string is answered with anything but rows or a problem."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.clients import send_raw
from tests.postgres import fetch, run_sql
from tests.serving import Served, without_worker
from tests.wire.problems import MEMBERS
from tests.wire.things import EXPOSED, TABLE


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLE)
    folder = tmp_path_factory.mktemp("served")
    with without_worker(folder, module_database_url, config=EXPOSED) as found:
        yield found


COLUMNS = [
    *("id", "small", "amount", "ratio", "name", "ok", "uid", "at", "day", "span", "doc", "raw"),
    *("bytes", "tags", "mood", "net", "Größe/50%", "nothing", ""),
]
OPERATORS = [
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "is",
    "like",
    "match",
    "fts",
    "not.eq",
    "",
]
VALUES = [
    *("1", "-1", "0", "1e400", "NaN", "-infinity", "99999999999999999999", "true", "null", "t"),
    *("2026-02-30", "2026-01-01T00:00:00Z", "epoch", "1 day", "{}", "{1,2}", "[]", '{"a":1}'),
    *("glad", "10.0.0.0/8", "\\x00", "'", "\\'", "$1", "%s", ":name", "--", ";", "*", "(1,2)"),
    *('("a","b")', "(", ")", "a.b", "é", "\u2028", "😀", "\x01", "\n", "'; drop table things; --"),
]
words = st.one_of(st.sampled_from(VALUES), st.text(max_size=20))
names = st.one_of(st.sampled_from(COLUMNS), st.text(max_size=8))
filters = st.tuples(names, st.builds("{}.{}".format, st.sampled_from(OPERATORS), words))
selects = st.lists(st.one_of(names, st.builds("{}:{}".format, words, names)), max_size=4)
orders = st.builds(
    "{}.{}".format, names, st.sampled_from(["asc", "desc", "desc.nullslast", "nullsfirst", "", "."])
)
own = st.one_of(
    st.tuples(st.just("select"), selects.map(",".join)),
    st.tuples(st.just("order"), st.lists(orders, max_size=3).map(",".join)),
    st.tuples(st.sampled_from(["limit", "offset", "chunk_size", "header", "end"]), words),
    st.tuples(
        st.sampled_from(["delimiter", "compression", "profile", "and", "or", "after"]), words
    ),
    st.tuples(words, words),
)
encodable = st.lists(st.one_of(filters, own), max_size=5).map(
    lambda pairs: urlencode(pairs, errors="surrogatepass")
)
bare = st.text(alphabet="%&=+.,()\"'*:;<>[]{}|^`~!$/?@\\0Fabé", max_size=30).map(
    lambda text: text.encode().decode("latin-1")
)


@settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(query=st.one_of(encodable, bare), form=st.sampled_from([".csv", ".ndjson", ".json", ""]))
@example(query="select=%22%22:id", form=".csv")
@example(query="select=%5C.:id", form=".csv")
@example(query="amount=eq.NaN", form=".json")
@example(query="day=gt.infinity", form=".json")
def test_no_query_string_is_answered_with_500(served: Served, query: str, form: str) -> None:
    line = f"GET /v1/rows/things{form}?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = send_raw(served.base, line.encode("latin-1"))
    assert answer.status in (200, 400, 406), answer.body
    if answer.status != 200:
        assert answer.json().keys() >= MEMBERS


def test_the_fuzz_left_the_table_alone(served: Served, module_database_url: str) -> None:
    assert fetch(module_database_url, "SELECT count(*) FROM things")[0][0] == 20
    assert served.events("unexpected error") == []
