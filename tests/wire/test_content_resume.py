"""Resuming what is still made: live ranges (RFC 8673), and curl cut again and again."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients import Answer, ask, stalled
from tests.curl import CUT_SHORT
from tests.serving import Served
from tests.session import Session, session
from tests.waiting import wait_until
from tests.wire.job_service import (
    ARRIVED,
    WITHIN,
    cancel,
    closed_gate,
    entered,
    gated_csv,
    job_service,
    reach,
    receipt,
    shown,
    written,
)
from tests.wire.problems import check_problem

WHOLE = gated_csv()
SIZE = len(WHOLE)
LARGEST = 9_007_199_254_740_991  # RFC 8673 asks for a "very large value"; this is 2⁵³ - 1
CURL = ("curl", "-q", "-sS", "--no-buffer", "--noproxy", "*", "--max-time", "90", "-C", "-")


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


@pytest.fixture
def growing(base: str, gate: None) -> str:
    """An export that has come as far as its gate."""
    export = entered(base, "gated")
    written(base, export)
    return export


def content(export: str) -> str:
    return f"/v1/exports/{export}/content"


def after_the_gate(base: str, export: str, database: Session, **headers: str) -> Answer:
    """The answer to a request that was there before the rest of the file."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(ask, base, content(export), "GET", fields)
        database.open_gate()
        return answer.result(WITHIN)


@pytest.mark.parametrize("first", [0, 1, 1_000, ARRIVED, ARRIVED + 400_000, SIZE - 1])
@pytest.mark.parametrize("last", ["", str(LARGEST), str(LARGEST + 1)])
def test_an_open_range_goes_on_to_the_end(
    base: str, growing: str, database: Session, first: int, last: str
) -> None:
    answer = after_the_gate(base, growing, database, Range=f"bytes={first}-{last}")
    assert (answer.status, answer.body) == (206, WHOLE[first:])
    if answer.headers["Content-Length"] is None:
        assert answer.headers["Content-Range"] == f"bytes {first}-{LARGEST}/*"
        assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["ETag"] == f'"{growing.replace("-", "")}.1"'


def test_its_head_comes_while_the_rest_is_made(base: str, growing: str, database: Session) -> None:
    with stalled(base, content(growing), {"Range": "bytes=1000-"}) as live:
        assert live.status == 206
        assert live.headers["Content-Range"] == f"bytes 1000-{LARGEST}/*"
        assert live.headers["Content-Length"] is None
        assert live.headers["Accept-Ranges"] == "bytes"
        begun = live.read(ARRIVED - 1_000)
        assert database.exporting() == 1
        database.open_gate()
        assert begun + live.read() == WHOLE[1_000:]


def test_a_bounded_range_is_all_there_before_it_is_sent(
    base: str, growing: str, database: Session
) -> None:
    answer = ask(base, content(growing), headers={"Range": "bytes=10-99"})
    assert (answer.status, answer.body) == (206, WHOLE[10:100])
    assert answer.headers["Content-Range"] == "bytes 10-99/*"
    assert database.exporting() == 1
    last = ARRIVED + 400_000
    later = after_the_gate(base, growing, database, Range=f"bytes=10-{last}")
    assert (later.status, later.body) == (206, WHOLE[10 : last + 1])


@pytest.mark.parametrize("field", ["bytes=-5", "bytes=0-1,5-6", "lines=1-", "bytes=x-"])
def test_what_cannot_be_told_of_a_growing_one_is_ignored(
    base: str, growing: str, database: Session, field: str
) -> None:
    with stalled(base, content(growing), {"Range": field}) as live:
        assert (live.status, live.headers["Content-Range"]) == (200, None)
        database.open_gate()
        assert live.read() == WHOLE


def test_if_range_is_kept_while_it_grows(base: str, growing: str, database: Session) -> None:
    tag = f'"{growing.replace("-", "")}.1"'
    given = {tag: 206, '"x"': 200, f"W/{tag}": 200, "Mon, 01 Jan 2024 00:00:00 GMT": 200}
    with ThreadPoolExecutor(len(given)) as aside:
        asked = {
            validator: aside.submit(
                ask, base, content(growing), "GET", {"Range": "bytes=9-", "If-Range": validator}
            )
            for validator in given
        }
        database.open_gate()
        found = {validator: answer.result(WITHIN) for validator, answer in asked.items()}
    assert {validator: answer.status for validator, answer in found.items()} == given
    assert {answer.body for answer in found.values()} == {WHOLE, WHOLE[9:]}


@pytest.mark.parametrize("first", [SIZE, SIZE + 1, 10 * SIZE])
def test_nothing_is_behind_the_end(base: str, growing: str, database: Session, first: int) -> None:
    answer = after_the_gate(base, growing, database, Range=f"bytes={first}-")
    check_problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(("how", "status"), [("cancelled", 410), ("failed", 409)])
def test_who_waits_for_bytes_that_never_come_is_told(
    base: str, gate: None, database: Session, how: str, status: int
) -> None:
    export = entered(base, "breaking" if how == "failed" else "gated")
    written(base, export)
    with ThreadPoolExecutor(1) as aside:
        headers = {"Range": f"bytes={10 * SIZE}-"}
        answer = aside.submit(ask, base, content(export), "GET", headers)
        if how == "failed":
            database.open_gate()
        else:
            cancel(base, export)
        assert answer.result(WITHIN).status == status


class Resuming:
    """curl -C - on one file, cut at places that the dice choose."""

    def __init__(self, url: str, file: Path, seed: int) -> None:
        self._url = url
        self.file = file
        self._dice = random.Random(seed)

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def cut(self, most: int) -> None:
        """One more curl, which brings as much as it was to bring."""
        wanted = min(self.size + self._dice.randrange(1, most // 3), most)
        process = subprocess.Popen([*CURL, "-o", self.file, self._url], stderr=subprocess.DEVNULL)
        wait_until(
            lambda: self.size >= wanted or process.poll() is not None,
            within=WITHIN,
            what=f"{wanted} bytes have come",
        )
        process.kill()
        process.wait(WITHIN)
        # curl is faster than we are: what came behind the place is as if it had not come.
        os.truncate(self.file, wanted)

    def finish(self) -> int:
        """The exit code of a curl that is left alone."""
        ended = subprocess.run([*CURL, "-o", self.file, self._url], timeout=100, check=False)
        return ended.returncode


@pytest.mark.parametrize("seed", range(6))
def test_curl_cut_again_and_again_has_the_whole_file(
    base: str, growing: str, database: Session, tmp_path: Path, seed: int
) -> None:
    resuming = Resuming(base + content(growing), tmp_path / "file", seed)
    cuts = 0
    while resuming.size < ARRIVED * 2 // 3:
        resuming.cut(ARRIVED)
        assert WHOLE.startswith(resuming.file.read_bytes())
        cuts += 1
    assert cuts > 1
    assert shown(base, growing)["state"] == "running"
    database.open_gate()
    assert resuming.finish() == 0
    data = resuming.file.read_bytes()
    assert data == WHOLE
    reach(base, growing, "succeeded")
    assert hashlib.sha256(data).hexdigest() == receipt(base, growing)["sha256"]


def test_curl_knows_that_what_is_cancelled_is_not_whole(
    base: str, growing: str, tmp_path: Path
) -> None:
    resuming = Resuming(base + content(growing), tmp_path / "file", seed=1)
    resuming.cut(ARRIVED)
    with ThreadPoolExecutor(1) as aside:
        exit_code = aside.submit(resuming.finish)
        wait_until(lambda: resuming.size > ARRIVED, within=WITHIN, what="the rest has come")
        cancel(base, growing)
        assert exit_code.result(WITHIN) == CUT_SHORT
    assert WHOLE.startswith(resuming.file.read_bytes())


def test_a_growing_one_and_its_finished_one_are_one_file(
    base: str, growing: str, database: Session, tmp_path: Path
) -> None:
    resuming = Resuming(base + content(growing), tmp_path / "file", seed=2)
    resuming.cut(ARRIVED)
    database.open_gate()
    reach(base, growing, "succeeded")
    if resuming.size < SIZE:
        assert resuming.finish() == 0
    assert resuming.file.read_bytes() == WHOLE
