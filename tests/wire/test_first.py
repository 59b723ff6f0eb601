"""The main job over a real socket."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import run_sql
from tests.serving import Served, without_worker


@pytest.fixture(scope="module")
def served(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run_sql(
        module_database_url,
        "create table numbers as select i as id, 'n' || i as name from generate_series(1, 100000) i;"
        "alter table numbers add primary key (id)",
    )
    folder = tmp_path_factory.mktemp("served")
    with without_worker(
        folder, module_database_url, config='[sources.main]\nexpose=["public.*"]'
    ) as found:
        yield found


def test_a_table_leaves_with_a_receipt_that_proves_it(served: Served, tmp_path: Path) -> None:
    file, head = tmp_path / "f.csv", tmp_path / "head"
    url = f"{served.base}/v1/rows/numbers.csv"
    subprocess.run(["curl", "-sS", "-D", head, "-o", file, url], check=True, timeout=60)
    headers = dict(
        line.split(": ", 1) for line in head.read_text().lower().splitlines() if ": " in line
    )
    data = file.read_bytes()
    receipt = served.get(f"/v1/exports/{headers['x-export-id']}/receipt")
    assert data.count(b"\n") == 100_001
    assert data.startswith(b"id,name\n1,n1\n")
    assert receipt["outcome"] == "complete"
    assert receipt["rows"] == 100_000
    assert receipt["bytes"] == len(data)
    assert receipt["sha256"] == hashlib.sha256(data).hexdigest()
