"""Relays from outside: a service with many named upstreams, and what became of a download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients import Answer, ask
from tests.serving import Served, without_worker
from tests.upstream import target
from tests.waiting import wait_until

WITHIN = 30.0  # seconds


@contextmanager
def relay_service(
    folder: Path, url: str, base: str, upstreams: Mapping[str, str], **settings: Any
) -> Iterator[Served]:
    """One whose ``upstreams`` are names and more lines of their settings, all of them at ``base``.

    One that names a ``base_url`` of its own is there.
    """
    config = ""
    for name, more in upstreams.items():
        there = "" if "base_url" in more else f'base_url = "{base}"'
        config += f"[upstreams.{name}]\n{there}\n{more}\n"
    with without_worker(folder, url, config=config, **settings) as found:
        yield found


def through(upstream: str, path: str, **options: object) -> str:
    """The path of a relay of ``target(path, **options)``."""
    return f"/v1/relay/{upstream}{target(path, **options)}"


def relayed(
    served: Served,
    upstream: str,
    path: str = "/file",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    **options: object,
) -> Answer:
    """The answer to a relay; http.client.IncompleteRead where it breaks off."""
    return ask(served.base, through(upstream, path, **options), method, headers)


def ended(served: Served, export_id: str) -> Any:
    """The record of a relay, once it has ended."""

    def record() -> Any:
        return served.get(f"/v1/exports/{export_id}")

    wait_until(lambda: record()["state"] != "running", within=WITHIN, what="the relay ends")
    return record()


def receipt_of(served: Served, export_id: str) -> Any:
    ended(served, export_id)
    return served.get(f"/v1/exports/{export_id}/receipt")


def recorded(served: Served) -> list[str]:
    """The ids of all records, the newest first."""
    return [export["id"] for export in served.get("/v1/exports")["exports"]]
