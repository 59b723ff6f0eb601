"""The providers of the configuration, and the desk that takes generations on."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from service.chat.anthropic_api import Anthropic
from service.chat.desk import Desk, Offered
from service.chat.echo import Echo
from service.chat.following import Tails
from service.chat.journal import Journal
from service.chat.openai_api import OpenAI
from service.chat.provider import Provider
from service.chat.sdk import missing_sdk
from service.chat.store import Store
from service.observe import Observer
from service.settings import ProviderSettings, Settings
from service.slots import Slots
from service.streaming import ActiveStreams

SLOT_SECONDS = 2.0  # a wait for one is part of the wait for the first token


def open_desk(
    settings: Settings, engine: AsyncEngine, active: ActiveStreams, observe: Observer
) -> Desk:
    """Nothing is connected to before the first request."""
    store = Store(engine)
    keep = timedelta(seconds=settings.limits.generation_ttl)
    offered = {name: _offered(name, provider) for name, provider in settings.llm.items()}
    return Desk(offered, Journal(store, observe, keep), Tails(store, observe), active, observe)


def lacking(settings: ProviderSettings) -> str:
    """What a provider lacks, in words; "" where it can be asked."""
    if (missing := missing_sdk(settings.kind)) is not None:
        return missing
    # A server of one's own may need none.
    if settings.kind != "echo" and settings.base_url is None and settings.api_key is None:
        return "It needs an api_key."
    return ""


def _offered(name: str, settings: ProviderSettings) -> Offered:
    slots = Slots(name, settings.max_generations, SLOT_SECONDS)
    missing = lacking(settings)
    return Offered(settings, slots, None if missing else _provider(settings), missing)


def _provider(settings: ProviderSettings) -> Provider:
    if settings.kind == "echo":
        return Echo(pace=settings.pace)
    made = OpenAI if settings.kind == "openai" else Anthropic
    return made(settings.base_url, settings.api_key)
