"""Files from disk against nginx's sendfile, relays against its proxy_pass, and many at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.environment import Unavailable
from bench.probe import probing
from bench.result import Measured, Row, left_out, ratio_row
from bench.rivals import file_server, proxy, tutorial
from bench.service_under_test import Bench, serve
from bench.timing import Rounds, Run, Way, command, curl, percentile, percentiles

SIZE = 300 * 1024 * 1024  # bytes
SMALL = 20 * 1024 * 1024
AT_ONCE = 100
FILE, PART = "large.bin", "small.bin"
CONFIG = """
[files.bench]
path = "{folder}"
max_downloads = 1000
[upstreams.bench]
base_url = "{upstream}/"
max_connections = 1000
"""
SENDFILE, PROXY_PASS = "nginx, sendfile", "nginx, proxy_pass"
FILE_RESPONSE, HTTPX = "tutorial's FileResponse", "tutorial's httpx2 relay"
IDLE_SECONDS = 2.0
MORE_RUNS = 3  # times as many rounds: each takes a second


def downloads(bench: Bench, runs: int) -> Iterator[Measured]:
    """One large file, all ways in turn, from and through one nginx; then a hundred at once."""
    folder = _files(bench.folder)
    try:
        with ExitStack() as stack:
            upstream = stack.enter_context(file_server(bench, folder))
            behind = stack.enter_context(proxy(bench, upstream))
            teacher = stack.enter_context(tutorial(bench))
            config = CONFIG.format(folder=folder, upstream=upstream)
            home = bench.folder / "downloads"
            base = stack.enter_context(serve(home, bench.url, config, "--no-worker")).base
            files = _file_ways(base, upstream, teacher, folder)
            yield from _files_against(Rounds(*files, runs=MORE_RUNS * runs))
            relays = _relay_ways(base, upstream, behind, teacher)
            yield from _relays_against(Rounds(*relays, runs=MORE_RUNS * runs))
            yield from _many(base)
    except Unavailable as why:
        yield left_out("downloads", why)


def _files(folder: Path) -> Path:
    """Bytes that nothing on the way could make fewer of, in the page cache."""
    made = folder / "files"
    made.mkdir(exist_ok=True)
    for name, size in ((FILE, SIZE), (PART, SMALL)):
        file = made / name
        if not file.exists() or file.stat().st_size != size:
            file.write_bytes(os.urandom(size))
        file.read_bytes()
    return made


def _file_ways(base: str, upstream: str, teacher: str, folder: Path) -> list[Way]:
    ours = f"{base}/v1/files/bench/{FILE}"
    return [
        _way(SENDFILE, f"{upstream}/{FILE}"),
        _way("file", ours),
        _way("file, with a receipt", f"{ours}?receipt=1"),
        _way("file, chunk_size=262144", f"{ours}?chunk_size=262144"),
        _way(FILE_RESPONSE, f"{teacher}/file?path={folder / FILE}"),
    ]


def _files_against(rounds: Rounds) -> Iterator[Row]:
    what = "file of 300 MiB"
    yield ratio_row(rounds, what, "file", SENDFILE, 1.25)
    yield ratio_row(rounds, f"{what}, with a receipt", "file, with a receipt", SENDFILE)
    yield ratio_row(rounds, f"{what}, chunk_size=262144", "file, chunk_size=262144", SENDFILE)
    yield ratio_row(rounds, what, "file", FILE_RESPONSE)


def _relay_ways(base: str, upstream: str, behind: str, teacher: str) -> list[Way]:
    ours = f"{base}/v1/relay/bench/{FILE}"
    return [
        _way(PROXY_PASS, f"{behind}/{FILE}"),
        _way("relay", ours),
        _way("relay, chunk_size=262144", f"{ours}?chunk_size=262144"),
        _way(HTTPX, f"{teacher}/relay?url={upstream}/{FILE}"),
    ]


def _relays_against(rounds: Rounds) -> Iterator[Row]:
    what = "relay of 300 MiB, with its receipt"
    yield ratio_row(rounds, what, "relay", PROXY_PASS, 1.0)
    yield ratio_row(rounds, f"{what}, chunk_size=262144", "relay, chunk_size=262144", PROXY_PASS)
    yield ratio_row(rounds, what, "relay", HTTPX)


def _way(name: str, url: str) -> Way:
    return Way(name, curl(url, least=SIZE), 1)


def _many(base: str) -> Iterator[Row]:
    """How late /livez is while a hundred clients download at once."""
    idle = _late(base, lambda: time.sleep(IDLE_SECONDS))
    for what, path in (("files", "files"), ("relays", "relay")):
        crowd = _crowd(f"{base}/v1/{path}/bench/{PART}")
        delays = _late(base, crowd)
        figure, value = percentiles(delays), percentile(delays, 99) * 1000
        baseline = f"nothing else: {percentiles(idle)}"
        yield Row(f"/livez beside {AT_ONCE} {what} at once", figure, baseline, value)


def _crowd(url: str) -> Run:
    """One curl with a connection for each download: a hundred processes would starve the probe."""
    several = [part for _ in range(AT_ONCE) for part in ("-o", "/dev/null", url)]
    most = str(AT_ONCE)
    return command("curl", "-sSf", "-Z", "--parallel-immediate", "--parallel-max", most, *several)


def _late(base: str, work: Callable[[], object]) -> list[float]:
    delays: list[float] = []
    with probing(f"{base}/livez", delays, from_due=False):
        work()
    return delays
