"""Parts of a file on their way to a client: read in threads, and checked before any byte leaves."""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from service.errors import FileChanged

Given = TypeVarTuple("Given")
Result = TypeVar("Result")


class Threads:
    """A pool of ``count`` threads that knows whether anybody waits for one of them."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def wanted(self) -> bool:
        """Whether whoever holds a thread should think of others."""
        return self._waiting > 0

    def start(self, call: Callable[[*Given], Result], *given: *Given) -> asyncio.Future[Result]:
        """Run the blocking ``call`` in a thread, after those that came before."""
        with self._lock:
            self._waiting += 1
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, self._begin, call, *given)

    def close(self) -> None:
        """Begin nothing more; nobody waits for what a disk does not give."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, call: Callable[[*Given], Result], *given: *Given) -> Result:
        with self._lock:
            self._waiting -= 1
        return call(*given)


class Lent:
    """Something that threads use: let go of once it is closed and the last of them is back."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._away = 0
        self._closed = False

    def lend(self, call: asyncio.Future[Result]) -> None:
        """It is in use until ``call`` is done."""
        self._away += 1
        call.add_done_callback(self._returned)

    def close(self) -> None:
        """Not to be lent any more; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._let_go_if_idle()

    def _returned(self, _call: asyncio.Future[Result]) -> None:
        self._away -= 1
        if self._closed:
            self._let_go_if_idle()

    def _let_go_if_idle(self) -> None:
        if not self._away:
            self._let_go()


class SourceFile:
    """The descriptor ``file``, which is closed with it, and the ``threads`` that read from it.

    ``unchanged`` tells, blocking, whether all that was read so far is of one version.
    """

    def __init__(self, file: int, unchanged: Callable[[], bool], threads: Threads) -> None:
        self._file = file
        self._unchanged = unchanged
        self.threads = threads
        self._lent = Lent(lambda: os.close(file))

    def start(self, call: Callable[[*Given], Result], *given: *Given) -> asyncio.Future[Result]:
        """Run the blocking ``call`` in a thread; the file stays open for as long as it takes."""
        future = self.threads.start(call, *given)
        self._lent.lend(future)
        return future

    async def run(self, call: Callable[[*Given], Result], *given: *Given) -> Result:
        """What the blocking ``call`` gives; who stops waiting for it does not stop it."""
        return await asyncio.shield(self.start(call, *given))

    def close(self) -> None:
        self._lent.close()

    def read_into(self, room: memoryview, offset: int) -> int:
        """Fill ``room`` with what is at ``offset``, as far as comes at once; how many bytes.

        Blocks. Raises FileChanged where they may not be of the version that was opened.
        """
        count = os.preadv(self._file, [room], offset)
        self.require_unchanged()
        if not count:
            raise FileChanged
        return count

    def read(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes at ``offset``. Blocks. Raises FileChanged."""
        data = os.pread(self._file, count, offset)
        while len(data) < count and (more := self._behind(data, offset, count)):
            data += more
        self.require_unchanged()
        if len(data) < count:
            raise FileChanged
        return data

    def _behind(self, data: bytes, offset: int, count: int) -> bytes:
        return os.pread(self._file, count - len(data), offset + len(data))

    def require_unchanged(self) -> None:
        """Raise FileChanged unless it is as it was opened. Blocks."""
        if not self._unchanged():
            raise FileChanged


class FilePart:
    """``length`` bytes from ``first`` of ``source``; ``done`` of them have been sent so far."""

    __slots__ = ("done", "first", "length", "source")

    def __init__(self, source: SourceFile, first: int, length: int) -> None:
        self.source = source
        self.first = first
        self.length = length
        self.done = 0

    @property
    def left(self) -> int:
        """How many bytes are still to be sent."""
        return self.length - self.done

    async def block(self, most: int) -> bytes:
        """The next bytes, at most so many, for those who send them by themselves."""
        count = min(most, self.left)
        data = await self.source.run(self.source.read, self.first + self.done, count)
        self.done += count
        return data


class Scratch(threading.local):
    """Room to read to, of each thread its own; what is in it lasts until it is asked for again.

    It begins with a page, as the pages of a file do: a copy to any other place in a page takes up
    to twice as long, since reads of it are taken for those of what was just written.
    """

    def __init__(self) -> None:
        self._room = memoryview(b"")

    def room(self, length: int) -> memoryview:
        if len(self._room) < length:
            self._room = memoryview(mmap.mmap(-1, length))
        return self._room[:length]
