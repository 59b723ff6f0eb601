"""Who asks, and whether they may. Every route and every record goes through here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.errors import Forbidden


class Action(StrEnum):
    """What a caller wants to do with a resource."""

    READ = "read"
    CANCEL = "cancel"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Caller:
    """The one who asks: ``subject`` owns the records that the request makes."""

    subject: str
    address: str | None = None


ANONYMOUS = "anonymous"


class Resource(Protocol):
    """Anything that can be asked for: ``owner`` is None when it belongs to nobody."""

    @property
    def owner(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Common:
    """A resource that belongs to nobody, such as the service itself."""

    owner: None = None


def may(caller: Caller, action: Action, resource: Resource) -> bool:
    """Whether ``caller`` may do ``action``: what has an owner is the owner's alone."""
    del action  # one rule for all of them, until keys bring rights
    return resource.owner is None or resource.owner == caller.subject


def authorize(caller: Caller, action: Action, resource: Resource) -> None:
    """Raise Forbidden unless ``may`` says yes."""
    if not may(caller, action, resource):
        raise Forbidden(f"{caller.subject} may not {action} this.")
