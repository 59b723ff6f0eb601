"""The content of jobs that wait or run: followed to the end, and resumed at a byte."""

from __future__ import annotations

import email
import random
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients import Answer, ask
from tests.curl import CUT_SHORT, Download, download, resumed
from tests.jobs import artifacts, awaited, content, ended, growing, row, sha256, start
from tests.seeds import seeds
from tests.serving import Served
from tests.session import Session, session
from tests.wire.contents import (
    ARRIVED,
    GATED,
    LARGE,
    LARGE_ARRIVED,
    SALTS,
    SMALL,
    answering,
    arrived,
    asking,
    being_sent,
    cancel,
    closed_gates,
    content_service,
    csv,
    is_silent,
    open_first_gate,
    tag,
    whole,
)
from tests.wire.cutting import cutting
from tests.wire.problems import check_problem

STEPPED = csv(2_010)
OPEN = "9007199254740991"
EXPORTS = "SELECT count(*) FROM tailrace.exports"
FOLLOWERS = 50
NOT_YET_KNOWN = {"Content-Length", "Content-Range", "Last-Modified", "Repr-Digest"}


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


def test_it_is_sent_as_it_grows(served: Served, database: Session, closed: None) -> None:
    export = start(served, "gated")
    with answering(content(served, export)) as answer:
        assert (answer.status, answer.headers["Transfer-Encoding"]) == (200, "chunked")
        assert not NOT_YET_KNOWN & set(answer.headers)
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["ETag"] == tag(export)
        begun = answer.read(ARRIVED)
        assert row(database, export)["state"] == "running"
        database.open_gate()
        assert begun + answer.read() == GATED
    ended(database, export)
    later = whole(served, export)
    assert (later.status, later.body, later.headers["ETag"]) == (200, GATED, tag(export))


def test_what_can_be_said_of_it_meanwhile(served: Served, database: Session, closed: None) -> None:
    """Nobody can have all of it, so that 304 is no answer; another one's tag is."""
    export = arrived(served, database, "gated")
    address = content(served, export)
    head = ask(served.base, address, "HEAD", {"If-None-Match": tag(export)})
    assert (head.status, head.headers["ETag"]) == (200, tag(export))
    assert "Content-Length" not in head.headers
    check_problem(whole(served, export, If_Match='"another"'), 412, "precondition_failed")
    check_problem(ask(served.base, f"{address}?attempt=2"), 410, "gone")
    with answering(f"{address}?attempt=1", {"If-None-Match": tag(export)}) as answer:
        assert answer.status == 200
        database.open_gate()
        assert answer.read() == GATED


def test_its_parts_cross_the_pieces_in_which_it_is_read(served: Served, database: Session) -> None:
    """Once it is finished. Behind its end there is something for who has another one's tag."""
    export, size = start(served, "gated"), len(GATED)
    ended(database, export)
    single = whole(served, export, Range="bytes=200000-800000")
    assert (single.status, single.body) == (206, GATED[200_000:800_001])
    assert single.headers["Content-Range"] == f"bytes 200000-800000/{size}"
    several = whole(served, export, Range="bytes=500000-900000, 0-0, -5")
    assert (several.status, several.headers["Content-Length"]) == (206, str(len(several.body)))
    assert parts(several) == [
        (f"bytes 500000-900000/{size}", GATED[500_000:900_001]),
        (f"bytes 0-0/{size}", GATED[:1]),
        (f"bytes {size - 5}-{size - 1}/{size}", GATED[-5:]),
    ]
    other = whole(served, export, Range=f"bytes={size}-", If_Range=f"W/{tag(export)}")
    assert (other.status, other.body) == (200, GATED)


def parts(answer: Answer) -> list[tuple[str, object]]:
    """The ranges of a multipart body as Python's reader of mail finds them."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    outer, *found = email.message_from_bytes(head + answer.body).walk()
    assert outer.get_content_type() == "multipart/byteranges"
    return [(part["Content-Range"], part.get_payload(decode=True)) for part in found]


def test_no_line_of_a_name_becomes_a_header(served: Served, database: Session) -> None:
    export = start(served, "small", filename='../../x"y\r\nX-Evil: ä.csv')
    ended(database, export)
    answer = ask(served.base, content(served, export), "HEAD")
    assert answer.headers["X-Evil"] is None
    assert answer.headers["Content-Disposition"] == (
        'attachment; filename="_.._x_y_X-Evil_ _.csv"; '
        "filename*=UTF-8''_.._x_y_X-Evil_%20%C3%A4.csv"
    )


def test_only_the_owner_reads_its_files(served: Served, database: Session, closed: None) -> None:
    export = arrived(served, database, "gated")
    file, folder = growing(served, row(database, export)), artifacts(served)
    assert (mode(folder), mode(file)) == (0o700, 0o600)
    database.open_gate()
    found = ended(database, export)
    assert (mode(folder), mode(folder / found["artifact"])) == (0o700, 0o600)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("first", [0, 1, 300_000, ARRIVED])
@pytest.mark.parametrize("fields", [{}, {"If-Range": "{}"}])
def test_an_open_range_follows_from_its_byte(
    served: Served, database: Session, closed: None, first: int, fields: Mapping[str, str]
) -> None:
    export = arrived(served, database, "gated")
    sent = {name: text.format(tag(export)) for name, text in fields.items()}
    asked = {"Range": f"bytes={first}-", **sent}
    large = {"Range": f"bytes={first}-{OPEN}", **sent}
    with (
        answering(content(served, export), asked) as answer,
        answering(content(served, export), large) as other,
    ):
        for found in (answer, other):
            assert (found.status, found.headers["ETag"]) == (206, tag(export))
            assert found.headers["Content-Range"] == f"bytes {first}-{OPEN}/*"
            assert "Content-Length" not in found.headers
        database.open_gate()
        assert answer.read() == other.read() == GATED[first:]


def test_a_closed_range_of_what_is_there_is_answered_at_once(
    served: Served, database: Session, closed: None
) -> None:
    export = arrived(served, database, "gated")
    answer = whole(served, export, Range="bytes=300000-800000")
    assert (answer.status, answer.body) == (206, GATED[300_000:800_001])
    assert answer.headers["Content-Range"] == "bytes 300000-800000/*"
    assert row(database, export)["state"] == "running"


def test_a_range_of_what_is_not_there_waits_for_it(
    served: Served, database: Session, closed: None
) -> None:
    export = arrived(served, database, "stepped")
    address = content(served, export)
    with (
        asking(address, {"Range": "bytes=800000-1200000"}) as ending,
        asking(address, {"Range": "bytes=1200000-"}) as beginning,
        asking(address, {"Range": f"bytes={len(STEPPED)}-"}) as behind,
    ):
        being_sent(served, 3)
        assert is_silent(ending)
        assert is_silent(beginning)
        open_first_gate(database)
        answer, follower = ending.getresponse(), beginning.getresponse()
        assert (answer.status, answer.read()) == (206, STEPPED[800_000:1_200_001])
        assert answer.headers["Content-Range"] == "bytes 800000-1200000/*"
        assert follower.headers["Content-Range"] == f"bytes 1200000-{OPEN}/*"
        assert is_silent(behind)
        assert row(database, export)["state"] == "running"
        database.open_gate()
        assert follower.read() == STEPPED[1_200_000:]
        refused = behind.getresponse()
        assert (refused.status, refused.headers["ETag"]) == (416, tag(export))
        assert refused.headers["Content-Range"] == f"bytes */{len(STEPPED)}"


def test_a_range_beyond_the_end_is_told_the_size_once_there_is_one(
    served: Served, database: Session, closed: None
) -> None:
    export = arrived(served, database, "gated")
    with asking(content(served, export), {"Range": "bytes=900000-99999999"}) as asked:
        being_sent(served, 1)
        assert is_silent(asked)
        database.open_gate()
        answer = asked.getresponse()
        assert (answer.status, answer.read()) == (206, GATED[900_000:])
        size = len(GATED)
        assert answer.headers["Content-Range"] == f"bytes 900000-{size - 1}/{size}"


@pytest.mark.parametrize(
    "fields",
    [
        {"Range": "bytes=-5"},
        {"Range": "bytes=0-4,10-14"},
        {"Range": "rows=0-4"},
        {"Range": "bytes=5-", "If-Range": '"another"'},
        {"Range": "bytes=5-", "If-Range": "Wed, 25 Nov 2026 00:00:00 GMT"},
    ],
)
def test_what_cannot_be_told_yet_is_answered_with_the_whole(
    served: Served, database: Session, closed: None, fields: Mapping[str, str]
) -> None:
    export = arrived(served, database, "gated")
    with answering(content(served, export), fields) as answer:
        assert (answer.status, answer.headers["Transfer-Encoding"]) == (200, "chunked")
        assert "Content-Range" not in answer.headers
        database.open_gate()
        assert answer.read() == GATED


@pytest.mark.parametrize("seed", seeds(20))
def test_curl_resumes_wherever_it_was_cut(
    served: Served, database: Session, closed: None, tmp_path: Path, seed: int
) -> None:
    """Three times while it grows, which is less than is there; then until it has all."""
    export = arrived(served, database, "gated")
    with cutting(served.base, budgets(seed)) as relay:
        url = content(served, export).replace(served.base, relay)
        found = download(url, tmp_path, "-C", "-")
        codes = [found.exit_code(), go_on(url, found), go_on(url, found)]
        assert codes == [CUT_SHORT] * 3
        assert row(database, export)["state"] == "running"
        database.open_gate()
        receipt = ended(database, export)["receipt"]
        while go_on(url, found):
            assert GATED.startswith(found.body)
    assert sha256(found.body) == receipt["sha256"] == sha256(GATED)


def budgets(seed: int) -> Iterator[int]:
    """Where answers are cut: anywhere behind the head. With half a head, curl 7.88 exits with 0."""
    chosen = random.Random(seed)
    while True:
        yield chosen.randint(1_500, ARRIVED // 3)


def go_on(url: str, found: Download) -> int:
    """The exit code of a curl that goes on with a file; it is not sent again what is there."""
    with resumed(url, found) as tried:
        code = tried.exit_code()
    assert tried.status in (206, 416)
    return code


def waiting(served: Served, database: Session) -> str:
    """An export that waits, since others that wait at a gate have every slot."""
    for _ in range(2):
        awaited(database, start(served, "gated"), "running")
    return start(served, "small")


def test_who_asks_while_it_waits_gets_it_when_it_begins(
    served: Served, database: Session, closed: None
) -> None:
    export = waiting(served, database)
    with ExitStack() as stack:
        asked = [
            stack.enter_context(asking(content(served, export), fields))
            for fields in ({}, {"Range": "bytes=3-"}, {"Range": f"bytes={len(SMALL)}-"})
        ]
        being_sent(served, 3)
        assert all(map(is_silent, asked))
        assert row(database, export)["state"] == "queued"
        database.open_gate()
        answers = [connection.getresponse() for connection in asked]
        assert [answer.status for answer in answers] == [200, 206, 416]
        assert [answer.read() for answer in answers[:2]] == [SMALL, SMALL[3:]]
        assert {answer.headers["ETag"] for answer in answers} == {tag(export)}


@pytest.mark.slow
def test_it_waits_15_seconds_for_the_first_byte(
    served: Served, database: Session, closed: None
) -> None:
    export = waiting(served, database)
    began = time.monotonic()
    answer = whole(served, export)
    assert time.monotonic() - began >= 15
    check_problem(answer, 503, "not_yet")
    assert answer.headers["Retry-After"] == "5"
    assert row(database, export)["state"] == "queued"
    database.open_gate()
    assert whole(served, export).body == SMALL


def test_one_that_is_cancelled_while_it_waits_is_gone(
    served: Served, database: Session, closed: None
) -> None:
    export = waiting(served, database)
    with asking(content(served, export)) as asked:
        being_sent(served, 1)
        cancel(served, export)
        assert asked.getresponse().status == 410
    check_problem(whole(served, export), 410, "gone")


def test_a_follower_that_is_far_behind_gets_all_of_one_that_succeeds(
    served: Served, database: Session, closed: None
) -> None:
    export = arrived(served, database, "large", LARGE_ARRIVED)
    with answering(content(served, export)) as follower:
        database.open_gate()
        receipt = ended(database, export)["receipt"]
        body = follower.read()
    assert (len(body), sha256(body)) == (receipt["bytes"], receipt["sha256"])
    assert body == LARGE


def test_fifty_followers_are_one_query(served: Served, database: Session, closed: None) -> None:
    before = database.value(EXPORTS)
    export = start(served, "gated")
    with ExitStack() as stack:
        answers = [
            stack.enter_context(answering(content(served, export))) for _ in range(FOLLOWERS)
        ]
        begun = [answer.read(ARRIVED) for answer in answers]
        assert database.exporting() == 1
        being_sent(served, FOLLOWERS)
        database.open_gate()
        digests = {
            sha256(start + answer.read()) for start, answer in zip(begun, answers, strict=True)
        }
    assert digests == {sha256(GATED)} == {ended(database, export)["receipt"]["sha256"]}
    assert database.value(EXPORTS) == int(str(before)) + 1


def test_a_follower_that_leaves_cancels_nothing(
    served: Served, database: Session, closed: None
) -> None:
    export = start(served, "gated")
    with answering(content(served, export)) as answer:
        answer.read(ARRIVED)
        being_sent(served, 1)
    being_sent(served, 0)
    assert row(database, export)["state"] == "running"
    assert database.exporting() == 1
    database.open_gate()
    assert ended(database, export)["state"] == "succeeded"
    assert whole(served, export).body == GATED
