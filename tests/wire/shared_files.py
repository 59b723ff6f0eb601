"""A service that offers a folder of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.clients import Answer, ask
from tests.serving import Served, without_worker

OLD = datetime(2020, 2, 29, 12, 0, 0, tzinfo=UTC)
OLD_DATE = "Sat, 29 Feb 2020 12:00:00 GMT"
SMALL = bytes(range(256)) * 4
LARGE = os.urandom(3_000_001)  # more than is read whole before it is sent


@contextmanager
def sharing(
    folder: Path, database_url: str, root: Path, options: str = "", **settings: Any
) -> Iterator[Served]:
    """A running service with the root "files" at ``root``; ``options`` are lines of its table."""
    config = f'[files.files]\npath = "{root}"\n{options}'
    with without_worker(folder / "served", database_url, config=config, **settings) as served:
        yield served


def put(path: Path, data: bytes, modified: datetime = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (modified.timestamp(), modified.timestamp()))


def get(served: Served, path: str, method: str = "GET", **headers: str) -> Answer:
    """The answer for ``path`` below the root; ``if_range="…"`` is the header If-Range."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    return ask(served.base, f"/v1/files/files/{path}", method, fields)
