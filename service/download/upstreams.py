"""Every upstream of the configuration, and what free addresses go through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from service.download.upstream import (
    ConfiguredRoute,
    FreeRoute,
    Upstream,
    configured_upstream,
    free_upstream,
)
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Upstreams:
    """``free`` is None where free addresses are not relayed."""

    configured: Mapping[str, tuple[ConfiguredRoute, Upstream]]
    free: tuple[FreeRoute, Upstream] | None

    async def close(self) -> None:
        """Close every connection."""
        every = [upstream for _, upstream in self.configured.values()]
        if self.free is not None:
            every.append(self.free[1])
        await asyncio.gather(*(upstream.close() for upstream in every))


def open_upstreams(settings: Settings) -> Upstreams:
    """Nothing is connected to before the first request."""
    named = settings.upstreams.items()
    configured = {name: configured_upstream(name, upstream) for name, upstream in named}
    free = free_upstream(settings.relay) if settings.relay.allow_urls else None
    return Upstreams(configured, free)
