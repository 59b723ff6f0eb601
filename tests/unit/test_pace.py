"""The smoothed rates of an export, and its time left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.pace import LONGEST, UNKNOWN, Pace, PaceFigures

START = 1000.0  # seconds; a monotonic clock starts anywhere
BYTES_PER_ROW = 7


def paced(
    rate: Callable[[float], float], steps: Iterable[float], total: int | None
) -> Iterator[tuple[float, PaceFigures]]:
    """The figures after each step in seconds, with the time since the start."""
    pace, since, rows = Pace(START), 0.0, 0.0
    for step in steps:
        since += step
        rows += rate(since) * step
        whole = round(rows)
        yield since, pace.update(START + since, whole, whole * BYTES_PER_ROW, total)


def constant(_: float) -> float:
    return 1000.0


def test_the_first_figures_are_the_mean_since_the_start() -> None:
    figures = Pace(START).update(START + 4, 1000, 6000, 1500)
    assert figures == PaceFigures(rows_per_s=250.0, bytes_per_s=1500.0, eta_s=2.0)


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0, 10.0])
def test_a_constant_rate_has_an_exact_time_left(step: float) -> None:
    for since, figures in paced(constant, repeat(step, 10), 100_000):
        assert figures.rows_per_s == pytest.approx(1000)
        assert figures.bytes_per_s == pytest.approx(7000)
        assert figures.eta_s == pytest.approx(100 - since)


def test_a_rate_that_doubles_is_followed() -> None:
    shown = dict(paced(lambda since: 2000 if since > 10 else 1000, repeat(0.5, 60), 60_000))
    assert shown[10.0].rows_per_s == pytest.approx(1000)
    # A time constant of 3 s: the difference shrinks by e in it.
    assert shown[13.0].rows_per_s == pytest.approx(2000 - 1000 / math.e, rel=0.01)
    assert shown[25.0].rows_per_s == pytest.approx(2000, rel=0.01)
    assert shown[10.0].eta_s == pytest.approx(50)
    lasting = [figures.eta_s or 0.0 for since, figures in shown.items() if since >= 10]
    assert all(later < earlier - 0.5 for earlier, later in pairwise(lasting))
    assert shown[30.0].eta_s == pytest.approx(5, rel=0.1)


def stalled(since: float) -> float:
    return 0.0 if 20 < since <= 40 else 1000.0


def test_in_a_stall_the_rate_falls_and_the_time_left_grows_smoothly() -> None:
    shown = dict(paced(stalled, repeat(0.5, 160), 100_000))
    during = [figures for since, figures in shown.items() if 20 <= since <= 40]
    rates = [figures.rows_per_s or 0.0 for figures in during]
    lasting = [figures.eta_s or 0.0 for figures in during]
    assert rates[6] == pytest.approx(1000 / math.e, rel=0.01)
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert rates[-1] < 2
    assert all(earlier - 0.5 < later < earlier * 1.2 for earlier, later in pairwise(lasting))
    assert lasting[6] < lasting[0] * 1.5


def test_after_a_stall_the_time_left_is_soon_right_again() -> None:
    shown = dict(paced(stalled, repeat(0.5, 160), 100_000))
    assert shown[40.0].eta_s == pytest.approx(80_000 / 1.2, rel=0.8)
    assert shown[65.0].eta_s == pytest.approx(55, rel=0.1)


def test_a_long_stall_has_no_time_left_until_there_are_rows_again() -> None:
    shown = dict(paced(lambda since: 0 if 20 < since <= 4000 else 1000, repeat(1.0, 4030), 100_000))
    assert {figures.eta_s for since, figures in shown.items() if 80 < since <= 4000} == {None}
    assert (shown[4000.0].rows_per_s or 0.0) < 1e-100
    assert shown[4030.0].eta_s == pytest.approx(50, rel=0.2)


def wave(since: float) -> float:
    return 1000 + 300 * math.sin(since / 15)


@pytest.mark.parametrize("seed", range(5))
def test_irregular_updates_give_about_the_same(seed: int) -> None:
    dice = random.Random(seed)
    regular = dict(paced(wave, repeat(0.01, 6000), 200_000))
    [*_, (since, figures)] = paced(wave, (dice.uniform(0.05, 1) for _ in range(100)), 200_000)
    expected = min(regular.items(), key=lambda shown: abs(shown[0] - since))[1]
    assert figures.rows_per_s == pytest.approx(expected.rows_per_s, rel=0.02)
    assert figures.eta_s == pytest.approx(expected.eta_s, rel=0.04)


@pytest.mark.parametrize("seed", range(20))
def test_noise_moves_the_finish_time_little(seed: int) -> None:
    dice = random.Random(seed)
    shown = paced(lambda _: dice.uniform(500, 1500), repeat(0.5, 120), 100_000)
    lasting = [figures.eta_s or 0.0 for since, figures in shown if since > 5]
    for earlier, later in pairwise(lasting):
        assert abs(later - (earlier - 0.5)) < 0.06 * later


def test_no_time_has_passed() -> None:
    pace = Pace(START)
    assert pace.update(START, 5, 50, 100) is UNKNOWN
    # What came in no time counts in the next figures.
    assert pace.update(START + 2, 10, 100, 100) == PaceFigures(5.0, 50.0, 18.0)
    assert pace.update(START + 2, 20, 200, 100) == PaceFigures(5.0, 50.0, 18.0)


@pytest.mark.parametrize(
    ("rows", "total", "eta"),
    [
        (10, None, None),
        (0, 100, None),
        (0, 0, None),
        (10, 100, 9.0),
        (100, 100, 0.0),
        (101, 100, None),
        (1, round(LONGEST), LONGEST - 1),
        (1, round(LONGEST) + 2, None),
    ],
)
def test_where_there_is_a_time_left(rows: int, total: int | None, eta: float | None) -> None:
    assert Pace(START).update(START + 1, rows, 0, total).eta_s == eta


def test_the_last_row_ends_the_time_left() -> None:
    pace = Pace(START)
    pace.update(START + 1, 10, 100, 100)
    assert pace.update(START + 2, 100, 1000, 100).eta_s == 0


def test_a_finish_that_is_overdue_is_not_in_the_past() -> None:
    pace = Pace(START)
    pace.update(START + 1, 990, 0, 1000)
    eta = pace.update(START + 2, 991, 0, 1000).eta_s
    assert eta is not None
    assert 0 < eta < 0.02


def test_without_a_total_the_finish_is_forgotten() -> None:
    pace = Pace(START)
    pace.update(START + 1, 10, 0, 1010)
    pace.update(START + 2, 20, 0, None)
    assert pace.update(START + 3, 30, 0, 40).eta_s == pytest.approx(1)


def test_more_rows_than_an_estimate_and_then_a_better_one() -> None:
    pace = Pace(START)
    assert pace.update(START + 10, 100, 0, 50).eta_s is None
    assert pace.update(START + 20, 200, 0, 300).eta_s == pytest.approx(10)


AMOUNTS = st.integers(0, 2**62)
STEPS = st.lists(
    st.tuples(st.floats(0, 1e6), AMOUNTS, AMOUNTS, st.none() | st.integers(0, 2**63)), max_size=30
)


@given(STEPS, st.floats(0, 1e9))
def test_every_figure_is_a_number_from_zero(
    steps: list[tuple[float, int, int, int | None]], start: float
) -> None:
    pace = Pace(start)
    times = accumulate((step for step, *_ in steps), initial=start)
    next(times)
    for now, (_, rows, bytes_, total) in zip(times, steps, strict=True):
        figures = pace.update(now, rows, bytes_, total)
        for figure in (figures.rows_per_s, figures.bytes_per_s, figures.eta_s):
            assert figure is None or (math.isfinite(figure) and figure >= 0)
        assert figures.eta_s is None or figures.eta_s <= LONGEST


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 10**6)), min_size=1))
def test_a_rate_lies_within_those_of_its_parts(parts: list[tuple[float, int]]) -> None:
    pace, now, rows = Pace(0.0), 0.0, 0
    lowest, highest = math.inf, 0.0
    for seconds, amount in parts:
        rows += amount
        lowest = min(lowest, amount / seconds)
        highest = max(highest, amount / seconds)
        now += seconds
        rate = pace.update(now, rows, 0, None).rows_per_s
        assert rate is not None
        assert lowest * 0.999 <= rate <= highest * 1.001
