"""Who reads the tokens of ``bench.stand_in``, from itself or through others.

``python -m bench.tokens URL ACCEPT BODY AT_ONCE WITHIN TIMES`` asks AT_ONCE times, the first time
at once and the last time WITHIN seconds later, and all of that TIMES times. Each reader is a bare
socket and looks for the tokens only, so that it is the same for every format. The program gives
the answers as JSON.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

TOKEN = re.compile(rb"@(\d+) ")
END = b"\r\n0\r\n\r\n"
READ_BYTES = 65_536
CONNECT_SECONDS = 60
PATIENCE = 120.0  # seconds in which nothing comes
SECOND = 1e9  # nanoseconds
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Question:
    """A POST; ``count`` tokens are to come."""

    url: str
    body: str
    count: int
    accept: str = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """When it was asked for, and of each token when it was sent and when it came: nanoseconds."""

    asked: int
    sent: Sequence[int]
    came: Sequence[int]

    @property
    def first(self) -> float:
        """The seconds from the request to its first token."""
        return (self.came[0] - self.asked) / SECOND

    @property
    def delays(self) -> list[float]:
        """The seconds that each token was under way."""
        return [(came - sent) / SECOND for sent, came in zip(self.sent, self.came, strict=True)]


def asked(
    question: Question, *, at_once: int = 1, within: float = 0.0, times: int = 1
) -> list[Answer]:
    """The answers, read in a process of its own; each has to have all of its tokens, in order."""
    what = (question.url, question.accept, question.body, at_once, within, times)
    done = subprocess.run(
        [sys.executable, "-m", "bench.tokens", *map(str, what)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    answers = [Answer(**found) for found in json.loads(done.stdout)]
    assert len(answers) == at_once * times, f"{len(answers)} answers came"
    for answer in answers:
        assert len(answer.sent) == question.count, f"{len(answer.sent)} tokens came"
        assert list(answer.sent) == sorted(set(answer.sent)), "tokens came twice, or in disorder"
    return answers


class Reader:
    """One connection, and what came on it."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.socket = socket.create_connection(address, timeout=CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._unread = b""
        self._answered = False
        self._asked = 0
        self._sent: list[int] = []
        self._came: list[int] = []

    def ask(self) -> None:
        self._asked = time.monotonic_ns()
        self.socket.sendall(self._request)

    def read(self) -> bool:
        """Whether that was the end."""
        data = self.socket.recv(READ_BYTES)
        now = time.monotonic_ns()
        assert data, "an answer broke off"
        self._unread += data
        if not self._answered:
            assert data.startswith(b"HTTP/1.1 200 "), data[:500]
            self._answered = True
        behind = 0
        for token in TOKEN.finditer(self._unread):
            self._sent.append(int(token[1]))
            self._came.append(now)
            behind = token.end()
        self._unread = self._unread[behind:]
        return self._unread.endswith(END)

    def answer(self) -> Answer:
        self.socket.close()
        return Answer(self._asked, self._sent, self._came)


def read(readers: Sequence[Reader], within: float) -> Iterator[Answer]:
    """Have all of them ask, one after another within so many seconds; gives what they get."""
    poll, open_ = select.epoll(), {reader.socket.fileno(): reader for reader in readers}
    waiting, pause = list(reversed(readers)), within / len(readers)
    due = time.monotonic()
    while open_:
        while waiting and due <= time.monotonic():
            reader = waiting.pop()
            poll.register(reader.socket, select.EPOLLIN)
            reader.ask()
            due += pause
        patience = max(0.0, due - time.monotonic()) if waiting else PATIENCE
        found = poll.poll(patience)
        assert found or waiting, "no token came any more"
        for number, _ in found:
            if open_[number].read():
                poll.unregister(number)
                yield open_.pop(number).answer()


def main() -> None:
    url, accept, body, at_once, within, times = sys.argv[1:]
    parts = urlsplit(url)
    address = (str(parts.hostname), parts.port or 80)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    answers: list[Answer] = []
    for _ in range(int(times)):
        readers = [Reader(address, request) for _ in range(int(at_once))]
        answers += read(readers, float(within))
    print(json.dumps([asdict(answer) for answer in answers]))


if __name__ == "__main__":
    main()
