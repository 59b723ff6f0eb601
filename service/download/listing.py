"""A page of what is in a folder: names in the order of their bytes, with sizes and times."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime.fromtimestamp(0, UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
READ_FILE, READ_FOLDER = os.R_OK, os.R_OK | os.X_OK


@dataclass(frozen=True, slots=True)
class Entry:
    """``size`` is in bytes, None for a folder; ``modified`` is in UTC."""

    name: str
    folder: bool
    size: int | None
    modified: datetime


@dataclass(frozen=True, slots=True)
class Listing:
    """``after`` asks for the page behind this one; None where nothing is behind it.

    It is not always the last of ``entries``: that file may be gone while the folder is read.
    """

    entries: tuple[Entry, ...]
    after: str | None

    @property
    def more(self) -> bool:
        return self.after is not None


def page(
    folder: int, offered: Callable[[bytes], bool], *, after: str | None, limit: int
) -> Listing:
    """The first ``limit`` (at least 1) files and folders behind ``after`` in ``folder``.

    ``folder`` is a descriptor, and stays open. Left out are names that are not ``offered`` or
    not UTF-8, links, special files, and what this process may not read. The whole folder is read
    for each page, and only ``limit`` names are kept. Raises OSError.
    """
    start = b"" if after is None else after.encode(errors="surrogatepass")
    with os.scandir(folder) as found:
        names = (os.fsencode(entry.name) for entry in found if _plain(entry))
        behind = (name for name in names if name > start and offered(name) and _is_text(name))
        smallest = heapq.nsmallest(limit + 1, behind)
    shown = smallest[:limit]
    entries = (_entry(folder, name) for name in shown)
    return Listing(
        entries=tuple(entry for entry in entries if entry is not None),
        after=shown[-1].decode() if len(smallest) > limit else None,
    )


def modified(status: os.stat_result) -> datetime:
    """When the content changed, in UTC, to the microsecond; file systems know wilder years."""
    microseconds = status.st_mtime_ns // 1000
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return LAST if microseconds > 0 else FIRST


def _plain(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _is_text(name: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        name.decode()
        return True
    return False


def _entry(folder: int, name: bytes) -> Entry | None:
    """None for what has gone, has become a link, or may not be read."""
    with suppress(FileNotFoundError, PermissionError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        is_folder = stat.S_ISDIR(status.st_mode)
        needed = READ_FOLDER if is_folder else READ_FILE
        if (is_folder or stat.S_ISREG(status.st_mode)) and _readable(folder, name, needed):
            size = None if is_folder else status.st_size
            return Entry(name.decode(), is_folder, size, modified(status))
    return None


def _readable(folder: int, name: bytes, needed: int) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(name, needed, dir_fd=folder, effective_ids=effective)
