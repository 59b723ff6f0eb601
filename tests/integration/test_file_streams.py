"""Files as streams of ASGI messages: exact blocks, one version, everything given back."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from service.database import utcnow
from service.download.decision import FileRequest
from service.download.files import SMALL, FileStream
from service.download.reading import LAST
from service.download.roots import OpenFile, Root
from service.download.share import Share, open_shares
from service.errors import FileChanged, NotFound, StreamBroken
from service.file_part import FilePart
from service.jobs.model import Kind, Record
from service.jobs.telling import Telling
from service.observe import Event, StreamEnded
from service.settings import RootSettings
from service.streaming import EXTENSION, ActiveStreams, StreamResponse
from tests.artifact_files import open_files
from tests.waiting import eventually

KIB = 1024
DATA = os.urandom(3_000_001)
SIZES = [0, 1, KIB, LAST - 1, LAST, LAST + 1, SMALL - 1, SMALL, SMALL + 1, SMALL + LAST, 3_000_001]


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    (tmp_path / "root").mkdir()
    found = open_shares({"files": RootSettings(path=tmp_path / "root")}, 0.1)["files"]
    yield found
    found.close()


def put(share: Share, data: bytes, name: str = "file") -> Path:
    path = share.root.path / name
    path.write_bytes(data)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


@dataclass
class Recording:
    """A client that writes down every message; ``extension`` is what its server can do."""

    extension: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    told_before_the_last: int = 0

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        if not message.get("more_body", True):
            self.told_before_the_last = len(self.told)
        self.messages.append(message)

    async def ask(
        self, share: Share, headers: Mapping[str, str] | None = None, **asked: Any
    ) -> None:
        record = Record(
            id="",
            kind=Kind.FILE,
            owner="anonymous",
            dataset=None,
            source="files",
            lane=None,
            format=None,
            compression=None,
            profile=None,
            request={},
            created_at=utcnow(),
        )
        telling = Telling(record, None, self.told.append, time.monotonic())
        request = FileRequest("file", headers or {}, **asked)
        stream = FileStream(share, request, telling, {})
        response = StreamResponse(stream, ActiveStreams(), headers={}, max_duration=None)
        scope = {"type": "http", "extensions": {EXTENSION: self.extension}}
        await response(scope, self.receive, self.send)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages[1:]]

    @property
    def outcomes(self) -> list[tuple[str, int]]:
        return [(one.outcome, one.bytes) for one in self.told if isinstance(one, StreamEnded)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk_size", [4 * KIB, 5000, 256 * KIB, 8 * KIB * KIB])
async def test_blocks_have_exactly_the_size_that_was_asked_for(
    share: Share, size: int, chunk_size: int
) -> None:
    put(share, DATA[:size])
    found = Recording()
    await found.ask(share, chunk_size=chunk_size)
    expected = [DATA[start : min(start + chunk_size, size)] for start in range(0, size, chunk_size)]
    assert found.bodies == (expected or [b""])
    assert [message["more_body"] for message in found.messages[1:]][-1] is False
    assert found.outcomes == [("complete", size)]


@pytest.mark.parametrize("chunk_size", [4 * KIB, 5000, 100_000])
async def test_the_frame_of_several_ranges_is_part_of_the_blocks(
    share: Share, chunk_size: int
) -> None:
    put(share, DATA)
    found = Recording()
    await found.ask(share, {"range": "bytes=0-9999,20000-2000000"}, chunk_size=chunk_size)
    sizes = [len(body) for body in found.bodies]
    assert set(sizes[:-1]) == {chunk_size}
    assert 0 < sizes[-1] <= chunk_size


@pytest.mark.parametrize("size", SIZES)
async def test_a_server_that_sends_no_parts_gets_blocks(share: Share, size: int) -> None:
    put(share, DATA[:size])
    found = Recording()
    await found.ask(share)
    assert b"".join(found.bodies) == DATA[:size]
    assert found.outcomes == [("complete", size)]


@pytest.mark.parametrize("size", SIZES)
async def test_the_end_is_told_before_the_last_byte_leaves(share: Share, size: int) -> None:
    """A server may send parts by itself; the last bytes never are one."""
    put(share, DATA[:size])
    found, parts = Recording(), []

    async def send_part(part: FilePart) -> None:
        parts.append((part.first, part.length))
        part.done = part.length

    found.extension["send_part"] = send_part
    await found.ask(share)
    assert parts == ([(0, size - LAST)] if size > SMALL else [])
    assert b"".join(found.bodies) == (DATA[size - LAST : size] if parts else DATA[:size])
    assert found.outcomes == [("complete", size)]
    assert found.told_before_the_last == len(found.told) == 2
    assert found.messages[-1]["body"] != b"" or size == 0


@pytest.mark.parametrize("chunk_size", [None, 4 * KIB])
async def test_a_file_that_is_cut_breaks_the_stream(share: Share, chunk_size: int | None) -> None:
    path = put(share, DATA)
    found, before = Recording(), open_files()
    sent = found.send

    async def cutting(message: Message) -> None:
        await sent(message)
        if len(found.messages) == 2:
            os.truncate(path, 1000)

    found.send = cutting  # type: ignore[method-assign]
    with pytest.raises(StreamBroken):
        await found.ask(share, chunk_size=chunk_size)
    assert DATA.startswith(b"".join(found.bodies))
    assert len(b"".join(found.bodies)) < len(DATA)
    assert [outcome for outcome, _ in found.outcomes] == ["failed"]
    assert (open_files(), share.slots.taken) == (before, 0)


@dataclass(slots=True)
class Restless(OpenFile):
    """A file that is written to whenever somebody looks."""

    def settled_in(self, now_ns: int) -> float:
        del now_ns
        return 0.001

    def look_again(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Written(Root):
    def open_file(self, path: str) -> OpenFile:
        # Not super(): slots make a class of their own.
        found = Root.open_file(self, path)
        return Restless(
            found.file, found.name, found.size, found.modified, found.stamp, found.links
        )


async def test_a_file_that_is_being_written_has_no_version_to_send(share: Share) -> None:
    put(share, DATA)
    written = replace(share, root=Written("files", share.root.path))
    found, before = Recording(), open_files()
    with pytest.raises(FileChanged):
        await found.ask(written)
    assert (found.messages, found.told) == ([], [])
    assert open_files() == before


async def test_whoever_leaves_while_it_is_opened_leaves_nothing_open(share: Share) -> None:
    put(share, DATA)
    before = open_files()
    for _ in range(20):
        opening = asyncio.create_task(share.open_file("file", ""))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    with pytest.raises(NotFound):
        await share.open_file("nothing", "")

    async def closed() -> bool:
        return open_files() == before

    await eventually(closed, within=10, what="whatever was opened in vain is closed")


async def test_a_new_file_waits_until_its_stamp_is_settled(share: Share) -> None:
    (share.root.path / "file").write_bytes(b"new")
    found = await share.open_file("file", "")
    assert found.opened.settled_in(time.time_ns()) == 0
    os.close(found.opened.file)
    digest = hashlib.sha256(repr(found.opened.stamp).encode()).hexdigest()
    assert found.opened.etag() == f'"{digest[:32]}"'
