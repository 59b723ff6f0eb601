"""The body of ``POST /v1/exports``: which rows of which dataset, as which file."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from service.dataset import Dataset
from service.errors import InvalidParameter
from service.export.assembly import Asked
from service.export.encode import FORMATS
from service.grammar.cursor import Cursors
from service.grammar.query import OWN, parse_query
from service.preferences import Count
from service.representation import Representation, parse_representation

MAX_NAME = 255  # characters
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]*$")]
Words = Annotated[tuple[str, ...], Field(max_length=2_000)]


class ExportRequest(BaseModel):
    """What is asked for; the grammar of the values is that of ``GET /v1/rows``.

    ``where`` maps columns, and ``and``, ``or`` and their negations, to one condition or several.
    ``count`` asks for the rows to be counted beforehand, so that progress knows its end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: Name
    format: Literal["csv", "ndjson", "json"] = "csv"
    select: Annotated[Words | None, Field(strict=False)] = None
    where: dict[str, str | list[str]] = Field(default_factory=dict)
    order: Annotated[Words, Field(strict=False)] = ()
    limit: Annotated[int | None, Field(ge=0)] = None
    offset: Annotated[int | None, Field(ge=0)] = None
    after: str | None = None
    compression: Literal["none", "gzip", "zstd"] = "none"
    profile: Literal["machine", "excel"] = "machine"
    delimiter: str | None = None
    header: bool = True
    end: bool = False
    filename: Name | None = None
    count: Literal["exact"] | None = None
    fresh: bool = False

    def stored(self) -> dict[str, Any]:
        """Plain data that reads back as this request; ``fresh`` is of its asking alone."""
        return self.model_dump(mode="json", exclude={"fresh"})

    def fingerprint(self, owner: str) -> str:
        """The same for requests that mean the same file for the same owner."""
        file = {name: value for name, value in self.stored().items() if name != "count"}
        text = orjson.dumps([owner, file], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()


def understand(
    request: ExportRequest, dataset: Dataset, cursors: Cursors, chunk_size: int
) -> Asked:
    """``request`` read against ``dataset``; raises InvalidParameter as the query string does."""
    query = parse_query(dataset, parameters(request), cursors=cursors)
    count = Count(request.count) if request.count else None
    return Asked(dataset, query, representation_of(request, chunk_size), count)


def representation_of(request: ExportRequest, chunk_size: int) -> Representation:
    """As what the rows are written. Raises InvalidParameter."""
    chosen = FORMATS[request.format]
    return parse_representation(chosen, choices(request), chunk_size=chunk_size)


def choices(request: ExportRequest) -> list[tuple[str, str]]:
    """The parameters of its representation that are not at their defaults."""
    given: list[tuple[str, str]] = []
    if request.compression != "none":
        given.append(("compression", request.compression))
    if request.profile != "machine":
        given.append(("profile", request.profile))
    if request.delimiter is not None:
        given.append(("delimiter", request.delimiter))
    if not request.header:
        given.append(("header", "0"))
    if request.end:
        given.append(("end", "1"))
    return given


def parameters(request: ExportRequest) -> list[tuple[str, str]]:
    """Its rows and columns as the grammar says them. Raises InvalidParameter."""
    given: list[tuple[str, str]] = []
    if request.select is not None:
        given.append(("select", ",".join(request.select)))
    for name, conditions in request.where.items():
        if name in OWN:
            message = f'where: {name} is a parameter, too; say {{"and": "({name}.eq.…)"}}.'
            raise InvalidParameter(f"where.{name}", message)
        several = [conditions] if isinstance(conditions, str) else conditions
        if not several:
            raise InvalidParameter(f"where.{name}", f"where: {name} has no conditions.")
        given.extend((name, condition) for condition in several)
    if request.order:
        given.append(("order", ",".join(request.order)))
    for name in ("limit", "offset", "after"):
        value = getattr(request, name)
        if value is not None:
            given.append((name, str(value)))
    return given
