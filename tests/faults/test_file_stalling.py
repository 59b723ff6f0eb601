"""Downloads of files whose client stops, is slow, or whose service stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.curl import CUT_SHORT, downloading
from tests.peer import connected
from tests.serving import Served
from tests.waiting import wait_until
from tests.wire.shared_files import LARGE, put, sharing

STALL = 1.0  # seconds
SMALL_BUFFER = 4096  # bytes; the kernel doubles it
ENDLESS = 1 << 34  # bytes
LANES = ["", "?chunk_size=65536", "?receipt=1"]
LONG = "60s"
EXIT_SECONDS = 20  # far below LONG


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    put(folder / "large.bin", LARGE * 4)
    with (folder / "endless").open("wb") as sparse:
        sparse.truncate(ENDLESS)
    return folder


@pytest.fixture(scope="module")
def served(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[Served]:
    """Impatient with clients that read nothing."""
    folder = tmp_path_factory.mktemp("served")
    with sharing(folder, module_database_url, root, limits__stall_timeout=f"{STALL}s") as found:
        yield found


def ended(served: Served) -> list[tuple[str, str | None]]:
    return [(one["outcome"], one["error"]) for one in served.events("stream ended")]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("taken", [0, 30_000_000])
def test_a_client_that_stops_reading_is_dropped(served: Served, lane: str, taken: int) -> None:
    before = len(ended(served))
    with connected(served.base, receive_buffer=None if taken else SMALL_BUFFER) as peer:
        peer.ask(f"/v1/files/files/endless{lane}")
        peer.read_head()
        peer.read_at_least(taken)
        wait_until(lambda: len(ended(served)) > before, within=30, what="the stream is broken")
        assert ended(served)[-1] == ("truncated", "The client read nothing for too long.")
        assert len(peer.read_all()) < ENDLESS


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("step", [512, 8192])
def test_a_slow_client_that_goes_on_reading_is_served(served: Served, lane: str, step: int) -> None:
    """It takes some bytes again and again before the time-out, too few to empty a buffer."""
    before = len(ended(served))
    with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
        peer.ask(f"/v1/files/files/endless{lane}")
        peer.read_head()
        until = time.monotonic() + 5 * STALL
        while time.monotonic() < until:
            assert peer.read(step)
            time.sleep(STALL / 20)  # this is the load: nothing is waited for
        assert len(ended(served)) == before
    # Its own end is told a little later, and is not to be taken for another one's.
    wait_until(lambda: len(ended(served)) > before, within=30, what="it has ended")


@pytest.mark.parametrize("lane", LANES)
def test_a_download_that_takes_too_long_is_broken_off(
    database_url: str, tmp_path: Path, root: Path, lane: str
) -> None:
    with (
        sharing(tmp_path, database_url, root, limits__max_duration="1s") as served,
        downloading(
            f"{served.base}/v1/files/files/endless{lane}", tmp_path, "--limit-rate", "1M"
        ) as found,
    ):
        assert found.exit_code() == CUT_SHORT
        wait_until(lambda: ended(served), within=10, what="it is told")
        assert ended(served)[-1] == ("failed", "The stream took longer than 1 s.")


@pytest.mark.parametrize("lane", LANES)
def test_a_running_download_may_end(
    database_url: str, tmp_path: Path, root: Path, lane: str
) -> None:
    with sharing(tmp_path, database_url, root, limits__drain_timeout=LONG) as served:
        with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
            peer.ask(f"/v1/files/files/large.bin{lane}")
            peer.read_head()
            served.process.send_signal(signal.SIGTERM)
            assert peer.read_all() == LARGE * 4
        assert served.process.wait(EXIT_SECONDS) == 0
        assert ended(served) == [("complete", None)]


@pytest.mark.parametrize("lane", LANES)
def test_one_that_does_not_end_in_time_is_broken(
    database_url: str, tmp_path: Path, root: Path, lane: str
) -> None:
    with sharing(tmp_path, database_url, root, limits__drain_timeout="500ms") as served:
        with connected(served.base, receive_buffer=SMALL_BUFFER) as peer:
            peer.ask(f"/v1/files/files/endless{lane}")
            peer.read_head()
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(EXIT_SECONDS) == 0
            assert len(peer.read_all()) < ENDLESS
        ((outcome, error),) = ended(served)
        assert (outcome, "stopping" in str(error)) == ("truncated", True)
