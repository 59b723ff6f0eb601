"""The page at /: what it shows, and that no name in it can do anything."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.clients import Answer, ask, stalled
from tests.outage import away
from tests.postgres import Databases, run_sql
from tests.serving import Served, without_worker
from tests.waiting import wait_until

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "&lt;b&gt;",
    "~; touch pwned; echo $(touch pwned) #",
]
CONFIG = """
[datasets.titled]
sql = "select 1 as id"
title = "<b>bold</b>"
[datasets.large]
sql = "select i as id, repeat('x', 1000) as pad from generate_series(1, 60000) i"
[files.tests]
path = '{folder}'
"""


class Page(HTMLParser):
    """The elements of a page, the addresses in it, and the text of its parts."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.code = ""
        self._inside = ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        named = dict(attrs)
        self.addresses += [str(named[name]) for name in ("href", "src", "action") if name in named]
        self._inside = tag
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "code":
            self.code += data
        elif self.cells:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside


@pytest.fixture(scope="module")
def source_url(databases: Databases) -> Iterator[str]:
    with databases.clone() as url:
        quoted = ('"' + name.replace('"', '""') + '"' for name in HOSTILE)
        run_sql(url, ";".join(f"create table {name} as select 1 as id" for name in quoted))
        run_sql(url, f"comment on table \"{HOSTILE[0]}\" is '</td><script>alert(2)</script>'")
        yield url


@pytest.fixture(scope="module")
def served(
    module_database_url: str, source_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    config = f'[sources.main]\nurl = "{source_url}"\nexpose = ["public.*"]\n{CONFIG}'
    config = config.replace("{folder}", str(Path(__file__).parent))
    with without_worker(
        tmp_path_factory.mktemp("served"), module_database_url, config=config
    ) as found:
        yield found


def home(served: Served) -> Answer:
    answer = ask(served.base, "/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return answer


def test_the_page_has_datasets_and_newest_exports(served: Served) -> None:
    ids = [ask(served.base, f"/v1/rows/titled.{form}").export_id for form in ("csv", "json")]
    page = Page(home(served))
    cells = [cell.strip() for cell in page.cells]
    assert {"titled", "<b>bold</b>", *HOSTILE} <= set(cells)
    places = [page.addresses.index(f"{served.base}/v1/exports/{name}") for name in ids]
    assert places == sorted(places, reverse=True)
    assert "succeeded" in cells
    with stalled(served.base, "/v1/rows/large.csv") as response:
        running = str(response.headers["X-Export-Id"])
        page = Page(home(served))
        assert f"{served.base}/v1/exports/{running}" in page.addresses
        assert f"{served.base}/v1/exports/{running}/receipt" not in page.addresses


def test_a_download_is_shown_by_where_it_came_from(served: Served) -> None:
    asked = ask(served.base, f"/v1/files/tests/{Path(__file__).name}?receipt=1")
    assert asked.body == Path(__file__).read_bytes()
    cells = [cell.strip() for cell in Page(home(served)).cells]
    assert "tests (file)" in cells
    assert not any("None" in cell for cell in cells)


def test_a_hostile_name_is_text(served: Served) -> None:
    for name in HOSTILE:
        links = {item["name"]: item for item in served.get("/v1/datasets")["datasets"]}
        assert ask(served.base, links[name]["links"]["csv"]).body == b"id\n1\n"
    answer = home(served)
    page = Page(answer)
    assert not page.tags & {"script", "img", "style", "iframe", "form", "b", "object", "base"}
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in answer.body
    cells = {cell.strip() for cell in page.cells}
    assert "{{ 7 * 7 }}" in cells
    assert "49" not in cells


def test_every_address_is_ours_and_answers(served: Served) -> None:
    page = Page(home(served))
    assert page.addresses
    for address in set(page.addresses):
        assert address.startswith(f"{served.base}/")
        assert ask(served.base, address).status == 200


def test_the_policy_allows_nothing_but_our_style_sheet(served: Served) -> None:
    headers = home(served).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == "'self'"
    assert "script-src" not in policy
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert "unsafe" not in str(policy)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    style = ask(served.base, "/static/style.css")
    assert (style.status, style.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    for foreign in (b"url(", b"@import", b"http:", b"https:", b"//"):
        assert foreign not in style.body


def test_the_lines_for_a_shell_can_be_pasted(served: Served, tmp_path: Path) -> None:
    """Whatever the dataset is called that they are about."""
    for line in Page(home(served)).code.splitlines():
        if line.startswith("curl"):
            subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, timeout=60)
    assert not (tmp_path / "pwned").exists()
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"id\n1\n"]


def test_the_page_says_what_is_away(
    databases: Databases, database_url: str, tmp_path: Path
) -> None:
    with databases.clone() as source:
        config = f'[sources.main]\nurl = "{source}"\n{CONFIG}'
        with without_worker(tmp_path, database_url, config=config) as found:
            ask(found.base, "/v1/rows/titled.csv")
            assert b'role="alert"' not in home(found).body
            with away(databases, database_url):
                page = home(found)
                assert b'role="alert"' in page.body
                assert b"titled" in page.body
            wait_until(
                lambda: b'role="alert"' not in home(found).body, within=30, what="it is back"
            )
            with away(databases, source):
                ask(found.base, "/v1/datasets/refresh", "POST")
                assert b"succeeded" in home(found).body
