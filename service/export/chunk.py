"""Cutting a stream into chunks of one size. Pure."""

from __future__ import annotations

MIN_CHUNK_SIZE = 4 * 1024
MAX_CHUNK_SIZE = 8 * 1024 * 1024
DEFAULT_CHUNK_SIZE = 256 * 1024
MOST_PIECES = 1024  # kept apart before they are joined: an object costs more than a few bytes


class Chunker:
    """Collects bytes and gives chunks of exactly ``size`` bytes; ``rest`` gives what is left.

    Holds not much more memory than ``size``, however small the pieces are that come.
    """

    def __init__(self, size: int = DEFAULT_CHUNK_SIZE) -> None:
        self._size = size
        self._held: list[bytes] = []
        self._length = 0
        self._fed = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks that ``data`` completes."""
        if data:
            self._hold(data)
        if self._length < self._size:
            return []
        joined = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        whole = self._length - self._length % self._size
        self._held = [joined[whole:]] if whole < self._length else []
        self._length -= whole
        if whole == self._size == len(joined):
            return [joined]
        return [joined[start : start + self._size] for start in range(0, whole, self._size)]

    def rest(self) -> bytes:
        """Everything held, shorter than a chunk."""
        rest = b"".join(self._held)
        self._held, self._length = [], 0
        return rest

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._length += len(data)
        self._fed += 1
        if self._fed % MOST_PIECES == 0:
            self._held[-MOST_PIECES:] = [b"".join(self._held[-MOST_PIECES:])]
