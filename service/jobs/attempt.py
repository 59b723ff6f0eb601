"""One attempt at an export: the pipeline of direct streams, with an artifact for a sink."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from service.artifacts.folder import ArtifactFolder
from service.artifacts.writer import ArtifactWriter
from service.catalog import Catalog
from service.database import CHANGED, utcnow
from service.databases.source import Source
from service.dataset import Dataset
from service.errors import (
    AttemptLost,
    Cancelled,
    NotFound,
    RecordsUnavailable,
    SourceError,
    StorageFailed,
    TailraceError,
)
from service.export.assembly import assemble
from service.export.pipeline import Export
from service.export.receipt import Outcome
from service.grammar.cursor import Cursors
from service.jobs.direct import proof_of
from service.jobs.ledger import Ledger
from service.jobs.model import Record
from service.jobs.pace import Pace
from service.jobs.request import ExportRequest, understand
from service.jobs.transitions import (
    Transition,
    after_failure,
    cancelled,
    put_back,
    succeeded,
)
from service.observe import JobEnded, JobStarted, Observer, Unexpected
from service.settings import LimitSettings

OUTAGE_SECONDS = 60.0  # for which the end of an attempt is said again while nobody hears it
STOPPING_SECONDS = 5.0  # the same where the worker is about to stop
OUTAGE_PAUSE = 0.5  # seconds
CHUNK = 512 * 1024  # bytes written at once


class WorkerStopping(TailraceError):
    code = "worker_stopped"
    title = "The worker was stopped"


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt of a worker works with."""

    ledger: Ledger
    folder: ArtifactFolder
    sources: Mapping[str, Source]
    catalog: Catalog
    cursors: Cursors
    limits: LimitSettings
    observe: Observer


class Attempt:
    """Runs until the export is made, has failed, or ``stop`` says why it should not go on.

    ``renewed`` is the monotonic time at which the lease was last asked for, ``reported`` the rows
    and bytes that were written to the record at ``reported_at``.
    """

    def __init__(self, record: Record, tools: Tools) -> None:
        self.record = record
        self.began = self.renewed = time.monotonic()
        self.reported = (-1, -1)
        self.reported_at = 0.0
        self._tools = tools
        self._pace = Pace(time.monotonic())
        self._export: Export | None = None
        largest = tools.limits.max_artifact_size or None
        self._writer = ArtifactWriter(tools.folder, record.artifact or "", max_bytes=largest)
        self._reason: TailraceError | None = None
        self._patience = OUTAGE_SECONDS
        self._unheard = False  # the table may say how it ended, and nobody here knows
        self._stopped, self._stopped_at = time.monotonic(), utcnow()
        self._making = asyncio.create_task(self._make(), name=f"attempt {record.id}")

    def stop(self, reason: TailraceError) -> None:
        """End it for ``reason``; the first one counts, and none behind the last byte."""
        if isinstance(reason, WorkerStopping):
            self._patience = STOPPING_SECONDS
        if self._reason is None and not self._making.done():
            self._reason = reason
            self._stopped, self._stopped_at = time.monotonic(), utcnow()
            self._making.cancel()

    def current(self) -> Record:
        """The record with what has been made so far."""
        export, record = self._export, self.record
        if export is None:
            return record
        rows, written = export.stages.frame.rows, self._writer.bytes
        total = export.total
        known, kind = (total.rows, total.kind.value) if total else (None, "unknown")
        if kind != "exact":
            known, kind = _guess(known or record.total_rows, rows)
        figures = self._pace.update(time.monotonic(), rows, written, known)
        return replace(
            record,
            rows=rows,
            bytes=written,
            total_rows=known,
            total_kind=kind,
            snapshot_at=export.mark.at if export.mark else None,
            rows_per_s=figures.rows_per_s,
            bytes_per_s=figures.bytes_per_s,
            eta_s=figures.eta_s,
        )

    async def run(self) -> None:
        """Make the artifact and say how it ended, as far as this attempt still counts."""
        self._tools.observe(JobStarted(self.record.id, self.record.subject, self.record.attempt))
        await asyncio.wait({self._making})
        error = self._failure()
        made = await self._concluded(error)
        if error is not None or (made is None and not self._unheard):
            await self._writer.discard()
            with contextlib.suppress(StorageFailed):
                self._tools.folder.remove(self._writer.name)
        self._tell(made, error)

    async def _make(self) -> None:
        self._export = export = await self._assembled()
        try:
            await self._writer.open()
            await export.open()
            while (chunk := await export.read()) is not None:
                await self._writer.write(chunk)
        finally:
            await export.close()
        await self._writer.publish()

    async def _assembled(self) -> Export:
        tools, record = self._tools, self.record
        request = ExportRequest.model_validate(record.request)
        dataset = await self._dataset(request.dataset)
        asked = understand(request, dataset, tools.cursors, CHUNK)
        source = tools.sources[dataset.source]
        return assemble(asked, source, tools.cursors, tools.limits, record.id)

    async def _dataset(self, name: str) -> Dataset:
        """The dataset, looked for once more where this process does not know it yet."""
        catalog = self._tools.catalog
        try:
            return await catalog.dataset(name)
        except NotFound:
            catalog.forget(self.record.source)
            return await catalog.dataset(name)

    def _failure(self) -> TailraceError | None:
        if self._reason is not None:
            return self._reason
        error = self._making.exception()
        if error is None or isinstance(error, TailraceError):
            if isinstance(error, SourceError) and error.members.get("sqlstate") in CHANGED:
                self._tools.catalog.forget(self.record.source)
            return error
        told = "".join(traceback.format_exception(error))
        self._tools.observe(Unexpected(f"export {self.record.id}", told))
        return TailraceError(f"Unexpected {type(error).__name__}.")

    async def _concluded(self, error: TailraceError | None) -> Record | None:
        """The record as it ends here; None where this attempt does not count any more."""
        if isinstance(error, AttemptLost):
            return None
        transition = await self._transition(error)
        since = time.monotonic()
        while True:
            try:
                return await self._applied(transition)
            except RecordsUnavailable:
                self._unheard = True
                if time.monotonic() - since > self._patience:
                    return None
                await asyncio.sleep(OUTAGE_PAUSE)

    async def _applied(self, transition: Transition) -> Record | None:
        """The record behind the transition, also where it was written before and not answered."""
        ledger, record = self._tools.ledger, self.record
        made = await ledger.apply(record, transition)
        if made is None and self._unheard:
            row = await ledger.get(record.id)
            same = row and row.attempt == record.attempt and row.state is transition.target
            made = row if same else None
        self._unheard = False
        return made

    async def _transition(self, error: TailraceError | None) -> Transition:
        record, now = self.record, utcnow()
        if error is None:
            kept = timedelta(seconds=self._tools.limits.artifact_ttl)
            return succeeded(self._receipt(Outcome.COMPLETE) or {}, now, kept)
        if isinstance(error, Cancelled):
            proof = await self._proof()
            return cancelled(proof, self._receipt(Outcome.CANCELLED, proof), utcnow())
        if isinstance(error, WorkerStopping):
            return put_back(record, error, now, pause=0.0, free=True)
        return after_failure(record, error, self._receipt(Outcome.FAILED), now)

    async def _proof(self) -> dict[str, object]:
        """That the query is gone, and how long that took since somebody asked."""
        asked = self._stopped
        with contextlib.suppress(RecordsUnavailable):
            row = await self._tools.ledger.get(self.record.id)
            if row is not None and row.cancel_requested_at is not None:
                asked -= max(
                    self._stopped_at - row.cancel_requested_at, timedelta(0)
                ).total_seconds()
        if self._export is None:
            return {"backend_gone": True, "latency_ms": 0.0, "rows_written": 0}
        return await proof_of(self._export, asked)

    def _receipt(
        self, outcome: Outcome, cancel: dict[str, object] | None = None
    ) -> dict[str, object] | None:
        if self._export is None:
            return None
        return self._export.receipt(outcome, utcnow(), cancel).as_dict()

    def _tell(self, made: Record | None, error: TailraceError | None) -> None:
        record = made or self.current()
        started = self.record.started_at
        self._tools.observe(
            JobEnded(
                export_id=record.id,
                dataset=record.subject,
                attempt=self.record.attempt,
                state=made.state.value if made else "lost",
                rows=record.rows,
                bytes=record.bytes,
                seconds=(utcnow() - started).total_seconds() if started else 0.0,
                error=error.detail if error else None,
            )
        )


def _guess(total: int | None, rows: int) -> tuple[int | None, str]:
    """A guess that has turned out to be too small is none."""
    return (total, "estimate") if total is not None and rows <= total else (None, "unknown")
