"""A real ``tailrace serve`` in a process of its own, for tests over real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.waiting import wait_until

START_SECONDS = 30
STOP_SECONDS = 40
GREETING = re.compile(r"Tailrace serves on (http://\S+?)/ ")


@dataclass
class Served:
    """A running service: ``base`` is its address, ``log`` the file of its JSON lines."""

    base: str
    process: subprocess.Popen[bytes]
    log: Path
    output: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def get(self, path: str) -> Any:
        """The JSON at ``path``; raises on an error status."""
        with urlopen(self.base + path, timeout=30) as answer:
            return json.loads(answer.read())

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event so far."""
        lines = (json.loads(line) for line in self.log.read_text().split("\n") if line[:1] == "{")
        return [line for line in lines if line.get("event") == name]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def environment(database_url: str | None, **settings: str) -> dict[str, str]:
    """The variables of a service: ``limits__stall_timeout="1s"`` and the like."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    given = {f"TAILRACE_{name.upper()}": value for name, value in settings.items()}
    if database_url is not None:
        given["TAILRACE_DATABASE__URL"] = database_url
    return {**kept, **given}


@contextmanager
def serving(
    folder: Path,
    database_url: str | None,
    *,
    config: str = "",
    arguments: tuple[str, ...] = (),
    command: str = "serve",
    **settings: str,
) -> Iterator[Served]:
    """Run the service on a free port until the block ends; ``config`` is a tailrace.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tailrace.toml"
    file.write_text(config)
    log, output = folder / "log", folder / "output"
    variables = environment(database_url, **settings)
    options = ("--config", str(file), "--data-dir", str(folder / "data"), "--port", "0")
    with log.open("ab") as errors, output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", command, *options, *arguments],
            stdout=out,
            stderr=errors,
            env=variables,
        )
    served = Served("", process, log, output, variables)
    try:
        wait_until(lambda: _greeted(served), within=START_SECONDS, what="the service is ready")
        yield served
    finally:
        try:
            served.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def without_worker(
    folder: Path, database_url: str | None, *, config: str = "", **settings: str
) -> AbstractContextManager[Served]:
    """The same for tests that make no jobs: a worker would take as long to start again."""
    return serving(folder, database_url, config=config, arguments=("--no-worker",), **settings)


def _greeted(served: Served) -> bool:
    if served.process.poll() is not None:
        raise AssertionError(f"the service ended: {served.log.read_text()[-3000:]}")
    greeting = GREETING.search(served.output.read_text())
    if greeting is None:
        return False
    served.base = greeting[1]
    try:
        with urlopen(served.base + "/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False
