"""The server process: uvicorn with our protocol, a drain on SIGTERM, and structured logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import structlog
import uvicorn
from fastapi import FastAPI

from service.errors import StreamBroken
from service.protocol import with_timeouts
from service.runtime import Service
from service.settings import LogSettings, Settings

KEEP_ALIVE = 75  # seconds; longer than the 60 s for which proxies keep idle connections


class Server(uvicorn.Server):
    """On SIGTERM: no new streams, time for running ones, then break the rest, then exit."""

    def __init__(
        self, config: uvicorn.Config, service: Service, stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        drain = asyncio.create_task(self._drain(self._service.settings.limits.drain_timeout))
        # uvicorn waits for its connections without a limit; the drain is what ends them.
        await super().shutdown(sockets)
        drain.cancel()

    async def _drain(self, within: float) -> None:
        """End all streams, and after ``within`` seconds all connections.

        Those that are left then have clients that do not read what was sent.
        """
        over = asyncio.get_running_loop().time() + within
        await self._service.active.drain(within)
        await asyncio.sleep(over - asyncio.get_running_loop().time())
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but without raising the signal again: our caller has to clean up."""
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    app: FastAPI,
    settings: Settings,
    sockets: list[socket.socket],
    *,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Answer on ``sockets`` until SIGTERM or SIGINT; returns after the drain.

    ``stopping`` is called when that begins.
    """
    service: Service = app.state.service
    limits = settings.limits
    config = uvicorn.Config(
        app,
        http=with_timeouts(
            header_timeout=limits.header_timeout, stall_timeout=limits.stall_timeout
        ),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        root_path=settings.server.root_path,
    )
    Server(config, service, stopping).run(sockets=sockets)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError, for example when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)
    except OSError:
        found.close()
        raise
    found.set_inheritable(True)
    return found


def configure_logging(settings: LogSettings) -> None:
    """One JSON object a line on standard error, for our events and for every library's."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(settings),
            ],
            foreign_pre_chain=shared,
        )
    )
    handler.addFilter(_not_broken_on_purpose)
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.captureWarnings(capture=True)
    # It tells every look at the schema's version, which readiness takes all the time.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # They tell every address and every header that is sent to an upstream, with its secrets.
    for client in ("httpx2", "httpcore2", "h2", "hpack"):
        logging.getLogger(client).setLevel(logging.WARNING)


def _renderer(settings: LogSettings) -> Any:
    if settings.format == "console":
        return structlog.dev.ConsoleRenderer()
    return structlog.processors.JSONRenderer(
        serializer=lambda fields, **_: orjson.dumps(fields, default=str).decode()
    )


def _not_broken_on_purpose(record: logging.LogRecord) -> bool:
    """uvicorn reports the exception that breaks a stream as a crash.

    The stream's own event has told it already, with its reason.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], StreamBroken))
