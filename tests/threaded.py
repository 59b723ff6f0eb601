"""A service in a thread of this process, so that a test can be its DNS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from service.app import create_app
from service.configuration import load
from service.protocol import TailraceProtocol
from service.server import Server, bind
from tests.names import NamedLoop, Names
from tests.waiting import wait_until

WITHIN = 30.0  # seconds to start or to stop


class ThreadServer(Server):
    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
        """None come to a thread."""
        return nullcontext()


@contextmanager
def threaded(folder: Path, database_url: str, names: Names, **settings: Any) -> Iterator[str]:
    """Its address; ``relay__allow_urls=True`` and the like are settings, ``names`` its DNS."""
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    file = folder / "tailrace.toml"
    file.write_text("")
    app = create_app(load(file, {}, {"data_dir": str(folder), **overrides}), database_url)
    config = uvicorn.Config(
        app, http=TailraceProtocol, lifespan="on", log_config=None, access_log=False, ws="none"
    )
    server = ThreadServer(config, app.state.service, lambda: None)
    listening = bind("127.0.0.1", 0)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: NamedLoop(names)) as runner:
            runner.run(server.serve([listening]))

    thread = Thread(target=run, name="service", daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, within=WITHIN, what="the service is ready")
        yield "http://{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join(WITHIN)
        assert not thread.is_alive()
