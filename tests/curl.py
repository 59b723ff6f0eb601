"""curl, as people use it: its exit code tells whether it believes that a file is whole."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

CUT_SHORT = 18  # curl's CURLE_PARTIAL_FILE: less came than was promised
NOT_RESUMED = 33  # CURLE_RANGE_ERROR: the answer was not the rest of what it has
MAX_SECONDS = 90  # curl ends by itself with 28 then


@dataclass(frozen=True, slots=True)
class Download:
    """One curl: ``file`` grows while it runs; ``status`` and ``headers`` are those so far."""

    process: subprocess.Popen[bytes]
    file: Path
    head: Path
    said: Path = field(repr=False)

    def exit_code(self) -> int:
        """What curl ended with; waits for it."""
        return self.process.wait(MAX_SECONDS + 10)

    @property
    def body(self) -> bytes:
        return self.file.read_bytes() if self.file.exists() else b""

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def status(self) -> int:
        """The status code, 0 as long as there is none."""
        lines = self._lines()
        return int(lines[0].split()[1]) if lines else 0

    @property
    def headers(self) -> dict[str, str]:
        """The header fields, names in lower case."""
        fields = (line.split(":", 1) for line in self._lines()[1:] if ":" in line)
        return {name.lower(): value.strip() for name, value in fields}

    @property
    def export_id(self) -> str:
        return self.headers["x-export-id"]

    def _lines(self) -> list[str]:
        return self.head.read_text().splitlines() if self.head.exists() else []


@contextmanager
def downloading(
    url: str, folder: Path, *options: str, onto: Path | None = None
) -> Iterator[Download]:
    """A curl that runs while the block does, and is killed at its end if it still does.

    ``onto`` is a file that is there already.
    """
    name = uuid4().hex
    body, head, said = (folder / f"{name}.{kind}" for kind in ("body", "head", "said"))
    file = onto or body
    # -q: whatever the user's .curlrc says; --no-buffer: what has arrived is in the file.
    fixed = ("-q", "-sS", "--no-buffer", "--noproxy", "*", "--max-time", str(MAX_SECONDS))
    with said.open("wb") as errors:
        process = subprocess.Popen(
            ["curl", *fixed, "-D", head, "-o", file, *options, url], stderr=errors
        )
    try:
        yield Download(process, file, head, said)
    finally:
        process.kill()
        process.wait()


def download(url: str, folder: Path, *options: str) -> Download:
    """A curl that has ended."""
    with downloading(url, folder, *options) as found:
        found.exit_code()
    return found


@contextmanager
def resumed(url: str, earlier: Download) -> Iterator[Download]:
    """A curl -C - that goes on with the file of one that has ended."""
    with downloading(url, earlier.file.parent, "-C", "-", onto=earlier.file) as found:
        yield found
