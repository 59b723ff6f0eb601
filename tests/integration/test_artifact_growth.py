"""Followers of growing artifacts: every byte for all of them, at the price of one look."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from service.artifacts.folder import ArtifactFolder
from service.artifacts.growth import Growth
from service.artifacts.reading import ArtifactReader
from service.errors import StorageFailed
from tests.artifact_files import reader_of, written
from tests.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "artifacts")


async def follow(folder: ArtifactFolder, growth: Growth, name: str, total: int) -> bytes:
    """Everything up to ``total`` bytes, as it comes."""
    reader, data = reader_of(folder, name), bytearray()
    while len(data) < total:
        await growth.beyond(reader, name, len(data))
        data += await reader.read(len(data), 64 * 1024)
    reader.close()
    return bytes(data)


def nobody_waits(growth: Growth) -> bool:
    return not len(growth) and asyncio.all_tasks() == {asyncio.current_task()}


async def test_fifty_followers_get_every_byte(folder: ArtifactFolder) -> None:
    rng, growth = random.Random(7), Growth()
    pieces = [rng.randbytes(int(10 ** rng.uniform(0, 5))) for _ in range(60)]
    whole = b"".join(pieces)
    writer = await written(folder)
    following = [
        asyncio.create_task(follow(folder, growth, writer.name, len(whole))) for _ in range(50)
    ]
    for piece in pieces:
        await writer.write(piece)
        await asyncio.sleep(rng.choice([0, 0, 0.015]))
    await writer.publish()
    folder.remove(writer.name)
    assert set(await asyncio.gather(*following)) == {whole}
    assert nobody_waits(growth)


class Counting(ArtifactReader):
    looks = 0

    def size(self) -> int:
        self.looks += 1
        return super().size()


async def test_a_file_is_looked_at_once_for_all(folder: ArtifactFolder) -> None:
    """By the descriptor of somebody who still waits."""
    growth, writer = Growth(), await written(folder, b"x")
    readers = [Counting(os.open(folder.growing(writer.name), os.O_RDONLY)) for _ in range(9)]
    waiting = [asyncio.create_task(growth.beyond(reader, "key", 1)) for reader in readers]

    async def looked_at(place: int) -> bool:
        return readers[place].looks > 3

    await eventually(lambda: looked_at(0), within=10, what="looks at the file")
    assert [reader.looks for reader in readers[1:]] == [1] * 8
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    readers[0].close()
    await eventually(lambda: looked_at(1), within=10, what="looks by the next")
    assert len(growth) == 1
    await writer.write(b"x")
    await asyncio.gather(*waiting[1:])
    assert nobody_waits(growth)
    for reader in readers:
        reader.close()
    await writer.discard()


async def test_nothing_is_left_of_those_who_give_up(folder: ArtifactFolder) -> None:
    growth, writer = Growth(), await written(folder, b"x")
    reader = Counting(os.open(folder.growing(writer.name), os.O_RDONLY))
    far = [asyncio.create_task(growth.beyond(reader, "key", offset)) for offset in (1, 100)]
    await asyncio.wait(far, timeout=0.05)
    await writer.write(b"x")
    await far[0]
    assert not far[1].done()
    far[1].cancel()
    await asyncio.wait({far[1]})
    assert nobody_waits(growth)
    looks, clock = reader.looks, Counting(os.dup(reader._file))
    ticking = asyncio.create_task(growth.beyond(clock, "clock", 100))

    async def ticked() -> bool:
        return clock.looks > 5

    await eventually(ticked, within=10, what="looks at another file")
    assert reader.looks == looks
    ticking.cancel()
    await asyncio.wait({ticking})
    for each in (reader, clock):
        each.close()
    await writer.discard()


async def test_a_size_that_cannot_be_told_is_an_error_for_all(folder: ArtifactFolder) -> None:
    growth, writer = Growth(), await written(folder, b"x")
    readers = [reader_of(folder, writer.name) for _ in range(2)]
    waiting = [asyncio.create_task(growth.beyond(reader, "key", 1)) for reader in readers]
    await asyncio.wait(waiting, timeout=0.05)
    readers[0].close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [StorageFailed] * 2
    assert nobody_waits(growth)
    readers[1].close()
    await writer.discard()
