"""One service per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from service.errors import ConfigurationError


class DataDirectoryInUse(ConfigurationError):
    """Another service holds the data directory; ``pid`` is its process, None if unknown."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{path.parent} is in use by {holder}: stop it, or use another directory.")
        self.pid = pid


class DataDirectoryLock:
    """A lock (flock(2)) on the file ``path``, which holds the process id of its holder.

    It ends with its holder, however that ends: the descriptor is close-on-exec (PEP 446), so that
    no server which outlives the service keeps it. The file stays, for a removed one could be
    locked twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._holder: int | None = None

    @property
    def held(self) -> bool:
        """Whether this very process holds it: not a forked child, which shares the descriptor."""
        return self._descriptor is not None and self._holder == os.getpid()

    def take(self) -> None:
        """Take the lock at once or raise DataDirectoryInUse."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.pread(descriptor, 32, 0).strip()
            os.close(descriptor)
            holder = int(said) if said.isdigit() else None
            raise DataDirectoryInUse(self._path, holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor, self._holder = descriptor, os.getpid()

    def release(self) -> None:
        """Let others have it; does nothing unless ``held``."""
        if self._descriptor is not None and self.held:
            os.close(self._descriptor)
            self._descriptor = None
