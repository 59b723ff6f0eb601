"""The folder of artifacts: what its files are called, what is in it, and what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from service.errors import StorageFailed, StorageFull

FOLDER_MODE = 0o700
NAME = re.compile(r"([0-9a-f]{32})(?:\.part)?")
FULL = {
    errno.ENOSPC: "There is no room left for artifacts.",
    errno.EDQUOT: "The quota for artifacts is used up.",
    errno.EFBIG: "The artifact is larger than its storage takes.",
}


class ArtifactFolder:
    """Files of artifacts: ``<name>.part`` while one grows, ``<name>`` once it is finished.

    The methods block for as long as the file system takes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make it and its parents where they are missing, closed to others. Raises StorageFailed."""
        try:
            _make(self.path)
        except OSError as error:
            raise storage_error(error) from error

    def require_writable(self) -> None:
        """Raise StorageFailed where no artifact could be made, as on a read-only file system."""
        self.prepare()
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StorageFailed("The storage of artifacts cannot be written to.")

    def new_name(self) -> str:
        """A name that nobody guesses and that never comes again: 128 random bits."""
        return secrets.token_hex(16)

    def growing(self, name: str) -> Path:
        return self.path / f"{name}.part"

    def finished(self, name: str) -> Path:
        return self.path / name

    def open_growing_or_finished(self, name: str) -> int | None:
        """A descriptor for reading it, whichever it is; None when it is not there.

        Raises StorageFailed when it is there and cannot be opened.
        """
        # It may be renamed between the first look and the second, or begin behind the first.
        for spelt in (self.growing, self.finished, self.growing):
            try:
                return os.open(spelt(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise storage_error(error) from error
        return None

    def remove(self, name: str) -> None:
        """Unlink it, whichever it is; it may be gone. Raises StorageFailed."""
        try:
            # In this order a rename in between hides nothing.
            for path in (self.growing(name), self.finished(name)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error) from error

    def strangers(self, known: Collection[str], older_than: float) -> list[str]:
        """Names that are not ``known`` and were not written to for ``older_than`` seconds.

        Attempts that crashed leave them. What is not named like an artifact is never told.
        """
        newest: dict[str, float] = {}
        for name, status in self._files():
            newest[name] = max(status.st_mtime, newest.get(name, 0.0))
        before = time.time() - older_than
        return sorted(name for name, at in newest.items() if at < before and name not in known)

    def free_bytes(self) -> int | None:
        """What may still be written by an ordinary user; None if that cannot be told."""
        try:
            status = os.statvfs(self.path)
        except OSError:
            return None
        return status.f_bavail * status.f_frsize

    def used_bytes(self) -> int:
        """The sizes of all artifacts, growing ones included. Raises StorageFailed."""
        return sum(status.st_size for _, status in self._files())

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
                for entry in entries:
                    yield from _artifact(entry)
        except OSError as error:
            raise storage_error(error) from error


def artifact_folder(data_dir: Path) -> ArtifactFolder:
    """The folder of all who share ``data_dir``: servers and workers."""
    return ArtifactFolder(data_dir / "artifacts")


def storage_error(error: OSError) -> StorageFailed:
    """What the caller is told: StorageFull where there is no room, and never a local path.

    ``error`` is its cause, for the log.
    """
    failure = (
        StorageFull(FULL[error.errno])
        if error.errno in FULL
        else StorageFailed(f"The storage of artifacts failed: {os.strerror(error.errno or 0)}.")
    )
    failure.__cause__ = error
    return failure


def _make(path: Path) -> None:
    """Modes of new folders are set once they are there, since the umask takes from ``mkdir``'s."""
    try:
        path.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        _make(path.parent)
        _make(path)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(FOLDER_MODE)


def _artifact(entry: os.DirEntry[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Its name and status; nothing for other files and for one that is gone again."""
    found = NAME.fullmatch(entry.name)
    with contextlib.suppress(FileNotFoundError):
        status = entry.stat(follow_symlinks=False)
        if found is not None and stat.S_ISREG(status.st_mode):
            yield found[1], status
