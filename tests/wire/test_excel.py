"""``profile=excel``: what a spreadsheet may open, and never more than it can hold."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest

from tests.clients import Answer, ask
from tests.postgres import run_sql
from tests.serving import Served, without_worker

MOST = 1_048_575
TABLES = f"""
    create table cells (id int primary key, "=label" text, padded char(4), price numeric,
                        ratio float8, span interval, doc json, tags text[], ok boolean);
    insert into cells values
      (1, '=1+1', '-ab', -5.50, '-Infinity', '-1 day', '"x"', '{{=a}}', true),
      (2, '+1', '@x', 'NaN', -0.5, '1 day', '-5', null, false),
      (3, E'\\tx', '', '-Infinity', 'Infinity', null, null, null, null),
      (4, E'\\rx', '=', 1, 1, null, '{{}}', null, null),
      (5, E'a\\n=b', 'ab', 1, 1, null, '{{}}', null, null),
      (6, U&'\\FF1D1', 'ab', 1, 1, null, '{{}}', null, null),
      (7, '', 'ab', 1, 1, null, '{{}}', null, null),
      (8, null, 'ab', 1, 1, null, '{{}}', null, null),
      (9, '''=already', 'ab', 1, 1, null, '{{}}', null, null);
    create view too_many as select i as id from generate_series(1, {MOST + 1}) i;
    create view just_enough as select i as id from generate_series(1, {MOST}) i;
"""
CONFIG = """
[sources.main]
expose = ["public.*"]
[sources.rows]
expose = ["public.*"]
lane = "rows"
"""
LANES = ("", "rows.")


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(module_database_url, TABLES)
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=CONFIG
    ) as found:
        yield found


def sheet(answer: Answer) -> list[list[str]]:
    assert answer.status == 200
    assert answer.body.startswith(b"\xef\xbb\xbf")
    text = answer.body.decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("lane", LANES)
def test_formulas_are_harmless_and_numbers_are_numbers(served: Served, lane: str) -> None:
    answer = ask(served.base, f"/v1/rows/{lane}cells.csv?profile=excel&order=id")
    header, *rows = sheet(answer)
    assert header == ["id", "'=label", "padded", "price", "ratio", "span", "doc", "tags", "ok"]
    assert rows[0] == [
        "1", "'=1+1", "'-ab ", "-5.50", "'-Infinity", "'-1 days", '"x"', "{=a}", "true"
    ]  # fmt: skip
    assert rows[1] == ["2", "'+1", "'@x  ", "NaN", "-0.5", "1 day", "'-5", "", "false"]
    assert rows[2][:5] == ["3", "'\tx", "    ", "'-Infinity", "Infinity"]
    labels = [row[1] for row in rows[3:]]
    assert labels == ["'\rx", "a\n=b", "'\uff1d1", "", "", "'=already"]
    assert all(line.endswith(b"\r") for line in answer.body.split(b"\n")[:3])


@pytest.mark.parametrize("lane", LANES)
def test_the_machines_profile_alters_nothing(served: Served, lane: str) -> None:
    plain = ask(served.base, f"/v1/rows/{lane}cells.csv?order=id").body
    assert ask(served.base, f"/v1/rows/{lane}cells.csv?order=id&profile=machine").body == plain
    assert b"\n1,=1+1,-ab ,-5.50,-Infinity,-1 days," in plain
    assert b"\r\n" not in plain


@pytest.mark.parametrize("lane", LANES)
def test_more_rows_than_a_sheet_holds_are_refused(served: Served, lane: str) -> None:
    answer = ask(served.base, f"/v1/rows/{lane}too_many.csv?profile=excel")
    assert answer.status == 400
    problem = answer.json()
    assert (problem["code"], problem["parameter"]) == ("invalid_parameter", "profile")
    assert str(MOST) in problem["detail"]


def test_as_many_as_it_holds_are_not(served: Served) -> None:
    for query in ("just_enough.csv?profile=excel", f"too_many.csv?profile=excel&limit={MOST}"):
        answer = ask(served.base, f"/v1/rows/{query}")
        assert answer.status == 200
        assert answer.body.count(b"\r\n") == MOST + 1
    filtered = ask(served.base, "/v1/rows/too_many.csv?profile=excel&id=lte.5")
    assert filtered.body.count(b"\r\n") == 6


def test_a_limit_beyond_the_sheet_is_named(served: Served) -> None:
    answer = ask(served.base, f"/v1/rows/cells.csv?profile=excel&limit={MOST + 1}")
    assert (answer.status, answer.json()["parameter"]) == (400, "limit")


def test_only_csv_is_for_a_spreadsheet(served: Served) -> None:
    answer = ask(served.base, "/v1/rows/cells.ndjson?profile=excel")
    assert (answer.status, answer.json()["parameter"]) == (400, "profile")


def test_the_record_says_which_profile(served: Served) -> None:
    answer = ask(served.base, "/v1/rows/cells.csv?profile=excel")
    assert served.get(f"/v1/exports/{answer.export_id}")["profile"] == "excel"
