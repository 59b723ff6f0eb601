"""Hundreds of answers at once in one process: how late their tokens come, and what they cost."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.conversation import DIRECT, Conversation, conversation
from bench.environment import Unavailable
from bench.measures.tokens import delays, firsts, later
from bench.memory import rss_growth
from bench.result import Measured, Row, left_out
from bench.roomy import Postmaster, seconds_of
from bench.service_under_test import Bench
from bench.subscribers import descriptors
from bench.tables import own_tables
from bench.timing import SLOW_RUNS
from bench.tokens import SECOND, Answer, Question, asked
from service.embedded import EmbeddedPostgres
from tests.postgres import fetch

GENERATIONS, FEW = 500, 50
RATE = 20  # tokens a second of each
WITHIN = 2.0  # seconds in which they begin, so that not all tokens are due at the same moment
COUNT = 140  # tokens of each: seven seconds, five of them with all the others
CONNECTIONS = 2  # of a generation, in the process in the middle

KIBIBYTE = 1 / 1024  # MiB
# A backend tells of its transactions once a second, or ten seconds after it has fallen silent
# (src/backend/utils/activity/pgstat.c).
TOLD_SECONDS = 11
WORK = """
    SELECT xact_commit, tup_inserted + tup_updated FROM pg_stat_database
    WHERE datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Passed:
    """A run: the CPU seconds of the process, and the KiB by which it grew for each answer.

    Where tokens come faster than the process takes them, they wait, and the longer it lasts the
    longer: delays are then those of this length, and ``rate`` is what the process can do.
    """

    answers: list[Answer]
    cpu: float
    memory: float

    @property
    def share(self) -> float:
        """Of a core."""
        return self.cpu / self.seconds

    @property
    def seconds(self) -> float:
        """From the first request to the last token."""
        asked_first = min(answer.asked for answer in self.answers)
        return (max(answer.came[-1] for answer in self.answers) - asked_first) / SECOND

    @property
    def each(self) -> float:
        """CPU of a token, in microseconds."""
        return self.cpu / sum(len(answer.came) for answer in self.answers) * 1e6

    @property
    def rate(self) -> float:
        """Tokens a second while all answers have been asked for and none has ended."""
        begun = max(answer.asked for answer in self.answers)
        over = min(answer.came[-1] for answer in self.answers)
        assert begun < over, "the last answer was asked for when the first one had ended"
        came = (moment for answer in self.answers for moment in answer.came)
        return sum(begun <= moment < over for moment in came) * SECOND / (over - begun)


@dataclass(frozen=True, slots=True)
class Written:
    """What the database did in a second: transactions, rows, seconds of CPU."""

    transactions: float
    rows: float
    share: float


class Records:
    """The database in which the answers are kept; nothing else is in it."""

    def __init__(self, own: EmbeddedPostgres, postmaster: Postmaster) -> None:
        self._url = own.url
        self._postmaster = postmaster
        self.idle: list[Written] = []
        self.busy: list[Written] = []

    def watch(self, crowd: Callable[[], Passed]) -> Passed:
        """Run ``crowd``; what goes on without it is measured before, and taken off."""
        time.sleep(TOLD_SECONDS)
        first = self._work()
        time.sleep(TOLD_SECONDS)
        second = self._work()
        passed = crowd()
        time.sleep(TOLD_SECONDS)
        third = self._work()
        idle = [now - before for before, now in zip(first, second, strict=True)]
        work = [now - before for before, now in zip(second, third, strict=True)]
        self.idle.append(Written(*(each / TOLD_SECONDS for each in idle)))
        added = (all_ - each for all_, each in zip(work, idle, strict=True))
        self.busy.append(Written(*(each / passed.seconds for each in added)))
        return passed

    def _work(self) -> tuple[float, ...]:
        return (*fetch(self._url, WORK)[0], self._postmaster.seconds())


def tokens_crowd(bench: Bench, runs: int) -> Iterator[Measured]:
    """Through one Tailrace with nothing behind it but the stand-in, and directly, in turn."""
    folder = bench.folder / "records"
    crowds = (Crowd(FEW), Crowd(GENERATIONS))
    try:
        with descriptors(CONNECTIONS * GENERATIONS), EmbeddedPostgres(folder) as own:
            asyncio.run(own_tables(own.url))
            records = Records(own, Postmaster(folder))
            for _ in range(min(runs, SLOW_RUNS)):
                for crowd in crowds:
                    with conversation(bench, own.url, RATE) as talk:
                        crowd.run(talk, records)
    except Unavailable as why:
        yield left_out(f"{GENERATIONS} answers at once", why)
        return
    for crowd in crowds:
        yield from _late(crowd)
        yield from _cost(crowd)
    yield _written(crowds[-1].what, records)


class Crowd:
    """So many answers at once, ours and directly."""

    def __init__(self, answers: int) -> None:
        self.what = f"{answers} answers at once, {RATE} tokens a second each"
        self.ours: list[Passed] = []
        self.theirs: list[Passed] = []
        self._answers = answers

    def run(self, talk: Conversation, records: Records) -> None:
        """The large one is watched in the database, which takes half a minute more."""

        def ours() -> Passed:
            return self._passed(talk.ours(COUNT), talk.pid)

        watched = self._answers == GENERATIONS
        self.ours.append(records.watch(ours) if watched else ours())
        self.theirs.append(self._passed(talk.direct(COUNT), talk.model.pid))

    def _passed(self, question: Question, pid: int) -> Passed:
        found: list[Answer] = []

        def ask() -> float:
            found.extend(asked(question, at_once=self._answers, within=WITHIN))
            return 0.0

        before = seconds_of(pid)
        grown = rss_growth(pid, ask)
        return Passed(found, seconds_of(pid) - before, grown / KIBIBYTE / self._answers)


def _late(crowd: Crowd) -> Iterator[Row]:
    ours, theirs = (
        [answer for passed in each for answer in passed.answers]
        for each in (crowd.ours, crowd.theirs)
    )
    yield later(f"{crowd.what}: token on its way", delays(ours), delays(theirs))
    yield later(f"{crowd.what}: request to first token", firsts(ours), firsts(theirs))


def _cost(crowd: Crowd) -> Iterator[Row]:
    for what, name, told in (
        ("tokens a second", "rate", "{:,.0f}"),
        ("CPU of the process", "share", "{:.0%} of a core"),
        ("CPU of a token", "each", "{:.0f} µs"),
        ("memory each", "memory", "{:.1f} KiB"),
    ):
        value, other = (
            statistics.median(getattr(passed, name) for passed in each)
            for each in (crowd.ours, crowd.theirs)
        )
        figure, baseline = told.format(value), f"{DIRECT}: {told.format(other)}"
        yield Row(f"{crowd.what}: {what}", figure, baseline, value)


def _written(what: str, records: Records) -> Row:
    value = statistics.median(written.transactions for written in records.busy)
    figure, idle = _told(records.busy), _told(records.idle)
    return Row(f"{what}: own database", figure, f"nothing else: {idle}", value)


def _told(written: Sequence[Written]) -> str:
    transactions, rows, share = (
        statistics.median([getattr(each, name) for each in written])
        for name in ("transactions", "rows", "share")
    )
    return f"{transactions:.1f} transactions/s, {rows:,.0f} rows/s, {share:.0%} of a core"
