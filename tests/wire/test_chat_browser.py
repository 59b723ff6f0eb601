"""A browser's EventSource reads a generation: it comes back by itself, and stays away at the end."""

from __future__ import annotations

import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.chatting import OPENING, body, chat_service, path, shown, started

SECONDS = 60.0
CUT = 600  # bytes after which the first connection breaks: in the middle of the tokens
CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# It never closes the source itself: whether that is done is what is asked.
PAGE = """<!doctype html><meta charset="utf-8"><script>
const seen = [], source = new EventSource("EVENTS");
for (const name of ["start", "token", "progress", "done", "close", "reset", "error"])
  source.addEventListener(name, (event) => {
    if (event.data !== undefined) seen.push([event.type, event.lastEventId, JSON.parse(event.data)]);
  });
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED)
    fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
});
</script>"""


class Front(ThreadingHTTPServer):
    """The page, and before the service: it breaks the first connection to it."""

    daemon_threads = True

    def __init__(self, service: str, events: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.service = urlsplit(service).netloc
        self.page = PAGE.replace("EVENTS", events).encode()
        self.posted: queue.Queue[list[tuple[str, str, dict[str, object]]]] = queue.Queue()
        self.asked: list[tuple[str | None, int]] = []  # Last-Event-ID, and the answer's status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = SECONDS
    server: Front

    def do_GET(self) -> None:
        if self.path.startswith("/v1/"):
            self._pass_on()
        else:
            self._whole(200 if self.path == "/" else 404, self.server.page)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self._whole(200, b"")
        self.server.posted.put([(name, last, data) for name, last, data in json.loads(content)])

    def _pass_on(self) -> None:
        last = self.headers["Last-Event-ID"]
        connection = http.client.HTTPConnection(self.server.service, timeout=SECONDS)
        with closing(connection):
            connection.request("GET", self.path, headers={"Last-Event-ID": last} if last else {})
            with connection.getresponse() as answer:
                first = not self.server.asked
                self.server.asked.append((last, answer.status))
                self.send_response(answer.status)
                for name in ("Content-Type", "Cache-Control"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Connection", "close")
                self.end_headers()
                left = CUT if first else None
                while data := answer.read1(left or 65_536):
                    self.wfile.write(data)
                    left = None if left is None else left - len(data)
                    if left == 0:
                        return

    def _whole(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@contextmanager
def front(service: str, events: str) -> Iterator[Front]:
    with Front(service, events) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browsing(url: str, profile: Path) -> Iterator[None]:
    command = (str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", url)
    quiet = subprocess.DEVNULL
    browser = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_an_event_source_reads_it_once_and_stays_away(
    module_database_url: str, tmp_path: Path
) -> None:
    words = "Grüße 世界 " * 40
    with chat_service(tmp_path / "served", module_database_url) as served:
        generation = started(served.base, body(words, provider="slow"))
        with (
            front(served.base, path(generation, "/events")) as server,
            browsing(f"http://127.0.0.1:{server.server_port}/", tmp_path / "profile"),
        ):
            seen = server.posted.get(timeout=SECONDS)
        found = shown(served.base, generation)
    assert [int(last) for _, last, _ in seen] == list(range(1, len(seen) + 1))
    assert [seen[0][0], seen[-2][0], seen[-1][0]] == ["start", "done", "close"]
    text = "".join(str(data["t"]) for name, _, data in seen if name == "token")
    assert text == found["text"] == OPENING + words
    (first, one), (second, two), (third, three) = server.asked
    assert (first, one, two, three) == (None, 200, 200, 204)
    assert second is not None
    assert 1 <= int(second) < len(seen) - 2
    assert third == str(len(seen))
