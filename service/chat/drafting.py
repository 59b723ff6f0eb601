"""What a model is told so that it can draft an export request, and its answer, read. Pure.

Whatever stands in comments, wishes and answers is data. Nothing here is trusted to keep a model
from writing what it should not: what it drafts is validated as if its reader had sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from json import JSONDecoder
from typing import Any

import orjson

from service.chat.grammar_brief import BRIEF
from service.column import Column
from service.dataset import Dataset
from service.errors import InvalidParameter

MOST_CATALOGUE = 60_000  # characters
MOST_COMMENT = 300  # characters of each
MOST_EXPLANATION = 2_000  # characters; the rest is cut off
MOST_MISSES = 20  # datasets that do not fit, until no more are tried
MOST_TRIES = 50  # places at which an object of JSON may begin
WORD = re.compile(r"[^\W_]+")
WEIGHTS = {"named": 100, "name": 8, "described": 4, "columns": 1}
DECODER = JSONDecoder()
ANSWER = "answer"  # the parameter of mistakes that are in no field of the request


@dataclass(frozen=True, slots=True)
class Reply:
    """``request`` is what the model drafted, not looked at yet; None where it says that it cannot."""

    request: dict[str, Any] | None
    explanation: str


def instructions(datasets: Sequence[Dataset], now: datetime) -> str:
    """The system message; ``datasets`` with the likeliest first, of which as many as fit are told."""
    today = f"Now it is {now:%A}, {now:%Y-%m-%d %H:%M} UTC."
    return "\n".join((BRIEF, today, "", "The datasets:", *catalogue(datasets)))


def ranked(datasets: Iterable[Dataset], wish: str, hint: str | None) -> list[Dataset]:
    """Those first that share most words with ``wish``, and before them the one called ``hint``."""
    words = _words(wish)

    def rank(dataset: Dataset) -> tuple[bool, int]:
        return dataset.name != hint, -_score(dataset, words)

    return sorted(datasets, key=rank)


def catalogue(datasets: Iterable[Dataset], most: int = MOST_CATALOGUE) -> Iterator[str]:
    """A line of JSON for each dataset that fits, with all its columns; ``most`` characters in all.

    Comments are left out where a dataset fits only without them. Of the first one, if even that
    is too long, as many columns are told as fit.
    """
    left, misses = most, 0
    for place, dataset in enumerate(datasets):
        spellings = _spellings(dataset, cut=place == 0)
        line = next((line for line in spellings if len(line) < left), None)
        if line is not None:
            left -= len(line) + 1
            yield line
        elif (misses := misses + 1) == MOST_MISSES:
            return


def read_reply(text: str) -> Reply:
    """The last object in ``text`` that has a request: alone, in a fence, or with prose around it.

    Raises InvalidParameter with what is wrong.
    """
    answers = [found for found in _objects(text) if "request" in found]
    if not answers:
        raise InvalidParameter(ANSWER, 'There is no whole JSON object with a member "request".')
    found = answers[-1]
    request, explanation = found.pop("request"), found.pop("explanation", None)
    if found:
        raise InvalidParameter(ANSWER, f"Beside request and explanation stand {_listed(found)}.")
    if not isinstance(explanation, str) or not explanation.strip():
        raise InvalidParameter(ANSWER, "explanation: this has to be a text.")
    if request is not None and not isinstance(request, dict):
        raise InvalidParameter(ANSWER, "request: this has to be an object, or null.")
    return Reply(request, shortened(explanation.strip(), MOST_EXPLANATION))


def wish_message(wish: str, hint: str | None) -> str:
    """The wish as JSON, so that it has an end."""
    return orjson.dumps({"wish": wish} | ({"dataset": hint} if hint else {})).decode()


def repair_message(mistake: str) -> str:
    """What is said to an answer with a mistake."""
    quoted = orjson.dumps(mistake).decode()
    return f"This cannot be used: {quoted}. Answer anew, with one whole JSON object and no more."


def stand_in(dataset: Dataset) -> str:
    """An answer where there is no model: some rows of ``dataset``, and that it is none."""
    said = "This is a stand-in, and no language model drafted it: a hundred rows of"
    drafted = {"dataset": dataset.name, "limit": 100}
    reply = {"request": drafted, "explanation": f"{said} {dataset.name}, whatever was wished for."}
    return orjson.dumps(reply, option=orjson.OPT_INDENT_2).decode()


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _listed(names: Iterable[str]) -> str:
    return shortened(", ".join(map(repr, names)), MOST_COMMENT)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    place = -1
    for _ in range(MOST_TRIES):
        place = text.find("{", place + 1)
        if place < 0:
            return
        try:
            _, end = DECODER.raw_decode(text, place)
            # The parser of every other body: it takes no NaN and no halves of characters.
            found: dict[str, Any] = orjson.loads(text[place:end])
        except ValueError:
            continue
        except RecursionError:
            return
        yield found
        place = end - 1


def _words(text: str) -> set[str]:
    """The words of ``text`` without a plural's s; those of an identifier are parted by ``_``."""
    return {word.removesuffix("s") for word in WORD.findall(text.lower()) if len(word) > 1}


def _score(dataset: Dataset, words: set[str]) -> int:
    name = _words(dataset.name)
    described = f"{dataset.title or ''} {dataset.description or ''}"
    columns = " ".join(f"{column.name} {column.description or ''}" for column in dataset.columns)
    return (
        WEIGHTS["named"] * (bool(name) and name <= words)
        + WEIGHTS["name"] * len(words & name)
        + WEIGHTS["described"] * len(words & _words(described))
        + WEIGHTS["columns"] * len(words & _words(columns))
    )


def _spellings(dataset: Dataset, *, cut: bool) -> Iterator[str]:
    yield _line(dataset, dataset.columns, comments=True)
    yield _line(dataset, dataset.columns, comments=False)
    most = len(dataset.columns) // 2 if cut else 0
    while most:
        yield _line(dataset, dataset.columns[:most], comments=False)
        most //= 2


def _line(dataset: Dataset, columns: Sequence[Column], *, comments: bool) -> str:
    told: dict[str, Any] = {"dataset": dataset.name}
    for name, text in (("title", dataset.title), ("description", dataset.description)):
        if text:
            told[name] = shortened(text, MOST_COMMENT)
    told["key"] = dataset.key
    told["columns"] = [_column(column, comments=comments) for column in columns]
    if len(columns) < len(dataset.columns):
        told["columns_left_out"] = len(dataset.columns) - len(columns)
    return orjson.dumps(told).decode()


def _column(column: Column, *, comments: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": column.name, "type": column.type, "nullable": column.nullable}
    if comments and column.description:
        told["comment"] = shortened(column.description, MOST_COMMENT)
    return told
