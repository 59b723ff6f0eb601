"""Drafts: a wish becomes an export request, validated, and repaired once if it has a mistake.

Nothing is executed for one: only the catalogue is read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.chat.asking import Name
from service.chat.drafting import (
    ANSWER,
    Reply,
    instructions,
    read_reply,
    repair_message,
    shortened,
    stand_in,
    wish_message,
)
from service.chat.live import MOST_PIECES
from service.chat.model import OnDisconnect
from service.chat.provider import (
    Answers,
    ChatMessage,
    ChatRequest,
    Delta,
    Failure,
    Finished,
    FinishReason,
    Note,
    Piece,
    Provider,
    ProviderFailed,
    Usage,
)
from service.chat.transcript import storable
from service.database import utcnow
from service.dataset import Dataset
from service.errors import InvalidParameter, RequestError, TailraceError
from service.export.assembly import Asked
from service.grammar.query import build_select
from service.jobs.address import address, curl_line
from service.jobs.request import MAX_NAME, ExportRequest

MOST_TOKENS = 4_096  # of each answer; models that reason spend most of them on that
MOST_ANSWER = 64_000  # characters
MOST_ADDRESS = 60_000  # characters; the parser of requests takes 65,535
MOST_MISTAKE = 2_000  # characters: one names every column that there is
MOST_MISTAKES = 10
ROUNDS = 2  # answers, the second of which repairs the first

Understand = Callable[[ExportRequest], Awaitable[Asked]]


class DraftBody(BaseModel):
    """The body of ``POST /v1/exports/draft``; ``dataset`` is a hint which one is meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=4_000)]
    provider: Name | None = None
    model: Name | None = None
    dataset: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None


@dataclass(frozen=True, slots=True)
class Drafting:
    """What is asked of a desk: a draft for somebody who may read ``datasets``, the likeliest first.

    ``understand`` reads a request as ``POST /v1/exports`` does for the same caller, and decides
    alone what may be drafted. ``base`` is the address up to ``/v1``.
    """

    body: DraftBody
    datasets: Sequence[Dataset]
    understand: Understand
    base: str
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL

    @property
    def provider(self) -> str | None:
        return self.body.provider

    def request(self, default_model: str, most_tokens: int) -> ChatRequest:
        wish = wish_message(self.body.prompt, self.body.dataset)
        return ChatRequest(
            model=self.body.model or default_model,
            messages=[
                ChatMessage("system", instructions(self.datasets, utcnow())),
                ChatMessage("user", wish),
            ],
            max_tokens=min(MOST_TOKENS, most_tokens),
            temperature=0.0,
        )

    def answers(self, provider: Provider) -> Answers:
        # An echo drafts nothing: it is given something to repeat.
        said = stand_in(self.datasets[0]) if provider.kind == "echo" else None
        return Drafter(provider, self, said)

    def shown(self) -> dict[str, Any]:
        return {"draft": True, "dataset": self.body.dataset, "on_disconnect": self.on_disconnect}


class Drafter:
    """Asks ``provider`` until its answer is a draft, twice at most.

    The tokens of both answers are given as they come, ``repair`` between them; the result is
    ``draft``. With ``said`` the provider is asked to repeat that instead.
    """

    def __init__(self, provider: Provider, drafting: Drafting, said: str | None = None) -> None:
        self._provider = provider
        self._drafting = drafting
        self._said = said

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Piece | Note, None]:
        """Raises ProviderFailed, with ``invalid_draft`` where both answers have mistakes."""
        if self._said is not None:
            request = replace(request, messages=[ChatMessage("user", self._said)])
        usage, mistake = Usage(), ""
        for left in reversed(range(ROUNDS)):
            parts: list[str] = []
            finished = Finished(FinishReason.UNKNOWN)
            async with aclosing(self._answer(request)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Finished):
                        finished = piece
                    else:
                        parts.append(piece.text)
                        yield piece
            usage, text = _sum(usage, finished.usage), "".join(parts)
            try:
                draft = await self._draft(text, repaired=left < ROUNDS - 1)
            except RequestError as error:
                mistake = _told(error, finished.reason)
            else:
                yield Finished(finished.reason, usage, Note("draft", draft))
                return
            if left:
                yield Note("repair", {"detail": mistake})
                request = _again(request, text, mistake)
        detail = f"The model drafted nothing that can be asked for. Its last mistake: {mistake}"
        raise ProviderFailed(Failure.INVALID_DRAFT, detail, retry=True)

    async def _answer(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """One answer, cut off where it is longer than any draft."""
        pieces_left, left = MOST_PIECES * request.max_tokens // ROUNDS, MOST_ANSWER
        async with aclosing(self._provider.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Delta):
                    pieces_left, left = pieces_left - 1, left - len(piece.text)
                    if not pieces_left or left < 0:
                        yield Finished(FinishReason.LENGTH)
                        return
                yield piece

    async def _draft(self, text: str, *, repaired: bool) -> dict[str, Any]:
        """The event's data. Raises RequestError for mistakes of the model."""
        reply = read_reply(text)
        if reply.request is None:
            raise _declined(reply)
        wanted = await self._validated(reply.request)
        url = address(wanted, self._drafting.base)
        if len(url) > MOST_ADDRESS:
            raise InvalidParameter(ANSWER, "request: it is too long; say it in fewer words.")
        return {
            "request": {"dataset": wanted.dataset, "format": wanted.format}
            | wanted.model_dump(mode="json", exclude_defaults=True),
            "explanation": storable(reply.explanation),
            "curl": curl_line(wanted, self._drafting.base),
            "url": url,
            "repaired": repaired,
        }

    async def _validated(self, given: dict[str, Any]) -> ExportRequest:
        """As if the caller had sent it to ``POST /v1/exports``, but for what needs the database."""
        try:
            wanted = ExportRequest.model_validate(given)
        except ValidationError as error:
            raise InvalidParameter("request", _places(error)) from error
        # One has to be given by us, the other would keep the request from joining an equal one.
        if wanted.after is not None or wanted.fresh:
            raise InvalidParameter("request", "after and fresh cannot be drafted.")
        try:
            asked = await self._drafting.understand(wanted)
        except RequestError:
            raise
        except TailraceError as error:
            raise ProviderFailed(Failure.UNKNOWN, error.detail, retry=True) from error
        # What the dataset's database has nothing for shows here first.
        build_select(asked.dataset, asked.query)
        return wanted


def _again(request: ChatRequest, text: str, mistake: str) -> ChatRequest:
    """The same with the answer and what is wrong in it."""
    said = ChatMessage("assistant", text.strip() or "(nothing)")
    told = ChatMessage("user", repair_message(mistake))
    return replace(request, messages=[*request.messages, said, told])


def _told(error: RequestError, reason: FinishReason) -> str:
    """The mistake in words, with the member that it is in. Raises ProviderFailed for a refusal."""
    if reason is FinishReason.CONTENT_FILTER:
        detail = "The provider's filter stopped the answer."
        raise ProviderFailed(Failure.CONTENT_FILTERED, detail, retry=False) from error
    member = error.members.get("parameter", "dataset")
    named = error.detail if str(member) in error.detail else f"{member}: {error.detail}"
    cut = "The answer was cut off, it was too long. " if reason is FinishReason.LENGTH else ""
    return storable(shortened(cut + named, MOST_MISTAKE))


def _places(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found]
    return "; ".join(told[:MOST_MISTAKES])


def _declined(reply: Reply) -> ProviderFailed:
    detail = f"The model says that this cannot be drafted: {reply.explanation}"
    return ProviderFailed(Failure.INVALID_DRAFT, detail, retry=False)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        _added(one.prompt_tokens, other.prompt_tokens),
        _added(one.completion_tokens, other.completion_tokens),
    )


def _added(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)
