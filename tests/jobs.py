"""Export jobs from outside: asked for over HTTP, looked at in the tables and in the folder."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.clients import TIMEOUT, Answer
from tests.serving import Served
from tests.session import Session
from tests.waiting import wait_until

LEASE = 1.0  # seconds
# Patient with queries that wait at a gate, and with attempts that a busy machine makes lose a
# lease as short as this one.
SETTINGS: dict[str, Any] = {
    "limits__lease": f"{LEASE}s",
    "limits__prime_timeout": "60s",
    "limits__drain_timeout": "1s",
    "limits__max_attempts": "50",
}
END_SECONDS = 60
ROW = "SELECT to_jsonb(e)::text FROM tailrace.exports AS e WHERE e.id = $1::text::uuid"
LOG = """
    SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e.seq), '[]')::text
    FROM tailrace.export_events AS e WHERE e.export_id = $1::text::uuid
"""
KEPT = "SELECT coalesce(jsonb_agg(artifact), '[]')::text FROM tailrace.exports WHERE artifact <> ''"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Logged:
    """One event as the log has it."""

    seq: int
    name: str
    data: Any


def post(
    base: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """A POST of ``body`` as JSON, and its answer whatever its status."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=TIMEOUT)
    sent = {"Content-Type": "application/json", **(headers or {})}
    with closing(connection):
        connection.request("POST", path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def start(served: Served, dataset: str, **wanted: object) -> str:
    """Ask for an export that joins no other; gives its id."""
    answer = post(served.base, "/v1/exports", {"dataset": dataset, "fresh": True, **wanted})
    assert answer.status == 202, answer.body
    return str(answer.json()["id"])


def content(served: Served, export: str) -> str:
    """The address of its bytes, whichever attempt counts."""
    return f"{served.base}/v1/exports/{export}/content"


def row(database: Session, export: str) -> Row:
    """The export's row as it stands in the table."""
    found: Row = json.loads(str(database.value(ROW, export)))
    return found


def log_of(database: Session, export: str) -> list[Logged]:
    """Its events in the order of their numbers."""
    events = json.loads(str(database.value(LOG, export)))
    return [Logged(event["seq"], event["name"], event["data"]) for event in events]


def ended(database: Session, export: str, within: float = END_SECONDS) -> Row:
    """The export's row once it has ended."""
    return awaited(database, export, "succeeded", "failed", "cancelled", within=within)


def awaited(database: Session, export: str, *states: str, within: float = END_SECONDS) -> Row:
    """The export's row once it is in one of ``states``."""
    found: Row = {}

    def there() -> bool:
        found.update(row(database, export))
        return found["state"] in states

    wait_until(there, within=within, what=f"the export is {' or '.join(states)}")
    return found


def lost(found: Row) -> list[str]:
    """The codes of the attempts that came to nothing, each of which has its number and a reason."""
    attempts = found["attempts"] or []
    assert [attempt["attempt"] for attempt in attempts] == list(range(1, found["attempt"]))
    assert all(attempt["reason"] and attempt["worker"] for attempt in attempts)
    return [attempt["code"] for attempt in attempts]


def pid_of(found: Row) -> int:
    """The process of the worker that runs the attempt, or has run it."""
    return int(found["worker"].split(":")[-2])


def artifacts(served: Served) -> Path:
    """The folder of artifacts."""
    return served.log.parent / "data" / "artifacts"


def files(served: Served) -> set[str]:
    """What is in the folder of artifacts."""
    folder = artifacts(served)
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def growing(served: Served, found: Row) -> Path:
    """The file of an attempt that runs."""
    return artifacts(served) / f"{found['artifact']}.part"


def grown(served: Served, found: Row) -> int:
    """How many bytes the file of the attempt has, be it finished or not; 0 without one."""
    for path in (growing(served, found), artifacts(served) / str(found["artifact"])):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
    return 0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_whole(served: Served, found: Row, digest: str) -> None:
    """It has succeeded, and its file is what its receipt says and the database gave."""
    assert found["state"] == "succeeded", found["error"]
    data = (artifacts(served) / found["artifact"]).read_bytes()
    receipt = found["receipt"]
    assert (receipt["outcome"], receipt["bytes"]) == ("complete", len(data))
    assert sha256(data) == receipt["sha256"] == digest


def assert_gapless(log: Sequence[Logged], *ends: str, first: int = 1) -> None:
    """Numbered from ``first`` without a gap; it ends with ``ends``, and has no others of those."""
    assert [event.seq for event in log] == list(range(first, first + len(log)))
    assert [event.name for event in log if event.name not in ("state", "progress")] == list(ends)
    assert tuple(event.name for event in log[len(log) - len(ends) :]) == ends
    assert log[0].name == "state"


def assert_nothing_left(served: Served, database: Session) -> None:
    """The folder holds the artifacts that some export has, and soon nothing else."""

    def none() -> bool:
        kept = set(json.loads(str(database.value(KEPT))))
        return files(served) <= kept | {f"{name}.part" for name in kept}

    wait_until(none, within=10, what=f"no other files: {files(served)}")
