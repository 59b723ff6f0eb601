"""Virtual environments for other people's programs, from hashed lock files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "requirements"


class Unavailable(Exception):
    """A program cannot be had here; the text says why."""


def installed(folder: Path, name: str) -> Path:
    """The programs of the environment that ``requirements/bench-{name}.lock`` describes.

    It is made at the first need, and anew when the lock file has changed. Raises Unavailable.
    """
    lock, home = LOCKS / f"bench-{name}.lock", folder / name
    kept = home / "lock"
    if not kept.is_file() or kept.read_bytes() != lock.read_bytes():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _uv(home, "venv", home / "venv", "--python", sys.executable)
        where = ("--python", home / "venv" / "bin" / "python")
        _uv(home, "pip", "install", *where, "--require-hashes", "--requirement", lock)
        shutil.copyfile(lock, kept)
    return home / "venv" / "bin"


def _uv(home: Path, *arguments: str | Path) -> None:
    # beside python where `make setup` puts it; PATH need not name that folder
    uv = Path(sys.executable).with_name("uv")
    log = home / "install.log"
    with log.open("ab") as out:
        done = subprocess.run([uv, *arguments], stdout=out, stderr=out, check=False)
    if done.returncode != 0:
        raise Unavailable(f"it could not be installed, see {log}")
