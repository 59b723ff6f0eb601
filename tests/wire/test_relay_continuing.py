"""A download that breaks off upstream is continued there, and its client does not notice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.curl import CUT_SHORT, Download, download
from tests.relaying import ended, receipt_of, relay_service, through
from tests.serving import Served
from tests.upstream import Request, Upstream, content, encoded, lines, upstream

Options = dict[str, Any]

SIZE = 1_000_000
TAG = '"abc"'
WHOLE = content(SIZE)
SOUND: Options = {"size": SIZE, "etag": TAG, "ranges": 1}
SECTIONS = {
    "plain": 'first_byte_timeout = "2s"\nstall_timeout = "2s"',
    "hasty": 'first_byte_timeout = "300ms"\nstall_timeout = "300ms"',
    "patient": "retries = 10",
    "never": "retries = 0",
}


@dataclass(frozen=True, slots=True)
class Continuing:
    served: Served
    up: Upstream
    folder: Path

    def fetched(self, through_: str, *fields: str, path: str = "/file", **options: Any) -> Download:
        """What curl made of it, with these header fields."""
        more = [word for field in fields for word in ("-H", field)]
        url = self.served.base + through(through_, path, **options)
        return download(url, self.folder, *more)

    def ranges(self) -> list[str | None]:
        return [seen.header("Range") for seen in self.up.seen]


@pytest.fixture(scope="module")
def running(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Continuing]:
    folder = tmp_path_factory.mktemp("served")
    with (
        upstream() as up,
        relay_service(folder, module_database_url, up.base, SECTIONS) as served,
    ):
        yield Continuing(served, up, folder)


@pytest.fixture
def relay(running: Continuing) -> Continuing:
    running.up.forget()
    return running


def assert_whole(relay: Continuing, found: Download, body: bytes, reconnects: int) -> None:
    assert found.exit_code() == 0
    assert found.body == body
    receipt = receipt_of(relay.served, found.export_id)
    assert receipt["outcome"] == "complete"
    assert receipt["bytes"] == len(body)
    assert receipt["sha256"] == hashlib.sha256(body).hexdigest()
    assert receipt["download"]["reconnects"] == reconnects
    assert len(relay.up.seen) == reconnects + 1


@pytest.mark.parametrize(
    ("through_", "options", "reconnects"),
    [
        ("plain", {}, 0),
        ("plain", {"cut": 500_000, "cut_times": 1}, 1),
        ("plain", {"cut": 1, "cut_times": 1}, 1),
        ("plain", {"cut": SIZE - 1, "cut_times": 1}, 1),
        ("plain", {"reset": 500_000, "cut_times": 1}, 1),
        ("plain", {"cut": 400_000, "cut_times": 3}, 2),
        ("plain", {"cut_each": 300_000}, 3),
        ("patient", {"cut_each": 100_000}, 9),
        ("plain", {"short": 0, "cut": 500_000, "cut_times": 1}, 1),
        ("plain", {"framing": "chunked", "cut": 500_000, "cut_times": 1}, 1),
        ("plain", {"framing": "chunked", "reset": 500_000, "cut_times": 1}, 1),
        ("plain", {"framing": "chunked", "bad_chunk": "zz", "bad_chunk_times": 1}, 1),
        ("patient", {"ranges": "less", "cut": SIZE - 100, "cut_times": 1}, 7),
        ("hasty", {"stall": 500_000, "stall_times": 1}, 1),
        ("hasty", {"stall": 500_000, "stall_times": 1, "framing": "chunked"}, 1),
        ("plain", {"cut": 500_000, "cut_times": 1, "status": 503, "status_after": 1, "status_times": 2}, 2),
    ],
)  # fmt: skip
def test_the_client_does_not_notice(
    relay: Continuing, through_: str, options: Options, reconnects: int
) -> None:
    found = relay.fetched(through_, **SOUND | options)
    assert_whole(relay, found, WHOLE, reconnects)
    assert found.status == 200
    assert found.headers["etag"] == TAG
    assert all(seen.header("If-Range") == TAG for seen in relay.up.seen[1:])


def test_the_rest_is_asked_for_as_the_whole_was(relay: Continuing) -> None:
    options = SOUND | {"cut": 600_000, "cut_times": 1}
    found = relay.fetched("plain", "Accept: text/csv", 'If-None-Match: "old"', **options)
    assert_whole(relay, found, WHOLE, 1)
    first, second = relay.up.seen
    assert relay.ranges() == [None, "bytes=600000-"]
    assert first.header("If-None-Match") == '"old"'
    # They were of the whole, and have been decided on.
    assert second.header("If-None-Match") is None
    assert _but_conditions(first) == _but_conditions(second)


def _but_conditions(seen: Request) -> list[tuple[str, str]]:
    conditions = {"range", "if-range", "if-none-match"}
    return sorted(
        (name.lower(), text) for name, text in seen.headers if name.lower() not in conditions
    )


@pytest.mark.parametrize(
    ("through_", "options"),
    [
        ("plain", {"etag": "W/" + TAG}),
        ("plain", {"etag": ""}),
        ("plain", {"etag": "abc"}),
        ("plain", {"ranges": ""}),
        ("plain", {"ranges": "lie"}),
        ("plain", {"ranges": "shift"}),
        ("plain", {"ranges": "other"}),
        ("plain", {"ranges": "total"}),
        ("plain", {"ranges": "unsaid"}),
        ("plain", {"ranges": "untagged"}),
        ("plain", {"ranges": "refused"}),
        ("plain", {"changes": 1}),
        ("plain", {"status": 404, "status_after": 1}),
        ("plain", {"gzip": "", "gzip_after": 1}),
        ("never", {}),
    ],
)
def test_what_is_not_the_rest_of_the_same_is_not_taken_for_it(
    relay: Continuing, through_: str, options: Options
) -> None:
    found = relay.fetched(through_, **SOUND | {"cut": 500_000, "cut_times": 1} | options)
    assert (found.status, found.exit_code()) == (200, CUT_SHORT)
    assert found.body == WHOLE[:500_000]
    record = ended(relay.served, found.export_id)
    assert (record["state"], record["error"]["code"]) == ("failed", "upstream_unavailable")
    assert len(relay.up.seen) <= 2


@pytest.mark.parametrize(
    ("through_", "options", "code", "asked"),
    [
        ("plain", {"cut_at": 500_000}, "upstream_unavailable", 4),
        ("plain", {"cut_each": 1}, "upstream_unavailable", 4),
        ("hasty", {"stall": 300_000}, "upstream_timeout", 4),
        ("hasty", {"stall": 500_000, "stall_times": 1, "accept_only": "", "accept_only_after": 1}, "upstream_timeout", 4),
        ("plain", {"cut": 500_000, "cut_times": 1, "status": 503, "status_after": 1}, "upstream_unavailable", 4),
        ("hasty", {"stall": 500_000, "stall_times": 1, "cut_head": 0, "cut_after": 1}, "upstream_unavailable", 7),
        ("plain", {"ranges": "less", "cut": 500_000, "cut_times": 1}, "upstream_unavailable", 4),
    ],
)  # fmt: skip
def test_it_is_tried_so_many_times_and_no_more(
    relay: Continuing, through_: str, options: Options, code: str, asked: int
) -> None:
    found = relay.fetched(through_, **SOUND | {"size": 2_000_000} | options)
    assert (found.status, found.exit_code()) == (200, CUT_SHORT)
    assert content(2_000_000).startswith(found.body)
    assert ended(relay.served, found.export_id)["error"]["code"] == code
    assert receipt_of(relay.served, found.export_id)["download"]["reconnects"] == 3
    assert len(relay.up.seen) == asked


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=100-", 100, SIZE - 1),
        ("bytes=100000-899999", 100_000, 899_999),
        ("bytes=-900000", 100_000, SIZE - 1),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("ranges", ["1", "less"])
def test_a_part_is_continued_within_it(
    relay: Continuing, asked: str, first: int, last: int, framing: str, ranges: str
) -> None:
    before = last - first - 99
    options = {"framing": framing, "ranges": ranges, "cut": before, "cut_times": 1}
    found = relay.fetched("patient", f"Range: {asked}", **SOUND | options)
    assert found.status == 206
    assert found.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert relay.ranges()[:2] == [asked, f"bytes={first + before}-{last}"]
    # The upstream gives half of what is asked for each time.
    reconnects = 1 if ranges == "1" else 7
    assert_whole(relay, found, WHOLE[first : last + 1], reconnects)


def test_a_part_that_ends_too_early_is_not_whole(relay: Continuing) -> None:
    """It says itself which bytes it has."""
    told: Options = {
        "status": 206,
        "framing": "chunked",
        "header": "Content-Range:bytes 0-1999/2000",
    }
    found = relay.fetched("plain", size=1000, **told)
    assert (found.status, found.exit_code()) == (206, CUT_SHORT)
    assert ended(relay.served, found.export_id)["error"]["code"] == "upstream_unavailable"


def test_more_than_the_part_is_not_taken(relay: Continuing) -> None:
    options = SOUND | {"ranges": "more", "cut": 300_000, "cut_times": 1}
    found = relay.fetched("plain", "Range: bytes=100-499999", **options)
    assert (found.status, found.exit_code()) == (206, CUT_SHORT)
    assert found.body == WHOLE[100:300_100]
    assert ended(relay.served, found.export_id)["error"]["code"] == "upstream_unavailable"


def test_several_parts_are_not_continued(relay: Continuing) -> None:
    options = SOUND | {"cut": 300_000, "cut_times": 1}
    found = relay.fetched("plain", "Range: bytes=0-499999,600000-", **options)
    assert (found.status, found.exit_code()) == (206, CUT_SHORT)
    assert len(relay.up.seen) == 1


def test_a_body_of_which_the_end_alone_is_missing_is_whole(relay: Continuing) -> None:
    """The upstream says itself that nothing follows."""
    found = relay.fetched("plain", **SOUND | {"cut_tail": "", "cut_tail_times": 1})
    assert_whole(relay, found, WHOLE, 1)
    assert relay.ranges() == [None, f"bytes={SIZE}-"]


def test_unless_it_is_of_another_version(relay: Continuing) -> None:
    options = {"ranges": "refused", "header": 'ETag:"other"', "header_after": 1}
    found = relay.fetched("plain", **SOUND | {"cut_tail": "", "cut_tail_times": 1} | options)
    assert (found.status, found.exit_code()) == (200, CUT_SHORT)


def test_coded_bytes_are_continued_as_they_are(relay: Continuing) -> None:
    options = SOUND | {"gzip": "", "cut": 500_000, "cut_times": 1}
    found = relay.fetched("plain", "Accept-Encoding: gzip", **options)
    assert found.exit_code() == 0
    assert found.body == encoded(SIZE)
    receipt = receipt_of(relay.served, found.export_id)
    assert receipt["encoded_sha256"] == hashlib.sha256(found.body).hexdigest()
    assert receipt["download"]["reconnects"] == 1


def test_lines_are_continued_in_the_middle_of_one(relay: Continuing) -> None:
    whole = b"".join(lines(500))
    options = {"n": 500, "etag": TAG, "ranges": 1, "cut_each": len(whole) // 3 + 1}
    url = relay.served.base + through("plain", "/lines", **options) + "&lines=1&chunk_size=4096"
    found = download(url, relay.folder)
    assert_whole(relay, found, whole, 2)


def test_the_limit_of_size_is_that_of_the_whole(relay: Continuing) -> None:
    found = relay.fetched("plain", **SOUND | {"cut_each": 400_000})
    assert_whole(relay, found, WHOLE, 2)
    told = relay.served.events("upstream failed")
    assert len([event for event in told if event["upstream"] == "plain"]) >= 2
