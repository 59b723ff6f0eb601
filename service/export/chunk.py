"""Cutting a stream into chunks of one size. Pure."""

from __future__ import annotations

MIN_CHUNK_SIZE = 4 * 1024
MAX_CHUNK_SIZE = 8 * 1024 * 1024
DEFAULT_CHUNK_SIZE = 256 * 1024


class Chunker:
    """Collects bytes and gives chunks of exactly ``size`` bytes; ``rest`` gives what is left."""

    def __init__(self, size: int = DEFAULT_CHUNK_SIZE) -> None:
        self._size = size
        self._held: list[bytes] = []
        self._length = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks that ``data`` completes."""
        if data:
            self._held.append(data)
            self._length += len(data)
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
