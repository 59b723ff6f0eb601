"""What an open file says of itself: one version, and whether it is still that one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.download.roots import SETTLED, OpenFile, Root
from service.preconditions import TAG

OLD, NEW = b"old " * 5000, b"new " * 5000
LONG_AGO = 1_600_000_000_123_456_789  # nanoseconds
NOW = 1_700_000_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.csv"
    path.write_bytes(OLD)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def found(path: Path) -> Iterator[OpenFile]:
    """A file that was old when it was opened, and whose stamp has settled."""
    opened = Root("files", path.parent).open_file(path.name)
    time.sleep(opened.settled_in(time.time_ns()))
    assert opened.look_again()
    yield opened
    os.close(opened.file)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(NEW)


def rewrite_and_set_back(path: Path) -> None:
    rewrite(path)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate_and_fill(path: Path) -> None:
    os.truncate(path, 10)
    path.write_bytes(OLD)


def replace(path: Path) -> None:
    coming = path.with_suffix(".coming")
    coming.write_bytes(NEW)
    coming.rename(path)


def replace_twice(path: Path) -> None:
    replace(path)
    replace(path)


def rename(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def keep_a_backup(path: Path) -> None:
    path.with_suffix(".backup").hardlink_to(path)


def read(path: Path) -> None:
    assert path.read_bytes() == OLD


CHANGES: dict[str, Callable[[Path], None]] = {
    "rewritten in place": rewrite,
    "rewritten, its time set back": rewrite_and_set_back,
    "appended to": append,
    "truncated": lambda path: os.truncate(path, 100),
    "emptied": lambda path: os.truncate(path, 0),
    "truncated and filled again": truncate_and_fill,
    "touched": lambda path: path.touch(),
    "another mode": lambda path: path.chmod(0o600),
    "renamed": rename,
}
HARMLESS: dict[str, Callable[[Path], None]] = {
    "replaced": replace,
    "replaced twice": replace_twice,
    "deleted": lambda path: path.unlink(),
    "linked to": keep_a_backup,
    "read": read,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(path: Path, found: OpenFile, change: str) -> None:
    half = os.pread(found.file, len(OLD) // 2, 0)
    assert found.unchanged()
    CHANGES[change](path)
    os.pread(found.file, len(OLD), len(half))
    assert not found.unchanged()


@pytest.mark.parametrize("change", HARMLESS)
def test_the_version_that_was_opened_is_read_to_its_end(
    path: Path, found: OpenFile, change: str
) -> None:
    half = os.pread(found.file, len(OLD) // 2, 0)
    HARMLESS[change](path)
    assert half + os.pread(found.file, len(OLD), len(half)) == OLD
    assert found.unchanged()


def test_a_replaced_file_that_is_written_to_is_noticed(path: Path, found: OpenFile) -> None:
    """Somebody may hold the old version open, for writing."""
    with path.open("r+b") as held:
        replace(path)
        assert found.unchanged()
        held.write(NEW)
    assert not found.unchanged()


def test_nobody_can_tell_of_what_is_closed(path: Path) -> None:
    opened = Root("files", path.parent).open_file(path.name)
    os.close(opened.file)
    assert not opened.unchanged()


def tag_of(path: Path) -> str:
    opened = Root("files", path.parent).open_file(path.name)
    os.close(opened.file)
    return opened.etag()


def test_a_tag_is_that_of_one_version(path: Path) -> None:
    tags = [tag_of(path)]
    assert tag_of(path) == tags[0]
    for change in (rewrite_and_set_back, append, replace):
        change(path)
        tags.append(tag_of(path))
        assert tag_of(path) == tags[-1]
    assert len(set(tags)) == 4


def test_a_tag_is_strong_and_tells_nothing(path: Path, found: OpenFile) -> None:
    tag = found.etag()
    assert TAG.fullmatch(tag)
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    assert str(path.stat().st_ino) not in tag


@pytest.mark.parametrize("place", range(5))
def test_each_part_of_the_stamp_makes_another_tag(place: int) -> None:
    one, other = made_up(), made_up()
    stamp = list(other.stamp)
    stamp[place] += 1
    other.stamp = (stamp[0], stamp[1], stamp[2], stamp[3], stamp[4])
    assert one.etag() == made_up().etag() != other.etag()


def test_looking_again_takes_the_change_over(path: Path, found: OpenFile) -> None:
    before = found.etag()
    append(path)
    assert not found.look_again()
    assert found.size == len(OLD) + 4 == found.stamp[2]
    assert found.modified == datetime.fromtimestamp(path.stat().st_mtime_ns // 1000 / 1e6, UTC)
    assert found.etag() == tag_of(path) != before
    assert found.look_again()
    assert found.unchanged()
    replace(path)
    assert not found.look_again()
    assert (found.size, found.links) == (len(OLD) + 4, 0)


def made_up(written: int = LONG_AGO, changed: int = LONG_AGO) -> OpenFile:
    stamp = (1, 2, 3, written, changed)
    return OpenFile(-1, "file", 3, datetime.now(UTC), stamp, 1)


@pytest.mark.parametrize(
    ("written", "changed", "seconds"),
    [
        (NOW, NOW, 0.02),
        (NOW - 5_000_000, NOW - 5_000_000, 0.015),
        (NOW - 19_999_999, NOW - 19_999_999, 1e-9),
        (NOW - SETTLED, NOW - SETTLED, 0.0),
        (NOW - 10**18, NOW - 10**18, 0.0),
        (0, 0, 0.0),
        (LONG_AGO, NOW, 0.02),
        (LONG_AGO, NOW - 15_000_000, 0.005),
        (NOW + 1, LONG_AGO, 0.02),
        (NOW + 10**18, NOW, 0.02),
        (NOW + 10**18, NOW + 10**18, 0.02),
    ],
)
def test_a_fresh_stamp_is_waited_for(written: int, changed: int, seconds: float) -> None:
    assert made_up(written, changed).settled_in(NOW) == pytest.approx(seconds)


@given(st.integers(), st.integers(), st.integers())
def test_no_clock_makes_anybody_wait_longer(written: int, changed: int, now: int) -> None:
    assert 0.0 <= made_up(written, changed).settled_in(now) <= 0.02


def test_a_settled_stamp_is_not_given_twice(path: Path) -> None:
    """Without the wait a slow clock gives the same stamp to two contents, now and then."""
    for turn in range(20):
        path.write_bytes(bytes([turn]) * 100)
        opened = Root("files", path.parent).open_file(path.name)
        time.sleep(opened.settled_in(time.time_ns()))
        assert opened.look_again()
        path.write_bytes(bytes([turn + 1]) * 100)
        assert not opened.unchanged()
        os.close(opened.file)
