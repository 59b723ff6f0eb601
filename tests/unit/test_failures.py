"""Failures as the SDKs raise them from real answers, told in codes and sentences."""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from service.chat.failures import broken_off, failure_of, translated
from service.chat.provider import Failure, ProviderFailed
from service.errors import Busy
from tests.llm_wire import APIS, Api

KEY = "sk-test-0123456789"
SDKS = {"openai": openai, "anthropic": anthropic}
Handler = Callable[[httpx2.Request], httpx2.Response]

each_api = pytest.mark.parametrize("api", APIS)


@dataclass(frozen=True)
class Case:
    api: Api
    status: int
    body: Any
    failure: Failure
    retry: bool
    says: str = ""  # what of the provider's words is to be found in the message


def _openai(status: int, failure: Failure, retry: bool, says: str = "", **error: Any) -> Case:  # noqa: FBT001
    body = {"error": {"message": f"{says or 'Oh'}.", "type": None, "param": None, **error}}
    return Case("openai", status, body, failure, retry, says)


def _anthropic(status: int, failure: Failure, retry: bool, kind: str, says: str = "") -> Case:  # noqa: FBT001
    body = {"type": "error", "error": {"type": kind, "message": f"{says or 'Oh'}."}}
    return Case("anthropic", status, body, failure, retry, says)


CASES = [
    _openai(401, Failure.AUTHENTICATION, False, code="invalid_api_key"),
    _openai(403, Failure.AUTHENTICATION, False, code="unsupported_country_region_territory"),
    _openai(429, Failure.RATE_LIMITED, True, "Slow down", code="rate_limit_exceeded"),
    _openai(429, Failure.RATE_LIMITED, False, "You have spent it", code="insufficient_quota"),
    _openai(402, Failure.RATE_LIMITED, False, "Insufficient Balance"),
    _openai(408, Failure.TIMEOUT, True),
    _openai(504, Failure.TIMEOUT, True),
    _openai(500, Failure.UPSTREAM_UNAVAILABLE, True, type="server_error"),
    _openai(502, Failure.UPSTREAM_UNAVAILABLE, True),
    _openai(503, Failure.UPSTREAM_UNAVAILABLE, True, "The engine is overloaded"),
    _openai(400, Failure.CONTEXT_TOO_LONG, False, "Long", code="context_length_exceeded"),
    _openai(
        400,
        Failure.CONTEXT_TOO_LONG,
        False,
        "This model's maximum context length is 4096 tokens",
        type="BadRequestError",
        code=400,
    ),
    _openai(
        400,
        Failure.CONTEXT_TOO_LONG,
        False,
        "the request exceeds the available context size, try increasing it",
        type="exceed_context_size_error",
        code=400,
    ),
    _openai(413, Failure.CONTEXT_TOO_LONG, False, "Too large"),
    _openai(400, Failure.CONTENT_FILTERED, False, "Filtered", code="content_filter"),
    _openai(400, Failure.CONTENT_FILTERED, False, "Oh", code="content_policy_violation"),
    _openai(
        400,
        Failure.CONTENT_FILTERED,
        False,
        "The response was filtered due to Azure's content management policy",
    ),
    _openai(400, Failure.UNKNOWN, False, "Unknown parameter: 'x'", type="invalid_request_error"),
    _openai(404, Failure.UNKNOWN, False, "model 'x' not found", type="api_error"),
    _openai(409, Failure.UNKNOWN, False),
    _openai(422, Failure.UNKNOWN, False),
    Case("openai", 404, {"detail": "Not Found"}, Failure.UNKNOWN, False, "Not Found"),
    Case("openai", 400, {"error": "no such thing"}, Failure.UNKNOWN, False, "no such thing"),
    Case("openai", 400, {"error": {"message": {"odd": 1}, "code": [1]}}, Failure.UNKNOWN, False),
    Case("openai", 400, [1], Failure.UNKNOWN, False),
    Case("openai", 400, None, Failure.UNKNOWN, False),
    Case("openai", 502, "<html>Bad gateway</html>", Failure.UPSTREAM_UNAVAILABLE, True),
    Case("openai", 307, {}, Failure.UNKNOWN, False),
    _anthropic(401, Failure.AUTHENTICATION, False, "authentication_error"),
    _anthropic(403, Failure.AUTHENTICATION, False, "permission_error"),
    _anthropic(402, Failure.RATE_LIMITED, False, "billing_error", "Pay"),
    _anthropic(
        400,
        Failure.RATE_LIMITED,
        False,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API",
    ),
    _anthropic(429, Failure.RATE_LIMITED, True, "rate_limit_error", "Slow down"),
    _anthropic(408, Failure.TIMEOUT, True, "timeout_error"),
    _anthropic(504, Failure.TIMEOUT, True, "timeout_error"),
    _anthropic(500, Failure.UPSTREAM_UNAVAILABLE, True, "api_error"),
    _anthropic(529, Failure.UPSTREAM_UNAVAILABLE, True, "overloaded_error", "Overloaded"),
    _anthropic(
        400,
        Failure.CONTEXT_TOO_LONG,
        False,
        "invalid_request_error",
        "prompt is too long: 200001 tokens > 200000 maximum",
    ),
    _anthropic(
        400,
        Failure.CONTEXT_TOO_LONG,
        False,
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    ),
    _anthropic(413, Failure.CONTEXT_TOO_LONG, False, "request_too_large", "Too large"),
    _anthropic(
        400,
        Failure.CONTENT_FILTERED,
        False,
        "invalid_request_error",
        "Output blocked by content filtering policy",
    ),
    _anthropic(404, Failure.UNKNOWN, False, "not_found_error", "model: x"),
    _anthropic(400, Failure.UNKNOWN, False, "invalid_request_error", "max_tokens: too many"),
]
RETRY_AFTER = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
    ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
    ({"retry-after": "9", "retry-after-ms": "x"}, 9.0),
]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_answers(case: Case) -> None:
    failed = _failed(case.api, lambda _: _response(case.status, case.body))
    assert (failed.failure, failed.retry) == (case.failure, case.retry)
    assert case.says in failed.detail
    assert failed.detail[0].isupper()
    assert failed.members == {"failure": case.failure.value, "retry": case.retry}


@each_api
@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER, ids=range(len(RETRY_AFTER)))
def test_retry_after(api: Api, headers: dict[str, str], seconds: float | None) -> None:
    failed = _failed(api, lambda _: _response(429, {}, headers))
    assert failed.retry_after == seconds


@each_api
def test_retry_after_a_date(api: Api) -> None:
    date = email.utils.formatdate(time.time() + 3_600, usegmt=True)
    failed = _failed(api, lambda _: _response(503, {}, {"retry-after": date}))
    assert failed.retry_after == pytest.approx(3_600, abs=120)


@each_api
def test_no_pause_for_what_is_not_to_be_retried(api: Api) -> None:
    assert _failed(api, lambda _: _response(401, {}, {"retry-after": "7"})).retry_after is None


@each_api
@pytest.mark.parametrize(
    ("raised", "failure", "retry"),
    [
        (httpx2.ConnectError("x"), Failure.UPSTREAM_UNAVAILABLE, True),
        (httpx2.ReadError("x"), Failure.UPSTREAM_UNAVAILABLE, True),
        (httpx2.RemoteProtocolError("x"), Failure.UPSTREAM_UNAVAILABLE, True),
        (ssl.SSLError("x"), Failure.UPSTREAM_UNAVAILABLE, True),
        (httpx2.ConnectTimeout("x"), Failure.TIMEOUT, True),
        (httpx2.ReadTimeout("x"), Failure.TIMEOUT, True),
        (httpx2.LocalProtocolError("x"), Failure.UNKNOWN, False),
        (httpx2.UnsupportedProtocol("x"), Failure.UNKNOWN, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_connections(api: Api, raised: Exception, failure: Failure, retry: bool) -> None:  # noqa: FBT001
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise raised

    through = _failed(api, handler)
    leaked = failure_of(raised, SDKS[api])
    for failed in (through, leaked):
        assert (failed.failure, failed.retry) == (failure, retry)
        assert "x" not in failed.detail.replace("proxy", "")


@pytest.mark.parametrize(
    "stumbled",
    [
        json.JSONDecodeError("x", KEY, 0),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, KEY),
        IndexError(KEY),
        AttributeError(KEY),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_sdk_stumbles_over(stumbled: Exception) -> None:
    with pytest.raises(ProviderFailed) as raised, translated(openai, KEY):
        raise stumbled
    assert (raised.value.failure, raised.value.retry) == (Failure.UNKNOWN, False)
    assert raised.value.detail == "What the provider sent cannot be understood."
    assert raised.value.__cause__ is stumbled


@pytest.mark.parametrize("own", [broken_off(), Busy("Full.")], ids=["failed", "busy"])
def test_our_own_errors_pass(own: Exception) -> None:
    with pytest.raises(type(own)) as raised, translated(openai):
        raise own
    assert raised.value is own


@each_api
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_is_told_nowhere(api: Api, status: int) -> None:
    body = {"error": {"message": f"Key {KEY} of {KEY[:12]}, sk-other-1, is bad", "type": KEY}}
    failed = _failed(api, lambda _: _response(status, body))
    assert "sk-" not in f"{failed.detail}{failed.members}{failed.headers}"
    assert failed.__cause__ is None
    assert failed.__suppress_context__


def _response(status: int, body: Any, headers: dict[str, str] | None = None) -> httpx2.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    return httpx2.Response(status, content=content, headers=headers)


def _failed(api: Api, handler: Handler) -> ProviderFailed:
    """What becomes of an answer that the SDK gets over its whole way."""
    with (
        httpx2.Client(transport=httpx2.MockTransport(handler)) as http,
        pytest.raises(ProviderFailed) as raised,
        translated(SDKS[api], KEY),
    ):
        _ask(api, http)
    return raised.value


def _ask(api: Api, http: httpx2.Client) -> None:
    if api == "openai":
        openai.OpenAI(api_key=KEY, http_client=http, max_retries=0).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
    else:
        anthropic.Anthropic(api_key=KEY, http_client=http, max_retries=0).messages.create(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
