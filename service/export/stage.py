"""What every step of bytes is: three methods, composed by looping. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Stage(Protocol):
    """Bytes in, bytes out; a stage may hold some back until ``sync`` or ``finish``."""

    def feed(self, data: bytes) -> bytes:
        """Take a block, give what is ready."""
        ...

    def sync(self) -> bytes:
        """Give everything that a reader could use by now; more will follow."""
        ...

    def finish(self) -> bytes:
        """Give the rest. Called once, after the last block."""
        ...


class Pipeline:
    """Stages in a row, itself a stage."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)

    def feed(self, data: bytes) -> bytes:
        for stage in self._stages:
            data = stage.feed(data)
        return data

    def sync(self) -> bytes:
        data = b""
        for stage in self._stages:
            data = (stage.feed(data) if data else b"") + stage.sync()
        return data

    def finish(self) -> bytes:
        data = b""
        for stage in self._stages:
            data = (stage.feed(data) if data else b"") + stage.finish()
        return data
