"""Our events as five readers take them that were not written here, over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import httpx
import httpx2
import httpx_sse
import ld_eventsource  # type: ignore[import-untyped]  # it ships no marker of its types
import orjson
import pytest
import sseclient

from service.sse import MEDIA_TYPE, PING, comment, frame, json_data, retry

Event = tuple[str, str, str]  # name, data, last event ID

SECONDS = 60.0
PIECE = 7  # bytes that sseclient-py is given at a time
CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Server(ThreadingHTTPServer):
    """It sends ``stream`` in odd pieces at ``/events``, and a page that reads it at ``/``."""

    daemon_threads = True

    def __init__(self, stream: bytes, seed: int, names: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stream, self.seed = stream, seed
        self.page = PAGE.replace("NAMES", json.dumps(sorted(names))).encode()
        self.posted: queue.Queue[list[list[str]]] = queue.Queue()
        self.base = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = SECONDS
    server: Server

    def do_GET(self) -> None:
        match self.path:
            case "/events":
                self._head(200, MEDIA_TYPE, "Transfer-Encoding", "chunked")
                for piece in pieces(self.server.stream, self.server.seed):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            case "/":
                self._whole(200, self.server.page)
            case _:
                self._whole(404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._whole(200, b"")
        self.server.posted.put(json.loads(body))

    def _whole(self, status: int, body: bytes) -> None:
        self._head(status, "text/html; charset=utf-8", "Content-Length", str(len(body)))
        self.wfile.write(body)

    def _head(self, status: int, media_type: str, name: str, value: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


# A browser connects again at the end of a stream, which is an error to the page.
PAGE = """<!doctype html><meta charset="utf-8"><script>
const seen = [], source = new EventSource("/events");
for (const name of NAMES)
  source.addEventListener(name, (event) => seen.push([event.type, event.data, event.lastEventId]));
source.onerror = () => {
  source.close();
  fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
};
</script>"""


def pieces(stream: bytes, seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    place = 0
    while place < len(stream):
        size = dice.choice((1, 1, 2, 3, 5, 17, 400, 5000))
        yield stream[place : place + size]
        place += size


@contextmanager
def serving(stream: bytes, seed: int, names: set[str]) -> Iterator[Server]:
    with Server(stream, seed, names) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def by_httpx2(base: str) -> list[Event]:
    with httpx2.Client(timeout=SECONDS) as client, client.sse(f"{base}/events") as source:
        return [(event.event, event.data, event.id) for event in source]


def by_httpx_sse(base: str) -> list[Event]:
    with (
        httpx.Client(timeout=SECONDS) as client,
        httpx_sse.connect_sse(client, "GET", f"{base}/events") as source,
    ):
        return [(event.event, event.data, event.id) for event in source.iter_sse()]


def by_sseclient(base: str) -> list[Event]:
    """It tells the id of an event alone, and leaves the last one to its user."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=SECONDS)
    with closing(connection):
        connection.request("GET", "/events")
        response = connection.getresponse()
        events, last_id = [], ""
        for event in sseclient.SSEClient(iter(lambda: response.read(PIECE), b"")).events():
            last_id = last_id if event.id is None else event.id
            events.append((event.event, event.data, last_id))
        return events


def by_launchdarkly(base: str) -> list[Event]:
    with ld_eventsource.SSEClient(f"{base}/events") as client:
        return [(event.event, event.data, event.last_event_id or "") for event in client.events]


def by_lines(base: str) -> list[Event]:
    """What is written in a hurry: httpx's lines are those of str.splitlines."""
    events, fields = [], dict[str, str]()
    with httpx.stream("GET", f"{base}/events", timeout=SECONDS) as response:
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                events.append((fields.pop("event"), fields.pop("data"), fields.get("id", "")))
    return events


READERS: Mapping[str, Callable[[str], list[Event]]] = {
    "httpx2": by_httpx2,
    "httpx-sse": by_httpx_sse,
    "sseclient-py": by_sseclient,
    "launchdarkly-eventsource": by_launchdarkly,
}


def by_chromium(server: Server, profile: Path) -> list[Event]:
    command = (str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", f"{server.base}/")
    quiet = subprocess.DEVNULL
    browser = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        return [(name, data, last_id) for name, data, last_id in server.posted.get(timeout=SECONDS)]
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


def read_by(reader: str, stream: bytes, seed: int, names: set[str], profile: Path) -> list[Event]:
    with serving(stream, seed, names | {"message"}) as server:
        if reader == "chromium":
            return by_chromium(server, profile)
        return READERS[reader](server.base)


EVERY_READER = pytest.mark.parametrize(
    "reader",
    [
        *READERS,
        pytest.param(
            "chromium",
            marks=pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
        ),
    ],
)

ODD = "\x85\u2028\u2029\u00a0\ufeff"
VALUES = [
    {},
    {"state": "running", "rows": 123_456, "eta_s": 1.5},
    {
        "text": 'é ü 漢字 \U0001f600 \0\r\n\t\v\f\x1c\x1d\x1e\x7f"\\ ' + ODD,
        ODD: ["data: x\n\nid: 9"],
    },
    ["x" * 100_000, "漢" * 30_000],
    " ",
]
JSONS = [json_data(orjson.dumps(value)) for value in VALUES]
TEXTS = {  # what arrives, by what is sent
    "": "",
    " a ": " a ",
    ": a": ": a",
    "data: a": "data: a",
    "a\nb": "a\nb",
    "a\rb\r\nc": "a\nb\nc",
    "\n\r\na\n\n": "\n\na\n\n",
    "a\0b": "a\0b",
    f"a\v\f\x1c\x1d\x1e\x7f{ODD}b": f"a\v\f\x1c\x1d\x1e\x7f{ODD}b",
    ODD: ODD,
}


def example() -> tuple[bytes, list[Event]]:
    """A stream of every kind of block, and the events that are in it."""
    blocks = [retry(50), PING, frame("hello", "", retry_ms=50)]
    events = [("hello", "", "")]
    for place, data in enumerate(JSONS, 1):
        blocks += [frame("state", data, id=place), PING, frame("progress", data)]
        events += [(name, data.decode(), str(place)) for name in ("state", "progress")]
    blocks.append(comment("data: a\ndata: b\n\ndata: c"))
    for sent, arrived in TEXTS.items():
        blocks.append(frame("größe", sent, id=f" 9 {arrived.count('a')}é"))
        events.append(("größe", arrived, f" 9 {arrived.count('a')}é"))
    blocks += [frame("end", "{}", id=""), PING]
    return b"".join(blocks), [*events, ("end", "{}", "")]


@EVERY_READER
@pytest.mark.parametrize("seed", range(3))
def test_every_reader_sees_every_event(reader: str, seed: int, tmp_path: Path) -> None:
    stream, expected = example()
    names = {name for name, _, _ in expected}
    seen = read_by(reader, stream, seed, names, tmp_path)
    assert len(seen) == len(expected)
    for event, wanted in zip(seen, expected, strict=True):
        assert event == wanted


@EVERY_READER
def test_no_reader_makes_events_of_lines_between_events(reader: str, tmp_path: Path) -> None:
    stream = retry(50) + PING + frame("a", "1", id=1) + PING + retry(50) + frame("b", "2", id=2)
    seen = read_by(reader, stream + PING, 0, {"a", "b"}, tmp_path)
    assert sorted(seen) == [("a", "1", "1"), ("b", "2", "2")]


def test_json_reaches_those_who_read_lines() -> None:
    with serving(b"".join(frame("state", data) for data in JSONS), 0, set()) as server:
        seen = by_lines(server.base)
    assert [json.loads(data) for _, data, _ in seen] == VALUES
    raw = frame("state", orjson.dumps(VALUES[2]))
    with serving(raw, 0, set()) as server:
        [(_, data, _)] = by_lines(server.base)
    with pytest.raises(json.JSONDecodeError):
        json.loads(data)
