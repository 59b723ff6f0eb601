"""What a measure gives, and how it reads: Markdown for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.timing import Rounds


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what, how much, against what; ``least`` makes the target a floor."""

    what: str
    figure: str
    baseline: str = "-"
    value: float | None = None
    target: float | None = None
    least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.least else self.value <= self.target

    def cells(self) -> list[str]:
        sign = "≥" if self.least else "≤"
        target = "-" if self.target is None else f"{sign} {self.target:g}"
        met = {True: "yes", False: "no", None: "-"}[self.met]
        return [self.what, self.figure, self.baseline, target, met]


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one way is: ``times`` is how often the COPY lane sends a row meanwhile."""

    way: str
    format: str
    database: str
    rows: int
    rate: float
    times: float

    def order(self) -> tuple[str, str, float]:
        """The key to sort by: the fastest of a format and a database first."""
        return (self.format, self.database, self.times)

    def cells(self) -> list[str]:
        times = f"{self.times:.0f} x" if self.times >= 10 else f"{self.times:.2f} x"
        head = [self.way, self.format, self.database, f"{self.rows:,}"]
        return [*head, f"{self.rate:,.0f}", times]


Measured = Row | Speed

ROW_HEADER = ("what", "measured", "against", "target", "met")
SPEED_HEADER = ("way", "format", "database", "rows sent", "rows a second", "COPY lane is faster by")


def ratio_row(
    rounds: Rounds, what: str, ours: str, theirs: str, target: float | None = None
) -> Row:
    """``ours`` against ``theirs``, as the times of a row; small is good."""
    ratio = rounds.ratio(ours, theirs)
    figure = f"{rounds.seconds(ours):.2f} s, {ratio:.2f} x"
    return Row(what, figure, f"{theirs}: {rounds.seconds(theirs):.2f} s", ratio, target)


def rate_row(rounds: Rounds, what: str, ours: str, theirs: str, target: float | None = None) -> Row:
    """``ours`` against ``theirs``, as rows a second; great is good."""
    times = 1 / rounds.ratio(ours, theirs)
    figure = f"{rounds.rate(ours):,.0f} rows/s, {times:.1f} x"
    against = f"{theirs}: {rounds.rate(theirs):,.0f} rows/s"
    return Row(what, figure, against, times, target, least=True)


def speeds(
    rounds: Rounds, names: Iterable[str], copy: str, *, format_: str, database: str
) -> Iterator[Speed]:
    """The ways of ``names`` beside ``copy``, which is the COPY lane."""
    for name in names:
        rows, rate, times = rounds.ways[name].rows, rounds.rate(name), rounds.ratio(name, copy)
        yield Speed(name, format_, database, rows, rate, times)


def left_out(what: str, why: object) -> Row:
    """A line that says why there is no figure."""
    return Row(what, f"left out: {why}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_json(item: Measured) -> dict[str, Any]:
    """The members of a line, with the verdict."""
    verdict = {"met": item.met} if isinstance(item, Row) else {}
    return {**asdict(item), **verdict}
