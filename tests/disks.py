"""Small disks, and folders that are taken away: for tests of what a full or broken storage does."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"
BLOCK = 64 * 1024


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of ``size`` bytes at ``folder`` until the block ends; skips where none may be made."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0700"
    _mounted("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in ``folder`` can be changed by its name; files that are open stay so."""
    _mounted("--bind", str(folder), str(folder))
    try:
        _mounted("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        _unmount(folder)


@contextmanager
def filled(folder: Path, left: int = 0) -> Iterator[None]:
    """Take all but ``left`` bytes of the disk of ``folder``; they are free again behind the block."""
    path = folder / FILLER
    try:
        with path.open("wb", buffering=0) as file:
            while free_bytes(folder) > left:
                file.write(bytes(min(BLOCK, free_bytes(folder) - left)))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    try:
        yield
    finally:
        path.unlink()


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _mounted(*arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk of a test's own")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no disk of a test's own can be mounted here: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    # Lazily: somebody may still have a file of it open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
