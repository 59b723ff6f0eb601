"""How much later a token comes through us than from the model's own server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.conversation import DIRECT, conversation
from bench.result import Measured, Row
from bench.service_under_test import Bench
from bench.timing import percentile, percentiles
from bench.tokens import Answer, asked

RATE = 100  # tokens a second
COUNT, ANSWERS = 25, 20  # tokens of an answer, answers of a run: five seconds
FORMATS = ("text/event-stream", "text/plain")


def tokens(bench: Bench, runs: int) -> Iterator[Measured]:
    """One answer after another, each on a new connection, through Tailrace and directly in turn.

    The first round warms up. The stand-in sends its first token at once.
    """
    found: dict[str, list[Answer]] = {way: [] for way in (*FORMATS, DIRECT)}
    with conversation(bench, bench.url, RATE) as talk:
        ways = {accept: talk.ours(COUNT, accept) for accept in FORMATS}
        for number in range(runs + 1):
            for way, question in (ways | {DIRECT: talk.direct(COUNT)}).items():
                answers = asked(question, times=ANSWERS)
                found[way] += answers if number else []
    theirs = found[DIRECT]
    for accept in FORMATS:
        ours = found[accept]
        yield later(f"token on its way, {accept}", delays(ours), delays(theirs))
        yield later(f"request to first token, {accept}", firsts(ours), firsts(theirs))


def delays(answers: Sequence[Answer]) -> list[float]:
    """Of all tokens, in seconds."""
    return [delay for answer in answers for delay in answer.delays]


def firsts(answers: Sequence[Answer]) -> list[float]:
    """From each request to its first token, in seconds."""
    return [answer.first for answer in answers]


def later(what: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    """By how much ``ours`` are later; the value is that of the middle ones, in milliseconds."""
    p50, p99 = ((percentile(ours, share) - percentile(theirs, share)) * 1000 for share in (50, 99))
    figure = f"{percentiles(ours)}; {p50:+.1f} and {p99:+.1f} ms"
    return Row(what, figure, f"{DIRECT}: {percentiles(theirs)}", p50)
