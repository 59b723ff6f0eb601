"""Folders that are offered: their files opened, in threads, as what they are at that moment."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from service.download.listing import Listing
from service.download.roots import OpenFile, Root
from service.errors import FileChanged, NotFound
from service.export.compress import COMPRESSIONS
from service.file_part import Threads
from service.representation import negotiate_encoding
from service.settings import RootSettings
from service.slots import Slots

LOOKS = 5  # at a file that somebody writes to, each at most 20 ms behind the one before
THREADS = 8  # of each root: a disk that hangs holds nobody else's
READ_AHEAD: int | None = getattr(os, "POSIX_FADV_SEQUENTIAL", None)  # Linux doubles what it does

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Chosen:
    """An open file, and the coding of its content in which it stands for another one."""

    opened: OpenFile
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A root, how many downloads of it there may be at once, and the threads that read from it."""

    root: Root
    settings: RootSettings
    slots: Slots
    threads: Threads

    async def open_file(self, path: str, accept_encoding: str) -> Chosen:
        """The file at ``path``; a precompressed sibling of it where the client likes that better.

        Raises NotFound, Busy, and FileChanged where somebody writes to it at this moment.
        """
        coded = self.settings.precompressed
        call = partial(_chosen, self.root, path, accept_encoding if coded else None)
        return await self._run(call, lambda chosen: os.close(chosen.opened.file))

    async def list_folder(self, path: str, *, after: str | None, limit: int) -> Listing:
        """A page of the folder at ``path``. Raises NotFound, also where none is listed, and Busy."""
        call = partial(self.root.list_folder, path, after=after, limit=limit)
        return await self._run(call, lambda _: None)

    def close(self) -> None:
        """Nothing more is read."""
        self.threads.close()

    async def _run(self, call: Callable[[], Found], unwanted: Callable[[Found], None]) -> Found:
        """What ``call`` gives; ``unwanted`` if nobody waits for it any more by then."""
        future = self.threads.start(call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(partial(_dispose, unwanted))
            raise


def open_shares(settings: Mapping[str, RootSettings], patience: float) -> dict[str, Share]:
    """Every root by its name; ``patience`` is how many seconds a download waits for a slot."""
    return {name: _share(name, root, patience) for name, root in settings.items()}


def _share(name: str, settings: RootSettings, patience: float) -> Share:
    return Share(
        root=Root(name, settings.path, hidden=settings.hidden),
        settings=settings,
        slots=Slots(name, settings.max_downloads, patience, "downloads"),
        threads=Threads(THREADS, f"files-{name}"),
    )


def _dispose(unwanted: Callable[[Found], None], future: asyncio.Future[Found]) -> None:
    if not future.cancelled() and future.exception() is None:
        unwanted(future.result())


def _chosen(root: Root, path: str, accept_encoding: str | None) -> Chosen:
    found: dict[str | None, OpenFile] = {None: _settled(root, path)}
    wanted: str | None = ""
    try:
        if accept_encoding is not None:
            _add_siblings(found, root, path)
        wanted = negotiate_encoding(accept_encoding or "", [name for name in found if name])
        if READ_AHEAD is not None:
            with suppress(OSError):
                os.posix_fadvise(found[wanted].file, 0, 0, READ_AHEAD)
        return Chosen(found[wanted], wanted)
    finally:
        for coding, opened in found.items():
            if coding != wanted:
                os.close(opened.file)


def _add_siblings(found: dict[str | None, OpenFile], root: Root, path: str) -> None:
    """The compressed forms of a file, by their codings; one that is older is one of another."""
    for coding, compression in COMPRESSIONS.items():
        with suppress(NotFound, FileChanged):
            sibling = _settled(root, path + compression.suffix)
            if sibling.modified >= found[None].modified:
                found[coding] = sibling
            else:
                os.close(sibling.file)


def _settled(root: Root, path: str) -> OpenFile:
    """The file at ``path``, once no later change of it can leave the same stamp."""
    opened = root.open_file(path)
    try:
        for _ in range(LOOKS):
            if not (pause := opened.settled_in(time.time_ns())):
                return opened
            time.sleep(pause)
            if opened.look_again():
                return opened
        raise FileChanged
    except BaseException:
        os.close(opened.file)
        raise
