"""From what was asked to an export that can be opened: lane, survey and stages, joined."""

from __future__ import annotations

from dataclasses import dataclass

from service.database import utcnow
from service.databases.source import Source
from service.dataset import Dataset
from service.export.cells import TextOptions
from service.export.compress import COMPRESSIONS
from service.export.encode import FrameOptions
from service.export.lane import Lane, Unread
from service.export.lanes import open_lane
from service.export.pipeline import END_MEMBER, Description, Export, Patience, Stages
from service.export.survey import Survey
from service.grammar.cursor import Cursors
from service.grammar.query import RowsQuery
from service.grammar.scanner import mistake
from service.preferences import Count
from service.representation import EXCEL_ROWS, Representation
from service.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows, as which file, and whether they are to be counted. Checked as a whole.

    Raises InvalidParameter where query and representation do not go together.
    """

    dataset: Dataset
    query: RowsQuery
    representation: Representation
    count: Count | None = None

    def __post_init__(self) -> None:
        if self.representation.end and END_MEMBER in self.query.labels:
            raise mistake("end", f"a column is called {END_MEMBER} itself; rename it;", 1)
        limit = self.query.limit
        if self.representation.excel and limit is not None and limit > EXCEL_ROWS:
            raise mistake("limit", f"the profile excel holds {EXCEL_ROWS} rows at most;", 1)


def assemble(
    asked: Asked,
    source: Source,
    cursors: Cursors,
    limits: LimitSettings,
    export_id: str,
    *,
    unread: bool = False,
) -> Export:
    """The export, not started: nothing has been taken yet. ``unread`` leaves its rows out."""
    lane = lane_for(asked, source)
    representation = asked.representation
    description = Description(
        export_id, representation.format.name, representation.compression, utcnow()
    )
    return Export(
        description,
        Unread(lane) if unread else lane,
        _stages(asked),
        representation.chunk_size,
        _patience(limits),
        _survey(asked, cursors),
    )


def lane_for(asked: Asked, source: Source) -> Lane:
    """The lane that the rows take."""
    representation = asked.representation
    options = TextOptions(
        representation.format.rows, representation.delimiter, guarded=representation.excel
    )
    return open_lane(source, asked.dataset, asked.query, options)


def _stages(asked: Asked) -> Stages:
    representation = asked.representation
    options = FrameOptions(
        asked.query.labels,
        representation.delimiter,
        representation.header,
        representation.excel,
    )
    compression = COMPRESSIONS.get(representation.compression)
    encoding = COMPRESSIONS.get(representation.encoding or "")
    return Stages(
        frame=representation.format.frame(options),
        compression=compression.stage() if compression else None,
        encoding=encoding.stage() if encoding else None,
        trailer=representation.end,
    )


def _survey(asked: Asked, cursors: Cursors) -> Survey:
    bounded = asked.representation.excel and asked.query.limit is None
    return Survey(
        asked.dataset,
        asked.query,
        count=asked.count,
        most=EXCEL_ROWS if bounded else None,
        cursors=cursors,
    )


def _patience(limits: LimitSettings) -> Patience:
    return Patience(
        prime=limits.prime_timeout,
        max_duration=limits.max_duration,
        flush=limits.flush_interval,
        close=limits.close_timeout,
    )
