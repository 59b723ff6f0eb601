"""What providers fail with, as ProviderFailed: one boundary for both SDKs.

An SDK raises what the provider told (a status, or an event in the middle of a stream, with its
account of it), what became of the connection, or whatever it stumbles over. Sources of the codes:
https://platform.openai.com/docs/guides/error-codes and https://docs.anthropic.com/en/api/errors;
Azure, vLLM, llama.cpp and Ollama have some of their own.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx2

from service.chat.account import HIGHEST, LOWEST, Told, account, retry_after
from service.chat.provider import Failure, ProviderFailed
from service.chat.quotation import quotation
from service.errors import TailraceError


class Sdk(Protocol):
    """The errors of openai and of anthropic have the same names."""

    @property
    def APIError(self) -> type[Exception]: ...  # noqa: N802 - theirs
    @property
    def APIConnectionError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def APITimeoutError(self) -> type[Exception]: ...  # noqa: N802


@dataclass(frozen=True, slots=True)
class Rule:
    """A failure, and how it is told: by a status, a code, or words of the message.

    ``kinds`` are names that count only where there is no status: they say less than one.
    """

    failure: Failure
    sentence: str
    retry: bool = False
    quoted: bool = True
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None

    def holds(self, told: Told) -> bool:
        return (
            told.status in self.statuses
            or not self.codes.isdisjoint(told.names)
            or (told.status is None and not self.kinds.isdisjoint(told.names))
            or (self.words is not None and self.words.search(told.message) is not None)
        )


# The first that holds counts.
RULES = (
    Rule(
        Failure.CONTENT_FILTERED,
        "The provider's content filter refused this.",
        codes=frozenset({"content_filter", "content_policy_violation"}),
        words=re.compile(
            r"content (?:filtering|management) policy|content[_ ]policy", re.IGNORECASE
        ),
    ),
    Rule(
        Failure.CONTEXT_TOO_LONG,
        "The conversation is longer than the model can take.",
        statuses=frozenset({413}),
        codes=frozenset(
            {"context_length_exceeded", "exceed_context_size_error", "request_too_large"}
        ),
        words=re.compile(
            r"prompt is too long|input is too long|maximum context length"
            r"|exceeds? (?:the )?(?:available )?context|context window",
            re.IGNORECASE,
        ),
    ),
    Rule(
        Failure.RATE_LIMITED,
        "The provider's account has nothing left to spend.",
        statuses=frozenset({402}),
        codes=frozenset(
            {
                "billing_error",
                "contract_spend_limit_reached",
                "enforced_spend_limit_reached",
                "insufficient_quota",
            }
        ),
        words=re.compile(r"credit balance|insufficient balance", re.IGNORECASE),
    ),
    Rule(
        Failure.RATE_LIMITED,
        "The provider limits how often it is asked.",
        retry=True,
        statuses=frozenset({429}),
        kinds=frozenset({"rate_limit_error", "rate_limit_exceeded", "ratelimiterror"}),
    ),
    Rule(
        Failure.AUTHENTICATION,
        "The provider does not accept the key that is configured, or its rights do not suffice.",
        quoted=False,  # such messages repeat the key, or parts of it
        statuses=frozenset({401, 403}),
        kinds=frozenset({"authentication_error", "invalid_api_key", "permission_error"}),
    ),
    Rule(
        Failure.TIMEOUT,
        "The provider ran out of time.",
        retry=True,
        statuses=frozenset({408, 504}),
        kinds=frozenset({"timeout_error"}),
    ),
    Rule(
        Failure.UPSTREAM_UNAVAILABLE,
        "The provider is overloaded or out of order.",
        retry=True,
        statuses=frozenset(range(500, HIGHEST + 1)),
        kinds=frozenset(
            {
                "api_error",
                "internalservererror",
                "internal_server_error",
                "overloaded_error",
                "server_error",
                "service_unavailable",
            }
        ),
    ),
    Rule(
        Failure.UNKNOWN,
        "The provider refused the request.",
        statuses=frozenset(range(LOWEST, 500)),
    ),
)
OTHERWISE = Rule(Failure.UNKNOWN, "The provider failed.")


@contextmanager
def translated(sdk: Sdk, secret: str | None = None) -> Iterator[None]:
    """Whatever goes wrong within is ProviderFailed. ``secret`` is the key that is sent."""
    try:
        yield
    except TailraceError:
        raise
    except Exception as error:  # noqa: BLE001 - an SDK stumbles over much of what it is sent
        failed = failure_of(error, sdk, secret)
        # A cause that quotes the provider would bring its text into the log.
        raise failed from (error if getattr(error, "body", None) is None else None)


def failure_of(error: Exception, sdk: Sdk, secret: str | None = None) -> ProviderFailed:
    """What ``error`` means."""
    if isinstance(error, (sdk.APITimeoutError, httpx2.TimeoutException, TimeoutError)):
        return ProviderFailed(Failure.TIMEOUT, "The provider did not answer in time.", retry=True)
    for each in (error, error.__cause__):
        if isinstance(each, (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)):
            detail = "The provider cannot be asked with the address and the key configured."
            return ProviderFailed(Failure.UNKNOWN, detail, retry=False)
        if isinstance(each, httpx2.ConnectError):
            return unavailable("The provider cannot be reached.")
    if isinstance(error, (sdk.APIConnectionError, httpx2.TransportError, ssl.SSLError)):
        return broken_off()
    if isinstance(error, sdk.APIError):
        return _told(error, secret)
    detail = "What the provider sent cannot be understood."
    return ProviderFailed(Failure.UNKNOWN, detail, retry=False)


def unavailable(detail: str) -> ProviderFailed:
    return ProviderFailed(Failure.UPSTREAM_UNAVAILABLE, detail, retry=True)


def broken_off() -> ProviderFailed:
    """The stream ended, and the answer had not."""
    return unavailable("The provider broke off before its answer ended.")


def _told(error: Exception, secret: str | None) -> ProviderFailed:
    told = account(error)
    rule = next((rule for rule in RULES if rule.holds(told)), OTHERWISE)
    quote = quotation(told.message, secret) if rule.quoted else ""
    response = getattr(error, "response", None)
    return ProviderFailed(
        rule.failure,
        f"{rule.sentence} It says: {quote}" if quote else rule.sentence,
        retry=rule.retry,
        retry_after=retry_after(response.headers) if rule.retry and response is not None else None,
    )
