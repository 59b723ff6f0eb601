"""Content that there is not, or not any more: never the half of a file for a whole one."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients import ask
from tests.curl import CUT_SHORT, NOT_RESUMED, Download, downloading, resumed
from tests.jobs import awaited, content, ended, files, row, start
from tests.serving import Served, serving
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.contents import (
    ARRIVED,
    GATED,
    LARGE,
    LARGE_ARRIVED,
    SALTS,
    answering,
    arrived,
    cancel,
    closed_gates,
    content_service,
    csv,
    delete,
    tag,
    whole,
)
from tests.wire.problems import check_problem

REFUSED = 22  # curl's CURLE_HTTP_RETURNED_ERROR
OPEN = "9007199254740991"
TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'tailrace export' AND state = 'active'
      AND datname = current_database()
"""
FIRST, SECOND = csv(1_010, salt="first"), csv(1_010, salt="second")
RESUMPTIONS = [
    ("", None, 200),
    ("", 2, 206),
    ("", 1, 200),
    ("?attempt=2", None, 206),
    ("?attempt=2", 2, 206),
    ("?attempt=2", 1, 200),
    ("?attempt=1", None, 410),
    ("?attempt=1", 1, 410),
]  # what is behind the address, the attempt whose tag If-Range has, and the status
EXPIRING = """
[datasets.large]
sql = '''
    select i as id, repeat(md5(i::text), 30) as word
    from (select generate_series(1, 20010) as i) s
'''
"""
SHORT_LIVED: dict[str, Any] = {
    "limits__artifact_ttl": "1s",
    "limits__lease": "2s",  # twice in which the sweeper looks
    "limits__max_attempts": "50",
}


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        opened.execute(SALTS)
        yield opened


@pytest.fixture(scope="module")
def served(
    module_database_url: str, database: Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with content_service(tmp_path_factory.mktemp("served"), module_database_url) as found:
        yield found


@pytest.fixture
def closed(database: Session) -> Iterator[None]:
    with closed_gates(database):
        yield


@pytest.mark.parametrize(("stop", "status"), [(cancel, 410), (delete, 404)])
def test_it_breaks_when_the_export_is_stopped(
    served: Served,
    database: Session,
    closed: None,
    tmp_path: Path,
    stop: Callable[[Served, str], None],
    status: int,
) -> None:
    export = arrived(served, database, "gated")
    artifact = row(database, export)["artifact"]
    with (
        downloading(content(served, export), tmp_path) as found,
        downloading(content(served, export), tmp_path, "-r", "5-") as other,
    ):
        wait_until(lambda: min(found.size, other.size) > ARRIVED - 5, within=30, what="bytes")
        stop(served, export)
        assert [one.exit_code() for one in (found, other)] == [CUT_SHORT, CUT_SHORT]
    assert (found.status, other.status) == (200, 206)
    assert GATED.startswith(found.body)
    assert GATED[5:].startswith(other.body)
    answer = whole(served, export)
    check_problem(answer, status, "gone" if status == 410 else "not_found")
    gone = {artifact, f"{artifact}.part"}
    wait_until(lambda: files(served).isdisjoint(gone), within=10, what="its file is gone")


def test_it_breaks_when_the_query_fails_late(
    served: Served, database: Session, closed: None, tmp_path: Path
) -> None:
    export = arrived(served, database, "failing")
    with downloading(content(served, export), tmp_path) as found:
        wait_until(lambda: found.size > ARRIVED, within=30, what="bytes")
        database.open_gate()
        assert found.exit_code() == CUT_SHORT
    assert csv(1_004).startswith(found.body)
    answer = whole(served, export)
    check_problem(answer, 409, "conflict")
    assert answer.json()["error"] == row(database, export)["error"]
    assert "division by zero" in answer.json()["error"]["detail"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_is_broken_is_no_whole_file_of_its_compression(
    served: Served, database: Session, closed: None, tmp_path: Path, compression: str
) -> None:
    reader = shutil.which(compression)
    if reader is None:
        pytest.skip(f"{compression} is not installed")
    export = start(served, "gated", compression=compression)
    with downloading(content(served, export), tmp_path) as found:
        wait_until(lambda: found.size > 10_000, within=30, what="bytes")
        cancel(served, export)
        assert found.exit_code() == CUT_SHORT
    with found.file.open("rb") as file:
        read = subprocess.run([reader, "-t"], stdin=file, capture_output=True, check=False)
    assert read.returncode != 0


def test_a_follower_that_is_far_behind_does_not_get_the_rest(
    served: Served, database: Session, closed: None
) -> None:
    export = arrived(served, database, "large", LARGE_ARRIVED)
    with answering(content(served, export)) as follower:
        cancel(served, export)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as cut:
            follower.read()
    partial = getattr(cut.value, "partial", b"")
    assert LARGE.startswith(partial)
    assert len(partial) < LARGE_ARRIVED


@dataclass(frozen=True, slots=True)
class Retried:
    """An export whose second attempt waits at the gate; ``follower`` began with the first."""

    export: str
    follower: Download


@pytest.fixture
def retried(served: Served, database: Session, closed: None, tmp_path: Path) -> Iterator[Retried]:
    database.execute("UPDATE public.salts SET salt = 'first'")
    export = arrived(served, database, "changing")
    with downloading(content(served, export), tmp_path) as follower:
        wait_until(lambda: follower.size > ARRIVED, within=30, what="bytes")
        database.execute("UPDATE public.salts SET salt = 'second'")
        assert database.value(TERMINATE) == 1
        wait_until(
            lambda: row(database, export)["attempt"] == 2, within=30, what="the next attempt"
        )
        awaited(database, export, "running")
        yield Retried(export, follower)


def test_a_follower_never_gets_a_byte_of_another_attempt(
    served: Served, database: Session, retried: Retried
) -> None:
    follower = retried.follower
    assert follower.exit_code() == CUT_SHORT
    assert follower.headers["etag"] == tag(retried.export)
    address = served.get(f"/v1/exports/{retried.export}")["links"]["content"]
    assert address == f"{content(served, retried.export)}?attempt=2"
    database.open_gate()
    assert ended(database, retried.export)["attempt"] == 2
    assert len(follower.body) > ARRIVED
    assert FIRST.startswith(follower.body)
    answer = ask(served.base, address)
    assert (answer.body, answer.headers["ETag"]) == (SECOND, tag(retried.export, 2))


def test_curl_does_not_go_on_with_another_attempt(
    served: Served, database: Session, retried: Retried
) -> None:
    """Neither while that one grows nor behind its end."""
    follower = retried.follower
    assert follower.exit_code() == CUT_SHORT
    check_refused(served, retried)
    database.open_gate()
    ended(database, retried.export)
    check_refused(served, retried)


def check_refused(served: Served, retried: Retried) -> None:
    address, before = content(served, retried.export), retried.follower.body
    with resumed(address, retried.follower) as bare:
        assert (bare.exit_code(), bare.status) == (NOT_RESUMED, 200)
    with downloading(
        f"{address}?attempt=1", bare.file.parent, "-f", "-C", "-", onto=bare.file
    ) as named:
        assert (named.exit_code(), named.status) == (REFUSED, 410)
    assert named.body == before


def test_two_attempts_are_never_joined(served: Served, database: Session, retried: Retried) -> None:
    export, address = retried.export, content(served, retried.export)
    with ExitStack() as stack:
        answers = [
            stack.enter_context(answering(address + query, resumption(export, tagged)))
            for query, tagged, _ in RESUMPTIONS
        ]
        assert [answer.status for answer in answers] == [status for *_, status in RESUMPTIONS]
        assert row(database, export)["state"] == "running"
        database.open_gate()
        for answer in answers:
            check_resumed(export, answer.status, answer.headers, answer.read(), f"{OPEN}/*")
    ended(database, export)
    end = f"{len(SECOND) - 1}/{len(SECOND)}"
    for query, tagged, status in RESUMPTIONS:
        found = ask(served.base, address + query, headers=resumption(export, tagged))
        assert found.status == status
        check_resumed(export, status, found.headers, found.body, end)


def resumption(export: str, tagged: int | None) -> dict[str, str]:
    """The fields of a client that has the first five bytes of an attempt."""
    if_range = {} if tagged is None else {"If-Range": tag(export, tagged)}
    return {"Range": "bytes=5-", **if_range}


def check_resumed(
    export: str, status: int, headers: http.client.HTTPMessage, body: bytes, end: str
) -> None:
    """The second attempt whole or from its byte on, and that this is said."""
    if status == 410:
        assert b'"code":"gone"' in body
        return
    assert headers["ETag"] == tag(export, 2)
    assert headers["Content-Range"] == (f"bytes 5-{end}" if status == 206 else None)
    assert body == (SECOND[5:] if status == 206 else SECOND)


def test_a_byte_behind_the_end_may_have_been_one_of_another_attempt(
    served: Served, database: Session, retried: Retried
) -> None:
    database.open_gate()
    ended(database, retried.export)
    behind = f"bytes={len(SECOND)}-"
    old, new = tag(retried.export), tag(retried.export, 2)
    bare = whole(served, retried.export, Range=behind)
    other = whole(served, retried.export, Range=behind, If_Range=old)
    assert [(answer.status, answer.body) for answer in (bare, other)] == [(200, SECOND)] * 2
    same = whole(served, retried.export, Range=behind, If_Range=new)
    check_problem(same, 416, "range_not_satisfiable")


def test_one_that_failed_says_why(served: Served, database: Session) -> None:
    export = start(served, "failed")
    assert ended(database, export)["state"] == "failed"
    answer = whole(served, export)
    check_problem(answer, 409, "conflict")
    error = answer.json()["error"]
    assert error == served.get(f"/v1/exports/{export}")["error"]
    assert (error["code"], error["sqlstate"]) == ("source_error", "22012")
    assert "division by zero" in answer.json()["detail"]
    assert whole(served, export, If_None_Match="*").status == 409
    assert ask(served.base, content(served, export), "HEAD").status == 409


def test_what_is_no_job_has_no_content(served: Served) -> None:
    direct = ask(served.base, "/v1/rows/small.csv")
    assert direct.status == 200
    check_problem(whole(served, direct.export_id), 404, "not_found")
    check_problem(whole(served, "01a203ef-8aee-74ea-aabc-6500ea4d2b62"), 404, "not_found")


def test_it_is_gone_after_its_time(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who reads it by then gets all of it, also one who began while it grew."""
    folder = tmp_path_factory.mktemp("expiring")
    with (
        serving(folder, database_url, config=EXPIRING, **SHORT_LIVED) as expiring,
        session(database_url) as own,
    ):
        export = start(expiring, "large")
        with answering(content(expiring, export)) as follower:
            awaited(own, export, "expired")
            check_problem(whole(expiring, export), 410, "gone")
            assert expiring.get(f"/v1/exports/{export}")["state"] == "expired"
            assert files(expiring) == set()
            assert follower.read() == LARGE
