"""Which pages of other origins may read what (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients import ask
from tests.serving import Served, without_worker

CONFIG = """
[sources.main]
[datasets.small]
sql = "select i as id from generate_series(1, 10) i"
"""
ORIGIN = "https://app.example"
EXPOSED = {"x-export-id", "x-export-joined", "etag", "content-range", "link", "repr-digest"}


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with without_worker(
        tmp_path_factory.mktemp("served"),
        module_database_url,
        config=CONFIG,
        server__cors_origins=ORIGIN,
    ) as found:
        yield found


def test_cors_lets_the_configured_origin_read_our_headers(served: Served) -> None:
    for path in ("/v1/rows/small.csv", "/v1/rows/nothing.csv", "/v1/exports?limit=x"):
        headers = ask(served.base, path, headers={"Origin": ORIGIN}).headers
        assert headers["Access-Control-Allow-Origin"] == ORIGIN
        exposed = headers["Access-Control-Expose-Headers"].lower().split(",")
        assert {name.strip() for name in exposed} >= EXPOSED
    stranger = ask(served.base, "/livez", headers={"Origin": "https://other.example"})
    assert "Access-Control-Allow-Origin" not in stranger.headers
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    preflight = ask(served.base, "/v1/rows/small.csv", "OPTIONS", asked)
    assert preflight.status == 200
    assert "GET" in preflight.headers["Access-Control-Allow-Methods"]


def test_without_a_setting_there_is_no_cors(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plain")
    with without_worker(folder, module_database_url, config=CONFIG) as found:
        answer = ask(found.base, "/v1/rows/small.csv", headers={"Origin": ORIGIN})
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
        assert ask(found.base, "/v1/rows/small.csv", "OPTIONS", asked).status == 405
