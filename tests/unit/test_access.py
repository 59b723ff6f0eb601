"""Who may do what: the one seam that every route and every record goes through."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from service.access import ANONYMOUS, Action, Caller, Common, authorize, may
from service.errors import Forbidden


@dataclass(frozen=True)
class Owned:
    owner: str | None


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    ("subject", "owner", "allowed"),
    [
        ("me", "me", True),
        ("me", "you", False),
        ("me", None, True),
        ("me", "ME", False),
        ("me", "", False),
        ("", "", True),
        (ANONYMOUS, ANONYMOUS, True),
        (ANONYMOUS, "me", False),
        ("me", ANONYMOUS, False),
    ],
)
def test_what_has_an_owner_is_the_owners_alone(
    action: Action, subject: str, owner: str | None, *, allowed: bool
) -> None:
    caller, resource = Caller(subject), Owned(owner)
    assert may(caller, action, resource) is allowed
    if allowed:
        authorize(caller, action, resource)
    else:
        with pytest.raises(Forbidden) as refused:
            authorize(caller, action, resource)
        assert refused.value.status == 403
        assert action in refused.value.detail
        assert subject in refused.value.detail


def test_the_address_gives_no_rights() -> None:
    assert not may(Caller("me", "127.0.0.1"), Action.READ, Owned("you"))
    assert may(Caller("me", "192.0.2.1"), Action.READ, Owned("me"))


def test_the_service_itself_belongs_to_nobody() -> None:
    authorize(Caller(ANONYMOUS), Action.OPERATE, Common())
