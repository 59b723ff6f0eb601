"""Another application's generators over real sockets: ``examples/generators.py`` as it stands."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from tests.curl import CUT_SHORT, download, downloading
from tests.peer import connected
from tests.waiting import wait_until

ROWS = 60_000
AT_ONCE = 4  # streams that the example lets run
MEMORY = 24 * 1024 * 1024  # bytes
CLOSED_WITHIN = 2.0  # seconds from leaving to the generator's own finally


@dataclass(frozen=True)
class Example:
    base: str
    process: subprocess.Popen[bytes]
    log: Path

    def count(self, text: str) -> int:
        return self.log.read_text().count(text)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    port, log = free_port(), tmp_path_factory.mktemp("example") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "examples.generators:app", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    found = Example(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(lambda: answers(found), within=30, what="the application answers")
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)


def answers(example: Example) -> bool:
    assert example.process.poll() is None, example.log.read_text()
    try:
        with urlopen(f"{example.base}/openapi.json", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def closing_soon(example: Example, said: str) -> Iterator[None]:
    """Soon after the block another generator has said that its finally ran."""
    before = example.count(said)
    yield
    wait_until(lambda: example.count(said) > before, within=CLOSED_WITHIN, what=said)


def lines(rows: int) -> bytes:
    return b"".join(b'{"number":%d,"square":%d}\n' % (n, n * n) for n in range(1, rows + 1))


def test_the_bytes_are_those_of_the_rows_and_proved(example: Example, tmp_path: Path) -> None:
    found = download(f"{example.base}/squares.ndjson?rows={ROWS}&end=1", tmp_path)
    assert found.exit_code() == 0
    body, end = found.body[: -len(b"\n")].rsplit(b"\n", 1)
    data = body + b"\n"
    assert data == lines(ROWS)
    proof = json.loads(end)["_end"]
    assert (proof["rows"], proof["sha256"]) == (ROWS, hashlib.sha256(data).hexdigest())
    wait_until(
        lambda: example.count(hashlib.sha256(found.body).hexdigest()) == 1,
        within=10,
        what="the receipt is in the log",
    )


@pytest.mark.parametrize(
    ("suffix", "first"), [("csv", b"number,at\n1,"), ("json", b'[{"number":1,')]
)
def test_an_asynchronous_one(example: Example, tmp_path: Path, suffix: str, first: bytes) -> None:
    found = download(f"{example.base}/ticks.{suffix}?rows=5&seconds=0.01", tmp_path)
    assert found.exit_code() == 0
    assert found.body.startswith(first)
    assert found.headers["content-disposition"] == f'attachment; filename="ticks.{suffix}"'


def test_a_row_arrives_while_the_next_one_is_awaited(example: Example) -> None:
    with connected(example.base) as peer, closing_soon(example, "ticks closed"):
        peer.ask("/ticks.ndjson?rows=2&seconds=3600")
        assert peer.read_head().startswith(b"HTTP/1.1 200")
        assert b'{"number":1,' in peer.read_at_least(20)
        peer.finish()


def test_compressed_in_transit_and_as_a_file(example: Example, tmp_path: Path) -> None:
    plain = download(f"{example.base}/squares.csv?rows={ROWS}", tmp_path)
    coded = download(
        f"{example.base}/squares.csv?rows={ROWS}", tmp_path, "-H", "Accept-Encoding: gzip"
    )
    packed = download(f"{example.base}/squares.csv?rows={ROWS}&compression=gzip", tmp_path)
    assert coded.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in packed.headers
    assert gzip.decompress(coded.body) == gzip.decompress(packed.body) == plain.body


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "json"])
@pytest.mark.parametrize("options", ["", "&compression=gzip"])
def test_one_that_raises_in_the_middle_breaks(
    example: Example, tmp_path: Path, suffix: str, options: str
) -> None:
    closed = example.count("squares closed")
    found = download(f"{example.base}/squares.{suffix}?fail_at={ROWS}{options}", tmp_path)
    assert found.status == 200
    assert found.exit_code() == CUT_SHORT
    assert b"cannot be made" not in found.body
    assert example.count("squares closed") == closed + 1


def test_one_that_raises_at_once_is_an_error(example: Example, tmp_path: Path) -> None:
    found = download(f"{example.base}/squares.csv?fail_at=1", tmp_path)
    assert (found.status, found.exit_code()) == (500, 0)
    assert b"cannot be made" not in found.body


@pytest.mark.parametrize(
    ("path", "status"),
    [("/squares.xml", 404), ("/squares.csv?end=1", 400), ("/squares.csv?compression=rar", 400)],
)
def test_mistakes_have_a_status(example: Example, tmp_path: Path, path: str, status: int) -> None:
    found = download(f"{example.base}{path}", tmp_path)
    assert found.status == status
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("how", ["finish", "reset"])
@pytest.mark.parametrize("read", [1, 1_000_000])
def test_a_client_that_leaves_closes_the_generator(example: Example, how: str, read: int) -> None:
    for _ in range(5):  # more than run at once, so the slots come back
        with connected(example.base) as peer, closing_soon(example, "squares closed"):
            peer.ask("/squares.ndjson")
            peer.read_at_least(read)
            getattr(peer, how)()


def test_memory_is_flat_for_a_reader_that_is_slow(example: Example) -> None:
    process = psutil.Process(example.process.pid)

    def resident() -> int:
        return int(process.memory_info().rss)

    with connected(example.base) as peer:
        peer.ask("/squares.ndjson")
        peer.read_at_least(5_000_000)
    before, highest = resident(), 0
    with connected(example.base, receive_buffer=4096) as peer:
        peer.ask("/squares.ndjson")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert peer.read(512)
            highest = max(highest, resident())
    assert highest - before < MEMORY


def test_who_finds_no_slot_is_told(example: Example, tmp_path: Path) -> None:
    url = f"{example.base}/ticks.csv?rows=2&seconds=3600"
    with ExitStack() as peers:
        for _ in range(AT_ONCE):
            running = peers.enter_context(downloading(url, tmp_path))
            wait_until(lambda found=running: found.status == 200, within=10, what="it runs")  # type: ignore[misc]  # mypy infers no type for it
        found = download(f"{example.base}/squares.csv?rows=1", tmp_path)
    assert found.status == 503
    assert int(found.headers["retry-after"]) > 0
