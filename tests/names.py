"""A DNS of a test's own: it answers from a table, and can change its mind or fall silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import uvloop
from aiohappyeyeballs import AddrInfoType

Answer = Sequence[str] | OSError | None  # addresses, a failure, or silence for ever


class Names:
    """``serve`` says what a name's look-ups give, in turn; ``asked`` are those so far."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self._answers: dict[str, list[Answer]] = {}

    def serve(self, name: str, *answers: Answer) -> None:
        """The last answer stays."""
        self._answers[name] = list(answers)

    def knows(self, name: object) -> bool:
        return name in self._answers

    async def resolve(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """As ``service.download.network.resolve``: a name that is unknown does not exist."""
        self.asked.append((host, port))
        answers = self._answers.get(host, [unknown()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, OSError):
            raise answer
        return [info(address, port) for address in answer or ()]


class NamedLoop(uvloop.Loop):
    """The loop of a service whose look-ups go to ``names``; those of others, to the system."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        if str(host).startswith(("127.", "/", "localhost")):
            return await super().getaddrinfo(host, port, **options)
        return await self._names.resolve(host, port)


def info(address: str, port: int) -> AddrInfoType:
    """One line of getaddrinfo(3), which tells a zone beside the address and not in it."""
    plain, _, zone = address.partition("%")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    place = (plain, port, 0, int(zone or 0)) if ":" in plain else (plain, port)
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)


def unknown() -> OSError:
    return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
