"""Drafts of a test's own: a model that says what it is told to, for somebody who may read little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.access import Action, Caller, may
from service.chat.draft import DraftBody, Drafter, Drafting
from service.chat.live import Live
from service.chat.model import OnDisconnect
from service.chat.provider import ChatRequest, Delta, Finished, FinishReason, Piece, Usage
from service.column import Column, Kind
from service.dataset import Dataset
from service.errors import NotFound
from service.export.assembly import Asked
from service.grammar.cursor import Cursors
from service.jobs.request import ExportRequest, understand
from tests.datasets import HOSTILE, ID, KINDS, dataset
from tests.generations import PATIENT, Reader, ended, generation

BASE = "http://here"
CURSORS = Cursors("a secret of the tests alone, long enough")
ALICE = Caller("alice")
ORDERS = dataset(*KINDS, *HOSTILE, key=("id",))
TOTALS = Dataset("totals", "main", (ID,), ORDERS.relation, ORDERS.dialect)
SECRETS = Dataset("secrets", "main", (ID,), ORDERS.relation, ORDERS.dialect, owner="bob")
ALL = {found.name: found for found in (ORDERS, TOTALS, SECRETS)}
GOOD = {"dataset": "orders", "where": {"price": "gte.10"}, "order": ["price.desc"], "limit": 5}
USED = Usage(100, 10)
Step = Piece | Exception | float


def said(request: Any, explanation: Any = "Because.", **more: Any) -> str:
    """An answer as it should be."""
    return json.dumps({"request": request, "explanation": explanation, **more})


def text_column(name: str, description: str | None = None) -> Column:
    return Column(name, "text", Kind.TEXT, description=description)


@dataclass(eq=False)
class Says:
    """A provider that gives these pieces, an answer a call, and keeps what it was asked."""

    answers: Sequence[Sequence[Step]]
    kind: str = "scripted"
    asked: list[ChatRequest] = field(default_factory=list)
    open: int = 0
    given: int = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        self.asked.append(request)
        self.open += 1
        try:
            for step in self.answers[len(self.asked) - 1]:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    continue
                await asyncio.sleep(0)
                self.given += 1
                yield step
        finally:
            self.open -= 1

    async def close(self) -> None:
        """Nothing is kept."""


def whole(text: str, reason: FinishReason = FinishReason.STOP) -> list[Step]:
    """``text`` in pieces, and an end."""
    pieces = [Delta(text[place : place + 7]) for place in range(0, len(text), 7)]
    return [*pieces, Finished(reason, USED)]


def saying(*texts: str) -> Says:
    return Says([whole(text) for text in texts])


async def alice_understands(wanted: ExportRequest) -> Asked:
    """As the routes do it: what she may not read is not there."""
    found = ALL.get(wanted.dataset)
    if found is None or not may(ALICE, Action.READ, found):
        raise NotFound(f"There is no dataset {wanted.dataset!r}.")
    return understand(wanted, found, CURSORS, 65_536)


def drafting(prompt: str = "Dear orders", **body: Any) -> Drafting:
    readable = [found for found in ALL.values() if may(ALICE, Action.READ, found)]
    return Drafting(DraftBody(prompt=prompt, **body), readable, alice_understands, BASE)


def live_draft(provider: Says, wish: Drafting | None = None, **options: Any) -> Live:
    """A generation that drafts, not started; what it asks for is bounded by ``most_tokens``."""
    asked, most = wish or drafting(), options.pop("most_tokens", 8_192)
    return Live(
        generation(),
        asked.answers(provider),
        asked.request("m", most),
        options.get("patience", PATIENT),
        OnDisconnect.CANCEL,
        lambda _: None,
    )


async def drafted(provider: Says, wish: Drafting | None = None, **options: Any) -> Reader:
    """All the events of a draft."""
    live = live_draft(provider, wish, **options)
    assert isinstance(live._answers, Drafter)
    live.start()
    return await ended(live)
