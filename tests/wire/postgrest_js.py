"""The JavaScript client of PostgREST, from npm, in a Node process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".tailrace" / "npm"
NAME, VERSION = "@supabase/postgrest-js", "2.119.1"
PACKAGE = CACHE / "node_modules" / NAME
PROGRAM = Path(__file__).with_name("postgrest_client.mjs")
INSTALL = (
    *("npm", "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund"),
    *("--fetch-retries=0", "--fetch-timeout=30000", "--prefix"),
)
SECONDS = 60.0


def called(base: str, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the client says of each call: data, error, count and status, or what it threw."""
    _install()
    command = ["node", str(PROGRAM), str(PACKAGE), base]
    done = subprocess.run(
        command,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def _install() -> None:
    """Once; a test is skipped with the reason where that is not possible."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    manifest = PACKAGE / "package.json"
    if manifest.is_file() and json.loads(manifest.read_text())["version"] == VERSION:
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [*INSTALL, str(CACHE), f"{NAME}@{VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm could not install {NAME}: {done.stderr[-500:]}")
