"""The secret that cursors are signed with: configured, or made once and kept beside the data."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

NAME = "secret"
BYTES = 32


def kept_secret(folder: Path) -> str:
    """The secret in ``folder``, made at the first call; all processes of a host share it.

    Raises OSError when it can neither be read nor written.
    """
    file = folder / NAME
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _made(file)
    return file.read_text("ascii")


def _made(file: Path) -> None:
    """Write a new secret in one step, unless another process was first."""
    draft = file.with_name(f".{NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_urlsafe(BYTES).encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileExistsError):
        file.hardlink_to(draft)
    draft.unlink()
