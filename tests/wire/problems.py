"""What every problem document has (RFC 9457)."""

from __future__ import annotations

from tests.clients import Answer

MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def check_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    document = answer.json()
    assert document.keys() >= MEMBERS
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == f"urn:tailrace:problem:{code}"
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["Cache-Control"] == "no-store"
