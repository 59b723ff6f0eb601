"""Jobs over HTTP as their clients see them: asked for, waited for, followed, removed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen

WAIT_SECONDS = 60  # the most that the service waits for
BLOCK = 256 * 1024  # bytes
PATIENCE = 120  # seconds


class Jobs:
    """The jobs of the service at ``base``."""

    def __init__(self, base: str) -> None:
        self._base = f"{base}/v1/exports"

    def start(self, dataset: str, *, fresh: bool = True, filename: str | None = None) -> str:
        """The id of a job for CSV that has just been asked for; if not ``fresh`` it may be joined."""
        body = {"dataset": dataset, "fresh": fresh, "filename": filename}
        return str(self._ask(body)["id"])

    def make(self, dataset: str, format_: str, rows: int) -> float:
        """The seconds from asking for an export to its finished artifact, which is then removed."""
        started = time.perf_counter()
        export = self._ask({"dataset": dataset, "format": format_, "fresh": True}, WAIT_SECONDS)
        seconds = time.perf_counter() - started
        assert export["state"] == "succeeded", export
        assert export["progress"]["rows"] == rows, export
        self.remove(export["id"])
        return seconds

    def first_byte(self, dataset: str) -> float:
        """The seconds from asking for a job to the first byte of its content."""
        started = time.perf_counter()
        export_id = self.start(dataset)
        seconds = first_byte_since(started, self.content(export_id))
        self.remove(export_id)
        return seconds

    def follow(self, export_id: str) -> tuple[int, str]:
        """How many bytes the content has, and their SHA-256."""
        seen, size = hashlib.sha256(), 0
        with urlopen(self.content(export_id), timeout=PATIENCE) as answer:
            while block := answer.read(BLOCK):
                seen.update(block)
                size += len(block)
        return size, seen.hexdigest()

    def receipt(self, export_id: str) -> tuple[int, str]:
        """The same as the receipt has it."""
        with urlopen(f"{self._base}/{export_id}/receipt", timeout=PATIENCE) as answer:
            receipt = json.load(answer)
        return receipt["bytes"], receipt["sha256"]

    def content(self, export_id: str) -> str:
        """The address of its bytes."""
        return f"{self._base}/{export_id}/content"

    def events(self, export_id: str) -> str:
        """The address of its events."""
        return f"{self._base}/{export_id}/events"

    def remove(self, export_id: str) -> None:
        """Stop it if it still runs, and remove it with its artifact."""
        request = Request(f"{self._base}/{export_id}", method="DELETE")
        with urlopen(request, timeout=PATIENCE) as answer:
            assert answer.status == 204

    def _ask(self, body: Mapping[str, Any], wait: int = 0) -> Any:
        headers = {"Content-Type": "application/json"}
        if wait:
            headers["Prefer"] = f"wait={wait}"
        request = Request(self._base, json.dumps(body).encode(), headers)
        with urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)


def first_byte_since(started: float, url: str) -> float:
    """The seconds from ``started`` to the first byte of ``url``; the rest is not read."""
    with urlopen(url, timeout=PATIENCE) as answer:
        assert answer.read(1)
        return time.perf_counter() - started
