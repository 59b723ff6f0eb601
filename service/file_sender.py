"""Parts of files straight to a connection's own descriptor, past transport and event loop.

uvloop has no ``sendfile``, and the kernel's would send pages by reference: a client on the same
machine (loopback, containers) then gets what they hold when it reads them, long after they were
acknowledged. So they are copied, by threads, and checked between reading and sending: whatever
leaves is of one version. While cached it takes as long as nginx's sendfile.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from service.file_part import FilePart, Lent, Scratch
from service.streaming import ClientLeft

MOST = 1024 * 1024  # bytes read at once
LEAST = 64 * 1024
BURST = 4 * 1024 * 1024  # bytes after which a thread turns to whoever waits for one

_scratch = Scratch()


class FileSender:
    """Sends on ``connection``, a duplicate that it closes; ``sent`` counts bytes.

    It may be used while nothing waits in the transport, and nobody else writes.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.sent = 0
        self._connection = connection
        self._lent = Lent(connection.close)
        self._ahead = MOST
        self._over = False

    async def send(self, part: FilePart) -> None:
        """All that is left of ``part``. A client that reads slowly keeps no thread.

        Raises FileChanged and ClientLeft.
        """
        while part.left and not self._over:
            call = part.source.start(self._burst, part)
            self._lent.lend(call)
            await asyncio.shield(call)
            if part.left:
                await self._writable()

    def close(self) -> None:
        self._lent.close()

    def abort(self) -> None:
        """Let the client see at once that no more comes, even if a thread is held by a disk."""
        self._over = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self.close()

    def _burst(self, part: FilePart) -> None:
        """Send until the kernel takes no more. Blocks on the file alone."""
        before = self.sent
        while part.left and not self._over:
            if self.sent - before >= BURST and part.source.threads.wanted:
                break
            room = _scratch.room(min(self._ahead, part.left))
            count = part.source.read_into(room, part.first + part.done)
            if not self._give(part, room[:count]):
                break
        # What the kernel does not take has been read in vain, and is read again.
        self._ahead = min(max(self.sent - before, LEAST), MOST)

    def _give(self, part: FilePart, data: memoryview) -> bool:
        """Whether all of it was taken."""
        given = 0
        while given < len(data) and not self._over:
            try:
                taken = self._connection.send(data[given:])
            except BlockingIOError:
                return False
            except OSError as error:
                raise ClientLeft("The client closed the connection.") from error
            given += taken
            part.done += taken
            self.sent += taken
        return given == len(data)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        file = self._connection.fileno()

        def wake() -> None:
            loop.remove_writer(file)
            if not ready.done():
                ready.set_result(None)

        loop.add_writer(file, wake)
        try:
            await ready
        finally:
            loop.remove_writer(file)
