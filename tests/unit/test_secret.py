"""The secret of the cursors: made once, the same for everybody, readable by nobody else."""

from __future__ import annotations

import threading
from pathlib import Path

from service.secret import kept_secret


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "deep"
    secret = kept_secret(folder)
    assert len(secret) >= 43  # 32 bytes
    assert kept_secret(folder) == secret
    assert kept_secret(tmp_path / "other") != secret
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in folder.iterdir()] == ["secret"]


def test_all_who_ask_at_once_get_the_same(tmp_path: Path) -> None:
    together = threading.Barrier(16)
    found: set[str] = set()

    def ask() -> None:
        together.wait()
        found.add(kept_secret(tmp_path))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
