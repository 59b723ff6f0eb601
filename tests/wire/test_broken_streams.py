"""A stream that fails is seen to fail, whatever carries it; a whole one stays the same bytes.

The rows are computed: ``1 / abs(n - i)`` divides by zero at the row ``n`` and nowhere else.
"""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import zstandard
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp

from service.app import create_app
from service.configuration import load
from tests.curl import CUT_SHORT, Download, download, downloading
from tests.peer import connected
from tests.serving import Served, serving
from tests.session import Session, gated, session
from tests.waiting import wait_until
from tests.wire.nginx import NEEDED, WITHOUT_NGINX, example_nginx, plain_nginx

# What is before the middle has to be more than all buffers between database and client hold.
ROWS = 60_000
POINTS = {"first": 1, "middle": ROWS // 2, "last": ROWS, "never": ROWS + 10}
CONFIG = "\n".join(
    f"""
    [datasets.fails_{name}]
    sql = '''
        select i as id, md5(i::text) as word, 1 / abs({row} - i) as near
        from (select generate_series(1, {ROWS}) as i) s
    '''
    """
    for name, row in POINTS.items()
)
CONFIG += f"""
[datasets.gated]
sql = '''{gated(2_000, 10)}'''
[datasets.large]
sql = "select i as id, md5(i::text) as word from (select generate_series(1, 800000) as i) s"
"""
ORIGIN = "https://app.example"

PATHS = [
    "direct",
    pytest.param("nginx_1_0", marks=NEEDED),
    pytest.param("nginx_1_1", marks=NEEDED),
]
FORMATS = ("csv", "ndjson", "json")
COMPRESSIONS = ("none", "gzip", "zstd")


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    # With every layer of middleware that there is.
    with serving(
        folder,
        module_database_url,
        config=CONFIG,
        server__cors_origins=ORIGIN,
        limits__prime_timeout="60s",
        limits__stall_timeout="5s",
    ) as found:
        yield found


@pytest.fixture(scope="module")
def direct(served: Served) -> str:
    return served.base


@pytest.fixture(scope="module")
def nginx_1_0(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from plain_nginx(tmp_path_factory.mktemp("nginx"), served.base)


@pytest.fixture(scope="module")
def nginx_1_1(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from example_nginx(tmp_path_factory.mktemp("nginx"), served.base)


@pytest.fixture
def base(request: pytest.FixtureRequest) -> str:
    """The address of a way to the service: the parameter is the name of its fixture."""
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Session]:
    with session(module_database_url) as opened:
        yield opened


every_path = pytest.mark.parametrize("base", PATHS, indirect=True)
every_format = pytest.mark.parametrize("form", FORMATS)
every_compression = pytest.mark.parametrize("compression", COMPRESSIONS)


@cache
def whole(form: str) -> bytes:
    """The export that never fails, as one may read it in the manuals of the formats."""
    words = ((i, hashlib.md5(str(i).encode()).hexdigest()) for i in range(1, ROWS + 1))  # noqa: S324 - PostgreSQL's md5()
    if form == "csv":
        return b"id,word,near\n" + "".join(f"{i},{word},0\n" for i, word in words).encode()
    lines = [f'{{"id":{i},"word":"{word}","near":0}}' for i, word in words]
    if form == "ndjson":
        return "".join(f"{line}\n" for line in lines).encode()
    return ("[" + ",\n".join(lines) + "]\n").encode()


def readable(data: bytes, compression: str) -> bytes:
    """What can be read of a cut file."""
    if compression == "gzip":
        return zlib.decompressobj(wbits=31).decompress(data)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def passes_its_own_test(file: Path, compression: str) -> bool:
    """What ``gzip -t`` and ``zstd -t`` say."""
    with file.open("rb") as data:
        tested = subprocess.run(
            [compression, "-t"], stdin=data, capture_output=True, timeout=60, check=False
        )
    return tested.returncode == 0


def assert_recorded_as_failed(served: Served, found: Download) -> None:
    record = served.get(f"/v1/exports/{found.export_id}")
    receipt = served.get(f"/v1/exports/{found.export_id}/receipt")
    assert record["state"] == "failed"
    assert record["error"]["code"] == "source_error"
    assert record["error"]["sqlstate"] == "22012"  # division_by_zero
    assert receipt["outcome"] == "failed"


@every_path
@every_format
@every_compression
def test_what_fails_before_the_first_row_is_a_real_error(
    served: Served, base: str, form: str, compression: str, tmp_path: Path
) -> None:
    url = f"{base}/v1/rows/fails_first.{form}?compression={compression}"
    found = download(url, tmp_path)
    assert found.exit_code() == 0
    assert found.status == 502
    assert found.headers["content-type"] == "application/problem+json"
    assert "content-encoding" not in found.headers
    assert "x-export-id" not in found.headers
    assert b'"code":"source_error"' in found.body


@every_path
@every_format
@every_compression
@pytest.mark.parametrize("point", ["middle", "last"])
def test_what_fails_later_breaks_off(
    served: Served, base: str, form: str, compression: str, point: str, tmp_path: Path
) -> None:
    url = f"{base}/v1/rows/fails_{point}.{form}?compression={compression}&chunk_size=4096"
    found = download(url, tmp_path)
    assert found.status == 200
    assert found.exit_code() == CUT_SHORT
    data = readable(found.body, compression)
    assert data
    assert len(data) < len(whole(form))
    # Nothing but rows: neither the error's text nor the frame's end.
    assert whole(form).startswith(data)
    if compression != "none":
        assert not passes_its_own_test(found.file, compression)
    assert_recorded_as_failed(served, found)


@every_path
@every_format
@every_compression
def test_a_whole_stream_is_the_same_on_every_way(
    served: Served, base: str, form: str, compression: str, tmp_path: Path
) -> None:
    found = download(f"{base}/v1/rows/fails_never.{form}?compression={compression}", tmp_path)
    assert found.exit_code() == 0
    if compression != "none":
        assert passes_its_own_test(found.file, compression)
    assert readable(found.body, compression) == whole(form)
    receipt = served.get(f"/v1/exports/{found.export_id}/receipt")
    assert receipt["outcome"] == "complete"
    assert receipt["rows"] == ROWS
    assert receipt["bytes"] == found.size
    assert receipt["sha256"] == hashlib.sha256(found.body).hexdigest()


TRANSIT = ["gzip", "zstd"]


@every_path
@every_format
@pytest.mark.parametrize("coding", TRANSIT)
@pytest.mark.parametrize("point", ["middle", "last"])
def test_a_coded_transfer_breaks_off_too(
    served: Served, base: str, form: str, coding: str, point: str, tmp_path: Path
) -> None:
    url = f"{base}/v1/rows/fails_{point}.{form}?chunk_size=4096"
    found = download(url, tmp_path, "--compressed", "-H", f"Accept-Encoding: {coding}")
    assert found.headers["content-encoding"] == coding
    assert found.exit_code() == CUT_SHORT
    assert found.body  # as curl has decoded it
    assert found.size < len(whole(form))
    assert whole(form).startswith(found.body)
    assert_recorded_as_failed(served, found)


@every_path
@pytest.mark.parametrize("coding", TRANSIT)
def test_a_cut_transfer_fails_in_its_own_test(
    served: Served, base: str, coding: str, tmp_path: Path
) -> None:
    """For a client that decodes without looking at the connection."""
    url = f"{base}/v1/rows/fails_last.csv"
    found = download(url, tmp_path, "-H", f"Accept-Encoding: {coding}")
    assert found.exit_code() == CUT_SHORT
    assert found.size > 0
    assert not passes_its_own_test(found.file, coding)


@every_path
@pytest.mark.parametrize("coding", TRANSIT)
def test_a_whole_coded_transfer_is_the_same_file(
    served: Served, base: str, coding: str, tmp_path: Path
) -> None:
    url = f"{base}/v1/rows/fails_never.csv"
    found = download(url, tmp_path, "--compressed", "-H", f"Accept-Encoding: {coding}")
    raw = download(url, tmp_path, "-H", f"Accept-Encoding: {coding}")
    assert (found.exit_code(), raw.exit_code()) == (0, 0)
    assert found.body == whole("csv")
    assert passes_its_own_test(raw.file, coding)
    receipt = served.get(f"/v1/exports/{raw.export_id}/receipt")
    assert receipt["sha256"] == hashlib.sha256(found.body).hexdigest()
    assert receipt["bytes"] == found.size
    assert receipt["encoded_sha256"] == hashlib.sha256(raw.body).hexdigest()
    assert receipt["encoded_bytes"] == raw.size


@every_path
def test_an_early_error_is_never_coded(base: str, tmp_path: Path) -> None:
    found = download(f"{base}/v1/rows/fails_first.csv", tmp_path, "-H", "Accept-Encoding: gzip")
    assert found.status == 502
    assert "content-encoding" not in found.headers
    assert b'"code":"source_error"' in found.body


@every_format
@every_compression
@pytest.mark.parametrize("point", ["middle", "last"])
def test_an_http_1_0_client_sees_the_break(
    served: Served, form: str, compression: str, point: str, tmp_path: Path
) -> None:
    url = f"{served.base}/v1/rows/fails_{point}.{form}?compression={compression}&chunk_size=4096"
    found = download(url, tmp_path, "-0")
    assert found.exit_code() == CUT_SHORT
    assert readable(found.body, compression)
    assert whole(form).startswith(readable(found.body, compression))
    assert_recorded_as_failed(served, found)


@every_format
def test_an_http_1_0_client_gets_a_whole_stream(served: Served, form: str, tmp_path: Path) -> None:
    found = download(f"{served.base}/v1/rows/fails_never.{form}", tmp_path, "-0")
    assert found.exit_code() == 0
    assert found.body == whole(form)


@pytest.mark.nginx
@WITHOUT_NGINX
def test_behind_nginx_an_http_1_0_client_has_only_the_receipt(
    served: Served, nginx_1_0: str, tmp_path: Path
) -> None:
    """nginx has no way to tell such a client of the break, so the example refuses it."""
    found = download(f"{nginx_1_0}/v1/rows/fails_last.csv", tmp_path, "-0")
    assert "transfer-encoding" not in found.headers
    assert_recorded_as_failed(served, found)


@pytest.mark.nginx
@WITHOUT_NGINX
class TestExample:
    """docs/nginx.conf, which is also the path nginx_1_1 of every other test."""

    def test_it_refuses_streams_to_http_1_0(self, nginx_1_1: str, tmp_path: Path) -> None:
        assert download(f"{nginx_1_1}/v1/rows/fails_never.csv", tmp_path, "-0").status == 505
        assert download(f"{nginx_1_1}/livez", tmp_path, "-0").status == 200

    def test_links_lead_back_through_it(self, nginx_1_1: str, tmp_path: Path) -> None:
        found = download(f"{nginx_1_1}/v1/rows/fails_never.csv", tmp_path)
        receipt = f"{nginx_1_1}/v1/exports/{found.export_id}/receipt"
        assert found.headers["link"] == f'<{receipt}>; rel="receipt"'
        assert download(receipt, tmp_path).status == 200

    def test_rows_leave_while_the_query_still_runs(
        self, nginx_1_1: str, database: Session, tmp_path: Path
    ) -> None:
        database.close_gate()
        with downloading(f"{nginx_1_1}/v1/rows/gated.csv", tmp_path) as found:
            wait_until(lambda: found.body.count(b"\n") > 1_900, within=30, what="rows arrive")
            assert database.exporting() == 1
            database.open_gate()
            assert found.exit_code() == 0
        assert found.body.count(b"\n") == 1 + 2_010

    def test_whoever_leaves_takes_the_query_along(
        self, nginx_1_1: str, database: Session, tmp_path: Path
    ) -> None:
        database.close_gate()
        with downloading(f"{nginx_1_1}/v1/rows/gated.csv", tmp_path) as found:
            wait_until(lambda: found.size, within=30, what="rows arrive")
        wait_until(lambda: not database.exporting(), within=10, what="the query is gone")
        database.open_gate()

    def test_whoever_reads_nothing_is_seen_through_it(self, served: Served, nginx_1_1: str) -> None:
        """With nginx's own buffering the stream would end up on its disk, and look complete."""
        with connected(nginx_1_1, receive_buffer=4096) as peer:
            peer.ask("/v1/rows/large.csv")
            export = peer.read_head().decode().lower().split("x-export-id: ")[1].split()[0]
            path = f"/v1/exports/{export}"
            wait_until(
                lambda: served.get(path)["state"] != "running", within=60, what="the stream ends"
            )
            assert served.get(path)["error"]["code"] == "client_stalled"


def test_a_failing_stream_breaks_through_the_whole_app(served: Served, tmp_path: Path) -> None:
    """With the middleware that only some settings bring."""
    url = f"{served.base}/v1/rows/fails_last.csv"
    found = download(url, tmp_path, "-H", f"Origin: {ORIGIN}", "-H", "X-Request-Id: broken-1")
    assert found.headers["access-control-allow-origin"] == ORIGIN
    assert found.headers["x-request-id"] == "broken-1"
    assert found.exit_code() == CUT_SHORT


def test_no_middleware_can_end_a_broken_stream_cleanly(database_url: str) -> None:
    """BaseHTTPMiddleware does: whatever fails behind it ends with a last chunk."""
    settings = load(None, {}, {"server.cors_origins": ["*"]})
    layers = list(layers_of(create_app(settings, database_url).build_middleware_stack()))
    assert "RequestContext" in [type(layer).__name__ for layer in layers]
    assert "CORSMiddleware" in [type(layer).__name__ for layer in layers]
    assert not [layer for layer in layers if isinstance(layer, BaseHTTPMiddleware)]


def layers_of(app: ASGIApp | None) -> Iterator[ASGIApp]:
    while app is not None:
        yield app
        app = getattr(app, "app", None) or getattr(app, "_app", None)
