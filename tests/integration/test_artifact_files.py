"""Artifacts on real disks: whole or not there, and closed to others."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.artifacts import writer as writing
from service.artifacts.folder import ArtifactFolder, storage_error
from service.artifacts.writer import ArtifactWriter
from service.errors import StorageFailed, StorageFull
from tests.artifact_files import left, open_files, reader_of, written

MIB = 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "deep" / "artifacts")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[ArtifactFolder]:
    """A folder with room for one MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tailrace-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a tmpfs, and not everywhere")
    yield ArtifactFolder(place)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_it_is_growing_and_then_finished(folder: ArtifactFolder) -> None:
    writer = await written(folder, b"one", b"", b"two")
    assert left(folder) == [f"{writer.name}.part"]
    assert writer.bytes == folder.used_bytes() == 6
    reader = reader_of(folder, writer.name)
    await writer.publish()
    assert left(folder) == [writer.name]
    assert await reader.read(0, 100) == b"onetwo"
    assert await reader.read(6, 100) == b""
    reader.close()
    await writer.discard()
    assert folder.finished(writer.name).read_bytes() == b"onetwo"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_modes_under_any_umask(folder: ArtifactFolder, umask: int) -> None:
    before = os.umask(umask)
    try:
        writer = await written(folder, b"x")
        await writer.publish()
    finally:
        os.umask(before)
    for path, mode in [
        (folder.path.parent, 0o700),
        (folder.path, 0o700),
        (folder.finished(writer.name), 0o600),
    ]:
        assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_two_writers_cannot_share_a_name(folder: ArtifactFolder) -> None:
    first = await written(folder, b"first")
    second = ArtifactWriter(folder, first.name)
    with pytest.raises(StorageFailed) as caught:
        await second.open()
    assert str(folder.path) not in caught.value.detail
    await second.discard()
    await first.publish()
    third = ArtifactWriter(folder, first.name)
    await third.open()
    with pytest.raises(StorageFailed):
        await third.publish()
    await third.discard()
    assert left(folder) == [first.name]
    assert folder.finished(first.name).read_bytes() == b"first"


async def test_discard_at_any_time_and_twice(folder: ArtifactFolder) -> None:
    opened = open_files()
    for steps in range(3):
        writer = ArtifactWriter(folder, folder.new_name())
        for step in (writer.open, lambda writer=writer: writer.write(b"x"))[:steps]:
            await step()
        await asyncio.gather(writer.discard(), writer.discard())
        await writer.discard()
        for call in (writer.open, writer.publish):
            with pytest.raises(StorageFailed):
                await call()
    assert left(folder) == []
    assert open_files() == opened


class Held(ArtifactWriter):
    """Writes and publishes once it may, in its thread."""

    def __init__(self, folder: ArtifactFolder, name: str) -> None:
        super().__init__(folder, name)
        self.entered, self.may = threading.Event(), threading.Event()

    def _write(self, data: bytes) -> None:
        self._hold()
        super()._write(data)

    def _publish(self) -> None:
        super()._publish()
        self._hold()

    def _hold(self) -> None:
        self.entered.set()
        assert self.may.wait(30)


@pytest.mark.parametrize("step", ["write", "publish"])
async def test_discard_waits_for_what_still_runs(folder: ArtifactFolder, step: str) -> None:
    """Also if it is cancelled itself; a publish that nobody heard of is taken back."""
    writer = Held(folder, folder.new_name())
    await writer.open()
    running = asyncio.create_task(writer.write(b"x") if step == "write" else writer.publish())
    assert await asyncio.to_thread(writer.entered.wait, 30)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    discarding = asyncio.create_task(writer.discard())
    await asyncio.wait({discarding}, timeout=0.05)
    discarding.cancel()
    await asyncio.wait({discarding}, timeout=0.05)
    assert not discarding.done()
    assert len(left(folder)) == 1
    writer.may.set()
    await asyncio.wait({discarding})
    assert discarding.cancelled()
    assert left(folder) == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_write_comes_behind_one_that_was_cancelled(folder: ArtifactFolder) -> None:
    writer = Held(folder, folder.new_name())
    await writer.open()
    first = asyncio.create_task(writer.write(b"first"))
    assert await asyncio.to_thread(writer.entered.wait, 30)
    first.cancel()
    second = asyncio.create_task(writer.write(b"second"))
    await asyncio.wait({second}, timeout=0.05)
    writer.may.set()
    await second
    await writer.publish()
    assert folder.finished(writer.name).read_bytes() == b"firstsecond"


async def test_a_sync_runs_beside_writes_and_one_at_a_time(
    folder: ArtifactFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    may, files = threading.Event(), list[int]()

    def held_sync(file: int) -> None:
        files.append(file)
        assert may.wait(30)
        os.fdatasync(file)

    monkeypatch.setattr(writing, "sync_data", held_sync)
    monkeypatch.setattr(writing, "SYNC_BYTES", 10)
    writer = await written(folder, bytes(11), bytes(11), b"x")
    publishing = asyncio.create_task(writer.publish())
    await asyncio.wait({publishing}, timeout=0.2)
    assert left(folder) == [f"{writer.name}.part"]
    may.set()
    await publishing
    assert len(files) == 1


async def test_the_file_and_its_new_name_are_synced(
    folder: ArtifactFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order; no test can cut the power, so the calls are written down as they pass."""
    synced, fsync = list[tuple[bool, list[str]]](), os.fsync

    def noting(file: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(file).st_mode), left(folder)))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noting)
    writer = await written(folder, b"x")
    await writer.publish()
    assert synced == [(False, [f"{writer.name}.part"]), (True, [writer.name])]


async def test_an_error_of_a_sync_is_not_lost(
    folder: ArtifactFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(file: int) -> None:
        raise OSError(errno.EIO, "no disk can be made to fail from here")

    monkeypatch.setattr(writing, "sync_data", failing)
    writer = await written(folder, bytes(writing.SYNC_BYTES))
    for _ in range(2):
        with pytest.raises(StorageFailed, match="Input/output error"):
            await writer.publish()
    await writer.discard()
    assert left(folder) == []


async def test_it_may_not_grow_beyond_its_limit(folder: ArtifactFolder) -> None:
    writer = ArtifactWriter(folder, folder.new_name(), max_bytes=10)
    await writer.open()
    await writer.write(bytes(10))
    for step in (writer.write(b"x"), writer.write(b""), writer.publish()):
        with pytest.raises(StorageFull, match="10 bytes"):
            await step
    await writer.discard()
    assert left(folder) == []


async def test_a_full_disk(tiny: ArtifactFolder) -> None:
    writer = await written(tiny, bytes(MIB // 2))
    for step in (writer.write(bytes(MIB)), writer.publish()):
        with pytest.raises(StorageFull):
            await step
    assert tiny.free_bytes() == 0
    await writer.discard()
    assert left(tiny) == []
    again = await written(tiny, bytes(MIB // 2))
    await again.publish()
    assert left(tiny) == [again.name]


async def test_a_read_only_disk(tiny: ArtifactFolder) -> None:
    writer = await written(tiny, b"x")
    await writer.publish()
    remount = ["mount", "-o", "remount,ro", str(tiny.path)]
    await asyncio.to_thread(subprocess.run, remount, check=True)
    for step in (lambda: written(tiny, b"x"), lambda: asyncio.to_thread(tiny.remove, writer.name)):
        with pytest.raises(StorageFailed, match="Read-only file system") as caught:
            await step()
        assert not isinstance(caught.value, StorageFull)
    reader = reader_of(tiny, writer.name)
    assert await reader.read(0, 9) == b"x"
    reader.close()


def test_no_room_is_told_apart_from_other_failures() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as caught:  # noqa: PTH123 - a device
        full.write(b"x")
    assert isinstance(storage_error(caught.value), StorageFull)
    for number in (errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE):
        failure = storage_error(OSError(number, "text", "/secret/path"))
        assert isinstance(failure, StorageFull) is (number in {errno.EDQUOT, errno.EFBIG})
        assert "/" not in failure.detail.replace("Input/output", "")


async def test_a_folder_that_vanishes_is_made_again(folder: ArtifactFolder) -> None:
    assert folder.free_bytes() is None
    assert folder.used_bytes() == 0
    assert folder.strangers((), 0) == []
    assert folder.open_growing_or_finished("0" * 32) is None
    folder.remove("0" * 32)
    writer = await written(folder, b"x")
    folder.remove(writer.name)
    folder.path.rmdir()
    with pytest.raises(StorageFailed):
        await writer.publish()
    await writer.discard()
    await (await written(folder, b"x")).publish()
    folder.prepare()
    assert (folder.free_bytes() or 0) > 0


async def test_a_file_in_the_place_of_the_folder(folder: ArtifactFolder) -> None:
    folder.path.parent.mkdir()
    folder.path.touch()
    with pytest.raises(StorageFailed):
        folder.prepare()
    with pytest.raises(StorageFailed):
        await written(folder, b"x")


def test_strangers_are_old_and_ours_and_not_known(folder: ArtifactFolder) -> None:
    folder.prepare()
    young, old, known, crashed = sorted(folder.new_name() for _ in range(4))
    for name in (young, old, known, f"{crashed}.part", "notes.txt", "README", f"{old}.bak"):
        (folder.path / name).touch()
        if name != young:
            os.utime(folder.path / name, (0, time.time() - 100))
    (folder.path / ("f" * 32)).mkdir()
    folder.finished("e" * 32).symlink_to(folder.path / "notes.txt")
    for name in ("e" * 32, "f" * 32):
        os.utime(folder.path / name, (0, time.time() - 100), follow_symlinks=False)
    assert folder.strangers({known}, 50) == sorted([old, crashed])
    assert folder.strangers({known}, 200) == []
    with pytest.raises(StorageFailed):
        folder.open_growing_or_finished("e" * 32)


class BegunMeanwhile(ArtifactFolder):
    """Where the growing file comes after the first look at it."""

    def finished(self, name: str) -> Path:
        self.growing(name).touch()
        return super().finished(name)


def test_a_file_that_comes_between_two_looks_is_found(folder: ArtifactFolder) -> None:
    folder.prepare()
    file = BegunMeanwhile(folder.path).open_growing_or_finished("0" * 32)
    assert file is not None
    os.close(file)
