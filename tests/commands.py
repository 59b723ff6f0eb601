"""The command ``tailrace`` as an operator runs it: to its end, or until a test stops it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.serving import GREETING, START_SECONDS, STOP_SECONDS, Served
from tests.waiting import wait_until

END_SECONDS = 60


def tailrace(
    *arguments: str, environ: Mapping[str, str], within: float = END_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=within, check=False
    )


@contextmanager
def launched(folder: Path, *arguments: str, environ: Mapping[str, str]) -> Iterator[Served]:
    """A service that has said its address, be it ready or not; it is stopped after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log, output = folder / "log", folder / "output"
    with log.open("ab") as errors, output.open("wb") as out:
        command = [sys.executable, "-m", "service", *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environ)
    served = Served("", process, log, output, environ)
    try:
        wait_until(lambda: _greeted(served), within=2 * START_SECONDS, what="the greeting")
        yield served
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _greeted(served: Served) -> bool:
    assert served.process.poll() is None, f"the service ended: {served.log.read_text()[-3000:]}"
    greeting = GREETING.search(served.output.read_text())
    served.base = greeting[1] if greeting else ""
    return bool(greeting)
