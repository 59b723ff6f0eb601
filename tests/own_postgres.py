"""A PostgreSQL of one test's own, which may be stopped while others use theirs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.embedded import EmbeddedPostgres

# As the embedded one, but with room for many clients, with replicas that a commit can wait for,
# and slow to write what was committed without waiting for the disk: a crash loses all of that.
SETTINGS = (
    "max_connections=150",
    "wal_level=replica",
    "max_wal_senders=2",
    "fsync=off",
    "wal_writer_delay=10s",
)


class OwnPostgres(EmbeddedPostgres):
    def stop_now(self, mode: str) -> None:
        """Stop it as pg_ctl(1) does: "fast" ends its clients first, "immediate" is a crash."""
        stopped = self._pg_ctl("stop", "--mode", mode)
        assert stopped.returncode == 0, stopped.stderr

    def start_again(self) -> None:
        """The same server at the same address; it has recovered when this returns."""
        self._launch()

    def _start_options(self) -> tuple[str | Path, ...]:
        *options, text = super()._start_options()
        # Later ones win.
        return (*options, " ".join([str(text), *(f"-c {setting}" for setting in SETTINGS)]))


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """One that runs at the beginning of the block, and is gone behind it."""
    folder = Path(tempfile.mkdtemp(prefix="tailrace-own-"))
    try:
        with OwnPostgres(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)
