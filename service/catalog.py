"""The datasets that this service offers: configured ones, and those of exposed schemas."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.column import Column
from service.databases.relation import Relation
from service.databases.source import Source
from service.dataset import ConfiguredQuery, Dataset
from service.errors import NotFound, SourceUnavailable, TailraceError
from service.observe import DatasetUnusable, Observer
from service.settings import DatasetSettings, SourceSettings


@dataclass(slots=True)
class Found:
    """What one look at a source gave; ``problems`` says why a dataset cannot be offered."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class Catalog:
    """Looks at each source once, at the first need, and again when asked to."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        exposed: Mapping[str, SourceSettings],
        configured: Mapping[str, DatasetSettings],
        observe: Observer,
    ) -> None:
        self._sources = sources
        self._exposed = exposed
        self._configured = configured
        self._observe = observe
        self._found: dict[str, Found] = {}
        self._looking = asyncio.Lock()

    async def datasets(self) -> dict[str, Dataset]:
        """Every dataset of the sources that answer, by name.

        Raises SourceUnavailable when none of them does.
        """
        away = await self._look_at_new()
        if away and not self._found:
            raise away[0]
        return self._known()

    async def dataset(self, name: str) -> Dataset:
        """The dataset ``name``; NotFound says why a configured one is not there.

        Raises SourceUnavailable when it may belong to a source that does not answer.
        """
        found, away = self._find(name), []
        if found is None:
            away = await self._look_at_new()
            found = self._find(name)
        if found is not None:
            return found
        if name in self.problems:
            why = self.problems[name]
            raise NotFound(f"The dataset {name} is configured but cannot be used: {why}")
        if away:
            raise away[0]
        raise NotFound(f"There is no dataset {name!r}.")

    async def refresh(self) -> None:
        """Look again at every source; until all have answered the old knowledge stays."""
        fresh = {name: await self._look(name) for name in self._sources}
        async with self._looking:
            self._found = fresh

    async def _look_at_new(self) -> list[SourceUnavailable]:
        """Look at the sources that are not known yet; gives the errors of those that are away."""
        away: list[SourceUnavailable] = []
        async with self._looking:
            for name in self._sources.keys() - self._found.keys():
                try:
                    self._found[name] = await self._look(name)
                except SourceUnavailable as error:
                    away.append(error)
        return away

    def _offers(self) -> list[dict[str, Dataset]]:
        """What each known source offers, in the order of the configuration."""
        return [self._found[name].datasets for name in self._sources if name in self._found]

    def _find(self, name: str) -> Dataset | None:
        return next((offer[name] for offer in self._offers() if name in offer), None)

    def _known(self) -> dict[str, Dataset]:
        merged = {key: item for offer in reversed(self._offers()) for key, item in offer.items()}
        return {key: merged[key] for key in sorted(merged)}

    def forget(self, source: str) -> None:
        """Look again at ``source`` before the next use: a query met a change in it."""
        self._found.pop(source, None)

    @property
    def problems(self) -> dict[str, str]:
        """Why configured datasets are not offered, by name."""
        return {name: why for found in self._found.values() for name, why in found.problems.items()}

    async def _look(self, name: str) -> Found:
        source, settings = self._sources[name], self._exposed[name]
        mine = {key: item for key, item in self._configured.items() if item.source == name}
        found = Found()
        with source.translated():
            async with source.engine.connect() as connection:
                there = await source.relations(connection, _schemas(source, settings, mine))
                for key, item in mine.items():
                    await self._configure(found, source, key, item, there, connection)
        # A table that has its own entry is not exposed beside it: that would undo its allow-list.
        own = {_split(source, item.table) for item in mine.values() if item.table is not None}
        exposed = [
            relation
            for relation in there
            if (relation.schema, relation.name) not in own
            and any(_matches(source, pattern, relation) for pattern in settings.expose)
        ]
        self._expose(found, source, exposed)
        return found

    async def _configure(
        self,
        found: Found,
        source: Source,
        name: str,
        settings: DatasetSettings,
        there: list[Relation],
        connection: AsyncConnection,
    ) -> None:
        try:
            if settings.sql is not None:
                dataset = await _from_sql(source, name, settings, connection)
            else:
                dataset = _from_table(source, name, settings, there)
        except SourceUnavailable:
            raise
        except TailraceError as error:
            found.problems[name] = error.detail
            self._observe(DatasetUnusable(name, error.detail))
        else:
            found.datasets[name] = dataset

    def _expose(self, found: Found, source: Source, exposed: Sequence[Relation]) -> None:
        """Name what is exposed by what is configured alone, never by which source answered first.

        A name that two schemas share is given to neither, and only the first source that
        exposes anything leaves its own name out.
        """
        exposing = [name for name, settings in self._exposed.items() if settings.expose]
        prefix = "" if source.name in exposing[:1] else f"{source.name}."
        shared = Counter(relation.name for relation in exposed)
        for relation in exposed:
            full = f"{relation.schema}.{relation.name}"
            short = [relation.name] if shared[relation.name] == 1 else []
            names = [prefix + name for name in (*short, full)]
            name = next((name for name in names if name not in self._configured), None)
            if name is None:
                self._observe(DatasetUnusable(full, "configured datasets have its names"))
            elif relation.columns:
                # Not validated: what is exposed may have names that nobody could configure.
                settings = DatasetSettings.model_construct(table=full)
                found.datasets[name] = _dataset(name, source, relation, settings)


def _schemas(
    source: Source, settings: SourceSettings, configured: Mapping[str, DatasetSettings]
) -> list[str]:
    tables = [item.table for item in configured.values() if item.table is not None]
    return sorted({_split(source, name)[0] for name in (*settings.expose, *tables)})


def _split(source: Source, name: str) -> tuple[str, str]:
    schema, dot, relation = name.partition(".")
    return (schema, relation) if dot else (source.default_schema, name)


def _matches(source: Source, pattern: str, relation: Relation) -> bool:
    schema, name = _split(source, pattern)
    return relation.schema == schema and name in ("*", relation.name)


def _from_table(
    source: Source, name: str, settings: DatasetSettings, there: list[Relation]
) -> Dataset:
    schema, table = _split(source, settings.table or "")
    for relation in there:
        if (relation.schema, relation.name) == (schema, table):
            return _dataset(name, source, relation, settings)
    raise NotFound(f"there is no relation {schema}.{table} that this role may read.")


async def _from_sql(
    source: Source, name: str, settings: DatasetSettings, connection: AsyncConnection
) -> Dataset:
    sql = (settings.sql or "").strip().rstrip(";")
    columns = await source.query_columns(connection, sql)
    allowed = _allowed(columns, settings)
    return Dataset(
        name=name,
        source=source.name,
        columns=allowed,
        relation=ConfiguredQuery(sql, *(sa.column(column.name) for column in columns)),
        dialect=source.dialect,
        key=_key(settings.key or (), allowed, required=True),
        title=settings.title,
        description=settings.description,
        computed=True,
    )


def _dataset(name: str, source: Source, relation: Relation, settings: DatasetSettings) -> Dataset:
    allowed = _allowed(relation.columns, settings)
    given = settings.key is not None
    return Dataset(
        name=name,
        source=source.name,
        columns=allowed,
        relation=sa.table(
            relation.name,
            *(sa.column(column.name) for column in relation.columns),
            schema=relation.schema,
        ),
        dialect=source.dialect,
        key=_key(settings.key or relation.key, allowed, required=given),
        title=settings.title,
        description=settings.description or relation.description,
        estimated_rows=relation.estimated_rows,
        computed=relation.computed,
    )


def _allowed(columns: tuple[Column, ...], settings: DatasetSettings) -> tuple[Column, ...]:
    there = [column.name for column in columns]
    if not there:
        raise NotFound("it has no columns.")
    names = there if "*" in settings.columns else settings.columns
    missing = [name for name in names if name not in there]
    if missing:
        raise NotFound(f"there is no column {', '.join(missing)}.")
    twice = sorted({name for name in names if there.count(name) > 1})
    if twice:
        raise NotFound(f"it has more than one column {', '.join(twice)}.")
    by_name = {column.name: column for column in columns}
    return tuple(by_name[name] for name in dict.fromkeys(names))


def _key(names: tuple[str, ...], allowed: tuple[Column, ...], *, required: bool) -> tuple[str, ...]:
    """``names`` if each may be read: a key that is partly hidden cannot order what is shown."""
    missing = [name for name in names if name not in {column.name for column in allowed}]
    if missing and required:
        raise NotFound(f"its key names {', '.join(missing)}, which is not among its columns.")
    return () if missing else names
