"""How fast an export goes, and how long it still takes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

RATE_SECONDS = 3.0  # time constant of the rates
FINISH_SECONDS = 5.0  # time constant of the finish time
SHORTEST = 0.001  # seconds; what happens in less says nothing about a rate
LONGEST = 30 * 86_400.0  # seconds; an export that takes longer than this has stalled


@dataclass(frozen=True, slots=True)
class PaceFigures:
    """Rows and bytes per second, and the seconds that are left; None where nobody knows."""

    rows_per_s: float | None
    bytes_per_s: float | None
    eta_s: float | None


UNKNOWN = PaceFigures(None, None, None)


class Pace:
    """The smoothed rates and time left of one export, of which ``update`` hears now and then.

    ``now`` is in seconds of a monotonic clock; the export starts at the first one.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._done = (0, 0)
        self._rates = (_Rate(), _Rate())
        self._finish = _Finish()
        self._figures = UNKNOWN

    def update(self, now: float, rows: int, bytes_: int, total_rows: int | None) -> PaceFigures:
        """The figures at ``now``, when ``rows`` and ``bytes_`` are done since the start.

        The time left is None while no row has come, without ``total_rows``, when there are more
        rows than that, and in a stall that makes it longer than a month.
        """
        seconds = now - self._now
        if seconds >= SHORTEST:
            rates = self._advance(seconds, (rows, bytes_))
            left = None if total_rows is None else _seconds_left(total_rows - rows, rates[0])
            self._figures = PaceFigures(*rates, self._finish.advance(seconds, left))
            self._now = now
        return self._figures

    def _advance(self, seconds: float, done: tuple[int, int]) -> tuple[float, float]:
        steps = (max(new - old, 0) for new, old in zip(done, self._done, strict=True))
        self._done = done
        rows, bytes_ = (
            rate.advance(seconds, step) for rate, step in zip(self._rates, steps, strict=True)
        )
        return rows, bytes_


def _seconds_left(rows: int, rate: float) -> float | None:
    if rows < 0 or not rate:
        return None
    seconds = rows / rate
    return seconds if seconds <= LONGEST else None


class _Weight:
    """How much the newest value counts in an average that forgets in ``constant`` seconds.

    The first value counts wholly, and a value counts by its time, however often there is one.
    """

    def __init__(self, constant: float) -> None:
        self._constant = constant
        self._age = 0.0

    def after(self, seconds: float) -> float:
        self._age += seconds
        return math.expm1(-seconds / self._constant) / math.expm1(-self._age / self._constant)


class _Rate:
    """An amount per second."""

    def __init__(self) -> None:
        self._weight = _Weight(RATE_SECONDS)
        self._value = 0.0

    def advance(self, seconds: float, amount: int) -> float:
        self._value += self._weight.after(seconds) * (amount / seconds - self._value)
        return self._value


class _Finish:
    """The finish time, kept as the seconds up to it."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._weight = _Weight(FINISH_SECONDS)
        self._left = 0.0

    def advance(self, seconds: float, predicted: float | None) -> float | None:
        """The seconds left, ``seconds`` after the last call, now that ``predicted`` seem left."""
        if predicted is None:
            self._forget()
            return None
        weight = self._weight.after(seconds)
        left = max(self._left - seconds, 0.0)
        if predicted > left:
            self._left = left + weight * (predicted - left)
        else:
            # A stall multiplies the time left. By ratios it comes down again in seconds, by
            # differences it would in minutes.
            self._left = left ** (1 - weight) * predicted**weight
        return self._left
