"""A file that changes while it is sent: nobody completes a mixture of two versions."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.peer import connected
from tests.serving import Served
from tests.waiting import wait_until
from tests.wire.shared_files import OLD as LONG_AGO
from tests.wire.shared_files import put, sharing

OLD, NEW = b"old " * 3_000_000, b"new " * 3_000_000
SMALL_BUFFER = 4096  # bytes; the kernel doubles it
LANES = ["", "?chunk_size=65536", "?receipt=1"]
RANGES = [None, f"bytes=1000-{len(OLD) - 1000}", f"bytes=0-9999999,10000001-{len(OLD) - 1}"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    with sharing(tmp_path_factory.mktemp("served"), module_database_url, root) as found:
        yield found


@contextmanager
def begun(
    served: Served, target: str, *fields: str, receive_buffer: int | None = SMALL_BUFFER
) -> Iterator[http.client.HTTPResponse]:
    """A download whose head has been read, with all buffers full."""
    with connected(served.base, receive_buffer=receive_buffer) as peer:
        peer.ask(f"/v1/files/files/{target}", *fields)
        with closing(http.client.HTTPResponse(peer.socket)) as response:
            response.begin()
            yield response


def rest(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """What comes, and whether it is all that was announced."""
    try:
        return response.read(), True
    except http.client.IncompleteRead as error:
        return error.partial, False


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(NEW)


def rewrite_the_end(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


def rewrite_and_set_back(path: Path) -> None:
    rewrite(path)
    os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def truncate_and_fill(path: Path) -> None:
    path.write_bytes(NEW)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(NEW)
    other.rename(path)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "change",
    [rewrite, rewrite_the_end, rewrite_and_set_back, truncate, truncate_and_fill, append],
)
def test_a_change_breaks_the_stream(
    served: Served, root: Path, lane: str, change: Callable[[Path], None]
) -> None:
    put(root / "file", OLD)
    with begun(served, f"file{lane}") as response:
        got = response.read(100_000)
        change(root / "file")
        more, whole = rest(response)
        assert not whole
        assert OLD.startswith(got + more)
        assert len(got + more) < len(OLD) - 1
    ended = served.events("stream ended")[-1]
    assert (ended["outcome"], "written to or cut" in ended["error"]) == ("failed", True)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("asked", RANGES[1:])
def test_a_change_breaks_ranges_too(served: Served, root: Path, lane: str, asked: str) -> None:
    put(root / "file", OLD)
    with begun(served, f"file{lane}", f"Range: {asked}") as response:
        assert response.status == 206
        got = response.read(100_000)
        rewrite(root / "file")
        more, whole = rest(response)
        assert not whole
        assert b"new" not in got + more


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("change", [replace, Path.unlink])
def test_one_that_is_replaced_is_sent_to_its_end(
    served: Served, root: Path, lane: str, change: Callable[[Path], None]
) -> None:
    put(root / "file", OLD)
    with begun(served, f"file{lane}") as response:
        got = response.read(100_000)
        change(root / "file")
        more, whole = rest(response)
        assert whole
        assert got + more == OLD


@pytest.mark.parametrize("lane", LANES)
def test_what_has_been_sent_stays_as_it_was(served: Served, root: Path, lane: str) -> None:
    """Also what waits in the buffers of a client on the same machine."""
    size, before = 2_000_000, len(served.events("stream ended"))
    put(root / "file", OLD[:size])
    with begun(served, f"file{lane}", receive_buffer=None) as response:
        got = response.read(500_000)  # so that the buffers grow
        wait_until(
            lambda: len(served.events("stream ended")) > before, within=30, what="all is sent"
        )
        rewrite(root / "file")
        more, whole = rest(response)
        assert whole
        assert got + more == OLD[:size]


def test_the_record_tells_why(served: Served, root: Path) -> None:
    put(root / "file", OLD)
    with begun(served, "file?receipt=1") as response:
        export = response.headers["X-Export-Id"]
        response.read(100_000)
        truncate(root / "file")
        rest(response)
    wait_until(
        lambda: served.get(f"/v1/exports/{export}")["state"] == "failed", within=10, what="failed"
    )
    assert served.get(f"/v1/exports/{export}")["error"]["code"] == "file_changed"
    assert served.get(f"/v1/exports/{export}/receipt")["outcome"] == "failed"
