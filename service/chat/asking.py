"""What a request for a generation may hold."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from service.chat.model import OnDisconnect
from service.chat.provider import Answers, ChatMessage, ChatRequest, Provider, Role
from service.errors import InvalidParameter

MOST_MESSAGES = 1_000
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Asked(Protocol):
    """Something that a generation is made for; ``provider`` None is the default one."""

    @property
    def provider(self) -> str | None: ...

    @property
    def on_disconnect(self) -> OnDisconnect: ...

    def request(self, default_model: str, most_tokens: int) -> ChatRequest:
        """What the provider is asked first."""
        ...

    def answers(self, provider: Provider) -> Answers:
        """What comes of asking ``provider``."""
        ...

    def shown(self) -> dict[str, Any]:
        """What is kept of it."""
        ...


class MessageBody(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    content: str


class ChatBody(BaseModel):
    """The body of ``POST /v1/chat/stream``; ``provider`` and ``model`` None are the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Annotated[tuple[MessageBody, ...], Field(min_length=1, max_length=MOST_MESSAGES)]
    provider: Name | None = None
    model: Name | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 2048
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.7
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL

    def request(self, default_model: str, most_tokens: int) -> ChatRequest:
        """What the provider is asked. Raises InvalidParameter for more tokens than it may give."""
        if "max_tokens" in self.model_fields_set and self.max_tokens > most_tokens:
            detail = f"max_tokens: this provider gives at most {most_tokens}."
            raise InvalidParameter("max_tokens", detail)
        return ChatRequest(
            model=self.model or default_model,
            messages=[ChatMessage(item.role, item.content) for item in self.messages],
            max_tokens=min(self.max_tokens, most_tokens),
            temperature=self.temperature,
        )

    def answers(self, provider: Provider) -> Answers:
        """Its own, as they come."""
        return provider

    def shown(self) -> dict[str, Any]:
        """What is kept of it: everything but what was said."""
        return {
            "messages": len(self.messages),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "on_disconnect": self.on_disconnect.value,
        }
