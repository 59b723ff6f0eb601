"""The OpenAPI document: valid, complete, and true of the routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI

from tests.clients import ask
from tests.serving import Served, without_worker

PROBLEM = {"type", "title", "status", "detail", "code", "request_id"}
ROUTES = {
    "/v1/datasets": {"get"},
    "/v1/datasets/refresh": {"post"},
    "/v1/datasets/{name}": {"get"},
    "/v1/rows/{dataset}": {"get"},
    "/v1/exports": {"get", "post"},
    "/v1/exports/estimate": {"post"},
    "/v1/exports/preview": {"post"},
    "/v1/exports/draft": {"post"},
    "/v1/exports/{export_id}": {"get", "delete"},
    "/v1/exports/{export_id}/receipt": {"get"},
    "/v1/exports/{export_id}/content": {"get"},
    "/v1/exports/{export_id}/events": {"get"},
    "/v1/exports/{export_id}/cancel": {"post"},
    "/v1/exports/{export_id}/retry": {"post"},
    "/v1/events": {"get"},
    "/v1/files": {"get"},
    "/v1/files/{root}/{path}": {"get"},
    "/v1/relay": {"get"},
    "/v1/relay/{upstream}/{path}": {"get"},
    "/v1/upstreams": {"get"},
    "/v1/providers": {"get"},
    "/v1/chat/stream": {"post"},
    "/v1/generations/{generation_id}": {"get"},
    "/v1/generations/{generation_id}/events": {"get"},
    "/v1/generations/{generation_id}/cancel": {"post"},
    "/livez": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/v1/status": {"get"},
}


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with without_worker(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


def test_openapi_is_valid_and_lists_every_route(served: Served) -> None:
    document = ask(served.base, "/openapi.json").json()
    OpenAPI.model_validate(document)
    assert "HTTPValidationError" not in str(document)  # FastAPI's own 422 is no problem document
    assert document["openapi"].startswith("3.1")
    paths = {path.replace(":path", ""): item for path, item in document["paths"].items()}
    assert {path: set(item) for path, item in paths.items()} == ROUTES
    operations = [operation for item in paths.values() for operation in item.values()]
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        problem = operation["responses"]["default"]["content"]["application/problem+json"]
        assert set(problem["schema"]["required"]) == PROBLEM
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert ask(served.base, "/docs").status == 200


def test_openapi_describes_every_parameter_of_the_rows(served: Served) -> None:
    document = ask(served.base, "/openapi.json").json()
    (path,) = (path for path in document["paths"] if path.startswith("/v1/rows/"))
    operation = document["paths"][path]["get"]
    described = {parameter["name"]: parameter for parameter in operation["parameters"]}
    expected = {"select", "filters", "order", "limit", "offset", "compression", "delimiter"}
    assert described.keys() >= expected | {"header", "end", "chunk_size", "dataset", "Accept"}
    for name, parameter in described.items():
        assert "schema" in parameter
        assert parameter["in"] == {"dataset": "path", "Accept": "header", "Prefer": "header"}.get(
            name, "query"
        )
    assert operation["responses"].keys() >= {"200", "400", "404", "406", "502", "503", "504"}
    media_types = operation["responses"]["200"]["content"].keys()
    assert media_types == {
        *("text/csv", "application/x-ndjson", "application/json"),
        *("application/gzip", "application/zstd"),
    }
    assert "application/problem+json" in operation["responses"]["400"]["content"]


def test_openapi_says_where_304_is_possible(served: Served) -> None:
    paths = ask(served.base, "/openapi.json").json()["paths"]
    found = {path for path, item in paths.items() if "304" in _statuses(item)}
    assert found == {
        "/v1/datasets",
        "/v1/datasets/{name}",
        "/v1/exports/{export_id}",
        "/v1/exports/{export_id}/receipt",
        "/v1/exports/{export_id}/content",
        "/v1/files",
        "/v1/files/{root}/{path}",
        "/v1/relay",
        "/v1/relay/{upstream}/{path}",
        "/v1/upstreams",
        "/v1/providers",
        "/v1/generations/{generation_id}",
    }


def _statuses(item: Mapping[str, Any]) -> set[str]:
    return set(item["get"]["responses"]) if "get" in item else set()


def test_openapi_names_the_prefix_of_a_proxy(database_url: str, tmp_path: Path) -> None:
    with without_worker(tmp_path, database_url, server__root_path="/tail/race") as found:
        document = ask(found.base, "/openapi.json").json()
    assert document["servers"] == [{"url": "/tail/race"}]
