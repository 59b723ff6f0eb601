"""A PostgreSQL of the benchmark's own with room for hundreds of exports, and what it is busy with."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from service.embedded import EmbeddedPostgres

CONNECTIONS = 300
STATEMENTS = re.compile(
    rb"duration: ([\d.]+) ms  (bind|execute) [^\n]*\n\s*WITH given AS MATERIALIZED"
)


class RoomyPostgres(EmbeddedPostgres):
    """As the service runs it, but for its number of connections."""

    def _start_options(self) -> tuple[str | Path, ...]:
        *others, options = super()._start_options()
        return (*others, f"{options} -c max_connections={CONNECTIONS}")


class Postmaster:
    """The processes of the server in ``folder``, and its log."""

    def __init__(self, folder: Path) -> None:
        pid = int((folder / "postgres" / "postmaster.pid").read_text().split("\n")[0])
        self._process = psutil.Process(pid)
        self._log = folder / "postgres.log"

    def seconds(self) -> float:
        """CPU time of all its processes so far, ended ones included."""
        times = self._process.cpu_times()
        ended = times.children_user + times.children_system
        living = (self._process, *self._process.children())
        return ended + sum(seconds_of(process.pid) for process in living)

    def said(self) -> int:
        """How long the log is by now."""
        return self._log.stat().st_size

    def beats(self, since: int) -> list[float]:
        """The milliseconds of each statement of progress that was logged behind ``since``.

        With the planning, which PostgreSQL counts as a part of "bind".
        """
        with self._log.open("rb") as file:
            file.seek(since)
            found = STATEMENTS.findall(file.read())
        beats, planning = [], 0.0
        for milliseconds, step in found:
            planning = planning + float(milliseconds) if step == b"bind" else planning
            if step == b"execute":
                beats.append(planning + float(milliseconds))
                planning = 0.0
        return beats


def seconds_of(pid: int) -> float:
    """The CPU time of a process so far; none once it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
