"""Parameters that are left out or spelt differently once a server has refused them."""

from __future__ import annotations

import pytest

from service.chat.parameters import Learnt, Parameters
from service.chat.provider import ChatMessage, ChatRequest

REQUEST = ChatRequest("m", [ChatMessage("user", "Hi")], max_tokens=5, temperature=0.5)


class Refused(Exception):
    def __init__(self, status_code: int, body: object) -> None:
        super().__init__("refused")
        self.status_code = status_code
        self.body = body


def test_everything_is_sent_at_first() -> None:
    assert Parameters().of(REQUEST) == {
        "max_tokens": 5,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
    }
    assert "temperature" not in Parameters().of(ChatRequest("m", [], 5))


@pytest.mark.parametrize(
    ("refusal", "instead"),
    [
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            Parameters(limit="max_completion_tokens"),
        ),
        (
            {"detail": [{"loc": ["body", "stream_options"], "msg": "Forbidden"}]},
            Parameters(stream_options=False),
        ),
        ("'temperature' does not support 0.5", Parameters(temperature=False)),
        ("max_tokens is too large", None),
        ("no such model", None),
        (None, None),
    ],
    ids=["limit", "stream_options", "temperature", "another limit", "model", "nothing"],
)
def test_refusals(refusal: object, instead: Parameters | None) -> None:
    error = Refused(400, refusal)
    assert Parameters().instead(error) == instead
    assert instead is None or instead.instead(error) is None, "nobody is asked for ever"


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_only_refusals_count(status: int) -> None:
    assert Parameters().instead(Refused(status, "stream_options")) is None


def test_what_is_learnt_holds_for_its_model() -> None:
    learnt = Learnt()
    learnt["a"] = Parameters(stream_options=False)
    assert learnt["a"] == Parameters(stream_options=False)
    assert learnt["b"] == Parameters()


def test_memory_is_bounded() -> None:
    learnt = Learnt()
    for number in range(3 * Learnt.MOST):
        learnt[f"{number}"] = Parameters(temperature=False)
    assert len(learnt._taken) <= Learnt.MOST
