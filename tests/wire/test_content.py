"""Content while it is made: followed by any number, whole or visibly broken, waited for or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.clients import Answer, ask, stalled
from tests.serving import Served
from tests.session import Session, session
from tests.wire.job_service import (
    ARRIVED,
    WITHIN,
    cancel,
    closed_gate,
    entered,
    gated_csv,
    job_service,
    numbers_csv,
    reach,
    receipt,
    written,
)
from tests.wire.problems import check_problem


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with job_service(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture(scope="module")
def base(served: Served) -> str:
    return served.base


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


@pytest.fixture
def gate(database: Session, base: str) -> Iterator[None]:
    with closed_gate(database, base):
        yield


@contextmanager
def asking(base: str, path: str, method: str = "GET", **headers: str) -> Iterator[Future[Answer]]:
    """A request whose answer may take as long as the block."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with ThreadPoolExecutor(1) as aside:
        yield aside.submit(ask, base, path, method, fields)


def content(export: str) -> str:
    return f"/v1/exports/{export}/content"


def test_it_is_followed_to_its_end(base: str, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    with stalled(base, content(export)) as live:
        head = dict(live.headers.items())
        begun = live.read(ARRIVED)
        assert database.exporting() == 1
        database.open_gate()
        body = begun + live.read()
    assert live.status == 200
    assert body == gated_csv()
    assert (head["transfer-encoding"], head.get("content-length")) == ("chunked", None)
    assert (head.get("last-modified"), head.get("repr-digest")) == (None, None)
    reach(base, export, "succeeded")
    finished = ask(base, content(export))
    for name in ("etag", "content-type", "content-disposition", "accept-ranges", "link"):
        assert finished.headers[name] == head[name]
    assert head["etag"] == f'"{export.replace("-", "")}.1"'
    assert head["accept-ranges"] == "bytes"
    assert hashlib.sha256(body).hexdigest() == receipt(base, export)["sha256"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_one_is_followed_as_it_is(
    base: str, database: Session, gate: None, compression: str
) -> None:
    export = entered(base, "gated", compression=compression)
    reach(base, export, "running")
    with asking(base, content(export), Accept_Encoding="gzip, zstd") as answer:
        database.open_gate()
        got = answer.result(WITHIN)
    assert got.headers["Content-Encoding"] is None
    assert hashlib.sha256(got.body).hexdigest() == receipt(base, export)["sha256"]


def test_head_of_a_growing_one_promises_no_length(base: str, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    answer = ask(base, content(export), "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["ETag"] == f'"{export.replace("-", "")}.1"'
    assert (answer.headers["Content-Length"], answer.headers["Accept-Ranges"]) == (None, "bytes")


def test_nobody_has_all_of_a_growing_one(base: str, database: Session, gate: None) -> None:
    export = entered(base, "gated")
    written(base, export)
    tag = f'"{export.replace("-", "")}.1"'
    check_problem(
        ask(base, content(export), headers={"If-Match": '"x"'}), 412, "precondition_failed"
    )
    with asking(base, content(export), If_None_Match=tag) as answer:
        database.open_gate()
        assert (answer.result(WITHIN).status, answer.result().body) == (200, gated_csv())


def test_what_waits_is_waited_for(base: str, database: Session, gate: None) -> None:
    busy = [entered(base, "gated") for _ in range(4)]
    for export in busy:
        reach(base, export, "running")
    waiting = entered(base, "numbers")
    with asking(base, content(waiting)) as answer:
        cancel(base, busy[0])
        assert answer.result(WITHIN).body == numbers_csv()
    assert answer.result().headers["ETag"] == f'"{waiting.replace("-", "")}.1"'


ENDS = [("cancelled", 410, "gone"), ("deleted", 410, "gone"), ("failed", 409, "conflict")]


@pytest.mark.parametrize(("how", "status", "code"), ENDS)
def test_what_ends_without_a_byte_is_told_with_its_status(
    base: str, database: Session, gate: None, how: str, status: int, code: str
) -> None:
    busy = [entered(base, "gated") for _ in range(4)]
    for export in busy:
        reach(base, export, "running")
    waiting = entered(base, "broken")
    end: dict[str, Callable[[], Any]] = {
        "cancelled": lambda: cancel(base, waiting),
        "deleted": lambda: ask(base, f"/v1/exports/{waiting}", "DELETE"),
        "failed": database.open_gate,
    }
    with asking(base, content(waiting)) as answer:
        end[how]()
        check_problem(answer.result(WITHIN), status, code)


@pytest.mark.parametrize(("how", "status", "code"), ENDS[:2])
def test_what_ends_before_its_first_byte_is_told_with_its_status(
    base: str, database: Session, gate: None, how: str, status: int, code: str
) -> None:
    export = entered(base, "closed", header=False)
    reach(base, export, "running")
    with asking(base, content(export)) as answer:
        if how == "cancelled":
            cancel(base, export)
        else:
            ask(base, f"/v1/exports/{export}", "DELETE")
        check_problem(answer.result(WITHIN), status, code)
