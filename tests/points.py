"""Points of an export at which a fault comes: chosen by how far it is, and not by the clock."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.clients import ask
from tests.jobs import Row, artifacts, ended, grown, row, sha256, start
from tests.serving import Served
from tests.session import Session

ROWS = 2_000  # of a kilobyte each, in about half a second
PACED = f"""
    select i as id,
           case when i % 50 = 0 then pg_sleep(0.01)::text else '' end
               || repeat(md5(i::text), 30) as word
    from (select generate_series(1, {ROWS}) as i) s
"""
CONFIG = f"[datasets.paced]\nsql = '''{PACED}'''\n"
REACHED_SECONDS = 60
KINDS = ("queued", "claimed", "bytes", "bytes", "bytes", "rows", "written", "renamed")
OFFSETS = (0, 0.002, 0.02)


@dataclass(frozen=True, slots=True)
class Plain:
    """What an unharmed export of the dataset comes to, and how many seconds it takes."""

    body: bytes
    seconds: float

    @property
    def digest(self) -> str:
        return sha256(self.body)


def plain_of(served: Served, database: Session) -> Plain:
    body = ask(served.base, "/v1/rows/paced.csv").body
    began = time.monotonic()
    ended(database, start(served, "paced"))
    return Plain(body, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Point:
    """How far an export is: a ``share`` of its bytes or rows, and ``offset`` seconds more."""

    kind: str = "bytes"
    share: float = 0.3
    offset: float = 0.0

    @classmethod
    def of(cls, chosen: random.Random, kinds: Sequence[str] = KINDS) -> Point:
        return cls(chosen.choice(kinds), chosen.random(), chosen.choice(OFFSETS))

    def wait(
        self, served: Served, database: Session, export: str, size: int, attempt: int = 1
    ) -> Row:
        """The row when that attempt is so far, or the export has ended: looked at without a pause.

        ``size`` is how many bytes the whole has.
        """
        until = time.monotonic() + REACHED_SECONDS
        while True:
            found = row(database, export)
            reached = found["attempt"] >= attempt and self._reached(served, found, size)
            if reached or found["state"] not in ("queued", "running"):
                time.sleep(self.offset)  # the point itself: nothing is waited for
                return found
            assert time.monotonic() < until, f"never reached: {self}"

    def _reached(self, served: Served, found: Row, size: int) -> bool:
        match self.kind:
            case "queued":
                return True
            case "claimed":
                return bool(found["state"] == "running")
            case "rows":
                return bool(found["rows"] > self.share * ROWS)
            case "bytes":
                return grown(served, found) > self.share * size
            case "written":
                return grown(served, found) >= size
            case _:
                return (artifacts(served) / str(found["artifact"])).exists()
