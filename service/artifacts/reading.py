"""Reading an artifact without ever waiting for a disk on the event loop."""

from __future__ import annotations

import asyncio
import errno
import os

from service.artifacts.folder import storage_error
from service.file_part import Scratch

NOT_AT_HAND = frozenset({errno.EAGAIN, errno.EOPNOTSUPP})
CACHED_ONLY: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux has it


_scratch = Scratch()  # of one event loop, since it holds bytes for no await


class ArtifactReader:
    """Reads from ``file``, a descriptor that it closes; it lives on where the file is unlinked."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._away = 0
        self._closed = False

    def size(self) -> int:
        """The bytes that are there by now. Raises StorageFailed."""
        try:
            return os.fstat(self._file).st_size
        except OSError as error:
            raise storage_error(error) from error

    async def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes, as many as come at once; none only at the end of the file.

        Raises StorageFailed.
        """
        try:
            data = self._cached(offset, length)
            return await self._in_thread(offset, length) if data is None else data
        except OSError as error:
            raise storage_error(error) from error

    def close(self) -> None:
        """Give the descriptor back, once no thread reads from it any more."""
        self._closed = True
        if not self._away:
            self._let_go()

    def _cached(self, offset: int, length: int) -> bytes | None:
        """What memory holds already; None if only a thread may wait for it.

        It takes half the time that a thread does, for 16 KiB as for 256 KiB.
        """
        if CACHED_ONLY is None:
            return None
        room = _scratch.room(length)
        try:
            read = os.preadv(self._file, [room], offset, CACHED_ONLY)
        except OSError as error:
            if error.errno in NOT_AT_HAND:
                return None
            raise
        # Some kernels answer 0 for what is not at hand; only a thread's 0 is an end.
        return room[:read].tobytes() if read else None

    async def _in_thread(self, offset: int, length: int) -> bytes:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(None, os.pread, self._file, length, offset)
        self._away += 1
        call.add_done_callback(self._returned)
        return await asyncio.shield(call)

    def _returned(self, _call: asyncio.Future[bytes]) -> None:
        self._away -= 1
        if self._closed and not self._away:
            self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
