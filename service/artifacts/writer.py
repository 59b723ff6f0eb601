"""The file of one attempt: written in threads, synced as it grows, published whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from service.artifacts.folder import ArtifactFolder, storage_error
from service.errors import StorageFailed, StorageFull

SYNC_BYTES = 32 * 1024 * 1024  # unsynced ones that start a sync
FILE_MODE = 0o600

sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class ArtifactWriter:
    """Writes ``<name>.part`` of ``folder`` and publishes it as ``<name>``.

    For one task. Every call raises StorageFailed, or StorageFull where there is no room or it
    would grow beyond ``max_bytes``; after that every other call but ``discard`` raises the same,
    since a file with a gap must never be published. A call that is cancelled goes on in its
    thread, and the next one waits for it.
    """

    def __init__(self, folder: ArtifactFolder, name: str, *, max_bytes: int | None = None) -> None:
        self.name = name
        self.bytes = 0  # that followers can read by now
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._path: Path | None = None  # where it is: nobody else's file is ever unlinked
        self._published = False
        self._failure: StorageFailed | None = None
        self._turn = asyncio.Lock()
        self._call: asyncio.Future[None] | None = None
        self._sync: asyncio.Future[None] | None = None
        self._sync_asked = 0

    async def open(self) -> None:
        """Make the file, and the folder if it is missing; a file of that name is an error."""
        await self._in_thread(self._open)

    async def write(self, data: bytes) -> None:
        """Append all of ``data``."""
        await self._in_thread(self._write, data)
        self._sync_some()

    async def publish(self) -> None:
        """Let it be the finished one, for good: it survives a loss of power from here on."""
        await _settled(self._sync)
        await self._in_thread(self._publish)
        self._published = True

    async def discard(self) -> None:
        """Close and unlink it, unless ``publish`` has returned; at any time, and never raises.

        Waits for what still runs in threads. Cancelled, it ends its work first.
        """
        self._failure = self._failure or StorageFailed("The artifact was discarded.")
        letting_go = asyncio.ensure_future(self._let_go())
        cancelled: asyncio.CancelledError | None = None
        while not letting_go.done():
            try:
                await asyncio.wait({letting_go})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _in_thread(self, work: Callable[..., None], *arguments: bytes) -> None:
        async with self._turn:
            await _settled(self._call)
            if self._failure is None:
                self._call = self._start(work, *arguments)
                await asyncio.shield(self._call)
        if self._failure is not None:
            raise self._failure

    def _start(self, work: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, self._keeping_failure, work, *arguments)

    def _keeping_failure(self, work: Callable[..., None], *arguments: object) -> None:
        """The system tells some errors once, and nobody may be waiting by then."""
        try:
            work(*arguments)
        except OSError as error:
            self._failure = self._failure or storage_error(error)
        except StorageFailed as error:
            self._failure = self._failure or error

    def _sync_some(self) -> None:
        """Begin to sync what has come, so that little is left to do when it is published."""
        running = self._sync is not None and not self._sync.done()
        if self.bytes - self._sync_asked >= SYNC_BYTES and not running:
            self._sync_asked = self.bytes
            self._sync = self._start(sync_data, self._descriptor())

    async def _let_go(self) -> None:
        async with self._turn:
            await _settled(self._call)
            await _settled(self._sync)
            if not self._published:
                await self._start(self._remove)

    def _descriptor(self) -> int:
        if self._file is None:
            raise StorageFailed("The artifact is not open.")
        return self._file

    def _open(self) -> None:
        self._folder.prepare()
        path = self._folder.growing(self.name)
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
        self._path = path
        os.fchmod(self._file, FILE_MODE)  # whatever the umask took

    def _write(self, data: bytes) -> None:
        if self._max_bytes is not None and self.bytes + len(data) > self._max_bytes:
            raise StorageFull(
                f"The artifact would be larger than the {self._max_bytes} bytes that one may have."
            )
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor(), rest)
            self.bytes += written
            rest = rest[written:]

    def _publish(self) -> None:
        os.fsync(self._descriptor())
        self._close()
        finished = self._folder.finished(self.name)
        # Who holds the growing file is the only one who could make the finished one meanwhile.
        if os.path.lexists(finished):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._folder.growing(self.name).rename(finished)
        self._path = finished
        _sync_folder(self._folder.path)

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None  # it is closed even where closing fails
            os.close(file)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._path = None


async def _settled(call: asyncio.Future[None] | None) -> None:
    if call is not None:
        await asyncio.wait({call})


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # said by file systems that sync no folders
            raise
    finally:
        os.close(folder)
