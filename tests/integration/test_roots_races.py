"""Whoever swaps files and folders while they are opened leads nobody out of the root."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.download.roots import Root
from service.errors import NotFound
from tests.artifact_files import open_files

OPENS = 4000
INSIDE, OUTSIDE = b"inside", b"the canary of the outside"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with ``swap``, a folder, and ``swap.txt``; a link to what is outside beside each."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place, content in [(root / "swap", INSIDE), (outside, OUTSIDE)]:
        place.mkdir(parents=True)
        (place / "file.txt").write_bytes(content)
    (outside / "outside.txt").write_bytes(OUTSIDE)
    (root / "swap.txt").write_bytes(INSIDE)
    (root / "trap").symlink_to("../outside")
    (root / "trap.txt").symlink_to("../outside/file.txt")
    return root


@contextmanager
def swapping(folder: Path, name: str, trap: str) -> Iterator[None]:
    """Exchange the two again and again, in a thread, until the block ends."""
    begun, over = threading.Event(), threading.Event()
    parked = f"{name}.parked"

    def swap() -> None:
        while not over.is_set():
            for source, target in [(name, parked), (trap, name), (name, trap), (parked, name)]:
                (folder / source).rename(folder / target)
            begun.set()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        assert begun.wait(30)
        yield
    finally:
        over.set()
        thread.join()


def content(root: Root, path: str) -> bytes | None:
    """None where nothing is there."""
    try:
        found = root.open_file(path)
    except NotFound:
        return None
    try:
        return os.read(found.file, 1000)
    finally:
        os.close(found.file)


@pytest.mark.parametrize(
    ("name", "trap", "path"),
    [("swap", "trap", "swap/file.txt"), ("swap.txt", "trap.txt", "swap.txt")],
)
def test_a_link_is_never_followed(folder: Path, name: str, trap: str, path: str) -> None:
    root = Root("files", folder)
    with swapping(folder, name, trap):
        seen = {content(root, path) for _ in range(OPENS)}
    assert seen <= {INSIDE, None}
    assert content(root, path) == INSIDE


def test_no_folder_outside_is_listed(folder: Path) -> None:
    root = Root("files", folder)
    seen: set[str] = set()
    with swapping(folder, "swap", "trap"):
        for _ in range(OPENS):
            try:
                listing = root.list_folder("swap/", after=None, limit=10)
            except NotFound:
                continue
            seen.update(entry.name for entry in listing.entries)
    assert seen <= {"file.txt"}


def test_a_root_that_is_replaced_is_one_or_the_other(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version / "sub").mkdir(parents=True)
        (tmp_path / version / "sub" / "version").write_text(version)
    current, coming = tmp_path / "current", tmp_path / "coming"
    current.symlink_to("one")
    over = threading.Event()

    def replace() -> None:
        while not over.is_set():
            for version in ("two", "one"):
                coming.symlink_to(version)
                coming.rename(current)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        seen = {content(Root("files", current), "sub/version") for _ in range(OPENS)}
    finally:
        over.set()
        thread.join()
    assert seen <= {b"one", b"two"}


def _as_device(path: Path) -> None:
    try:
        os.mknod(path, 0o020600, os.makedev(1, 5))  # /dev/zero
    except OSError:
        pytest.skip("no device can be made here")


REPLACEMENTS: dict[str, Callable[[Path], None]] = {
    "link": lambda path: path.symlink_to("../outside/file.txt"),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "device": _as_device,
    "nothing": lambda _path: None,
}


@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_what_comes_between_the_look_and_the_open_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Exactly between the two, each time: a pipe would be waited for, a device read for ever."""
    really, target = os.open, folder / "swap.txt"

    def behind_a_swap(path: bytes | Path, flags: int, *, dir_fd: int | None = None) -> int:
        if path == b"swap.txt":
            target.unlink()
            REPLACEMENTS[kind](target)
        return really(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", behind_a_swap)
    before = open_files()
    assert content(Root("files", folder), "swap.txt") is None
    assert open_files() == before
