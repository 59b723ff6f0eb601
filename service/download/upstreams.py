"""Every upstream of the configuration, and what free addresses go through."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from service.download.transport import trusting
from service.download.upstream import (
    ConfiguredRoute,
    FreeRoute,
    Upstream,
    configured_upstream,
    free_upstream,
)
from service.errors import ConfigurationError
from service.settings import Settings
from service.slots import Slots


@dataclass(frozen=True, slots=True)
class Upstreams:
    """``free`` is None where free addresses are not relayed."""

    configured: Mapping[str, tuple[ConfiguredRoute, Upstream]]
    free: tuple[FreeRoute, Upstream] | None

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(upstream.close() for upstream in self._every()))

    def slots(self) -> dict[str, Slots]:
        """How many connections each may have, and has, by its name."""
        return {upstream.name: upstream.slots for upstream in self._every()}

    def _every(self) -> list[Upstream]:
        configured = [upstream for _, upstream in self.configured.values()]
        return configured if self.free is None else [*configured, self.free[1]]


def open_upstreams(settings: Settings) -> Upstreams:
    """Nothing is connected to before the first request."""
    trust = cache(_trusting)  # httpcore2 tells a context which protocols to offer
    configured = {
        name: configured_upstream(name, upstream, trust(upstream.ca_file, http2=upstream.http2))
        for name, upstream in settings.upstreams.items()
    }
    relay = settings.relay
    free = free_upstream(relay, trust(relay.ca_file, http2=False)) if relay.allow_urls else None
    return Upstreams(configured, free)


def _trusting(ca_file: Path | None, *, http2: bool) -> ssl.SSLContext:
    del http2  # it only tells contexts apart
    try:
        return trusting(ca_file)
    except OSError as error:
        raise ConfigurationError(
            f"The certificates of {ca_file} cannot be read: {error.strerror or error}."
        ) from error
