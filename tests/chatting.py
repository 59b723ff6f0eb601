"""Language models from outside: services with several providers, and who asks them over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.clients import TIMEOUT, Answer, ask
from tests.event_stream import EventStream, Sent
from tests.jobs import post
from tests.llm_server import End, LlmServer, Step
from tests.llm_wire import DONE, LAST_CHUNK, chunk, chunked, head, opening, token, usual
from tests.peer import Peer
from tests.serving import Served, serving
from tests.waiting import wait_until

WITHIN = 30.0  # seconds
AT_ONCE = 1.0  # seconds in which a provider is let go of
CHAT = "/v1/chat/stream"
KEY = "sk-hunter2secret"
TEXT = {"Accept": "text/plain"}
OPENING = "This is a stand-in, and no language model. You wrote: "
ECHOES = """
[llm.default]
kind = "echo"
[llm.slow]
kind = "echo"
pace = 0.02
"""
FAKE = """
[llm.fake]
kind = "openai"
base_url = "{base}/v1"
api_key = "{key}"
model = "m"
retries = 0
"""
MORE = """
[llm.keyless]
kind = "anthropic"
model = "a-model"
[llm.narrow]
kind = "echo"
pace = 0.05
max_generations = 1
max_tokens = 100
[llm.impatient]
kind = "openai"
base_url = "{base}/v1"
model = "m"
first_token_timeout = "300ms"
stall_timeout = "300ms"
max_generations = 1
retries = 0
"""
# Where a provider is when somebody stops it, and how many tokens have come by then.
SLOWLY: list[Step] = [*chunked(token("openai", "a")), 0.02]
PLACES: dict[str, tuple[Sequence[Step], int]] = {
    "before its head": ([End.STALL], 0),
    "before the first token": ([head(), *chunked(opening("openai")), End.STALL], 0),
    "in the middle": ([head(), *(SLOWLY * 1_000)], 3),
    "while it stalls": ([head(), *chunked(token("openai", "a")), End.STALL], 1),
}


def body(text: str = "Hi", **values: Any) -> dict[str, Any]:
    """What is asked for; ``values`` are more fields, or others."""
    return {"messages": [{"role": "user", "content": text}], **values}


@contextmanager
def chat_service(
    folder: Path, url: str, *, llm: LlmServer | None = None, config: str = "", **settings: Any
) -> Iterator[Served]:
    """One with the stand-ins ``default`` and ``slow``, and ``fake``, which is ``llm``."""
    fake = "" if llm is None else FAKE.format(base=llm.base, key=KEY)
    with serving(
        folder, url, config=ECHOES + fake + config, arguments=("--no-worker",), **settings
    ) as found:
        yield found


@contextmanager
def asking(base: str, asked: dict[str, Any], **headers: str) -> Iterator[EventStream]:
    """The events of a new generation; the connection is closed behind the block."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=TIMEOUT)
    sent = {"Content-Type": "application/json"} | headers
    with closing(connection):
        connection.request("POST", CHAT, json.dumps(asked), sent)
        with connection.getresponse() as response:
            yield EventStream(response)


def told(base: str, asked: dict[str, Any]) -> list[Sent]:
    """All events of a new generation."""
    with asking(base, asked) as stream:
        assert stream.status == 200
        return stream.rest()


def plain(base: str, asked: dict[str, Any]) -> Answer:
    """The same as text; http.client.IncompleteRead where it breaks off."""
    return post(base, CHAT, asked, TEXT)


def started(base: str, asked: dict[str, Any]) -> str:
    """The id of a generation that goes on though nobody reads it."""
    with asking(base, asked | {"on_disconnect": "continue"}) as stream:
        stream.until("start")
        return str(stream.headers["X-Generation-Id"])


def id_of(events: Sequence[Sent]) -> str:
    """That of the generation of which these are the first events."""
    assert events[0].name == "start"
    return str(events[0].data["id"])


def text_of(events: Sequence[Sent]) -> str:
    return "".join(event.data["t"] for event in events if event.name == "token")


def path(generation: str, more: str = "") -> str:
    return f"/v1/generations/{generation}{more}"


def shown(base: str, generation: str) -> Any:
    answer = ask(base, path(generation))
    assert answer.status == 200, answer.body
    return answer.json()


def reach(base: str, generation: str, *states: str) -> Any:
    """The generation, once it is in one of these states."""
    wait_until(
        lambda: shown(base, generation)["state"] in states, within=WITHIN, what=f"it is {states}"
    )
    return shown(base, generation)


def cancel(base: str, generation: str) -> Answer:
    return post(base, path(generation, "/cancel"))


def gapless(events: Sequence[Sent], first: int = 1) -> bool:
    return [event.id for event in events] == list(range(first, first + len(events)))


def answers(llm: LlmServer, *texts: str) -> None:
    """The next request gets this."""
    llm.answer(head(), *chunked(usual("openai", texts)), LAST_CHUNK)


def ends(reason: str) -> list[bytes]:
    """The last bytes of an answer."""
    return [*chunked(chunk({}, reason) + DONE), LAST_CHUNK]


def send(peer: Peer, asked: dict[str, Any], *fields: str) -> None:
    """Ask for a generation over a raw socket."""
    content = json.dumps(asked)
    lines = (
        f"POST {CHAT} HTTP/1.1",
        f"Host: {peer.host}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *fields,
        "",
        content,
    )
    peer.socket.sendall("\r\n".join(lines).encode())


def let_go(llm: LlmServer, within: float = AT_ONCE) -> None:
    """Assert that the newest connection to the provider is closed by then."""
    assert llm.connections[-1].closed.wait(within), f"open for {within} s: {llm.connections}"
