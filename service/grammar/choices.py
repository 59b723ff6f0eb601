"""Parameters that are given once and choose among a few: one word of several, or 0 and 1. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from service.grammar.scanner import mistake


def given_once(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The texts by their names. Raises InvalidParameter for a name that comes again."""
    given: dict[str, str] = {}
    for name, text in parameters:
        if name in given:
            raise mistake(name, "is given more than once, again", 1)
        given[name] = text
    return given


def one_of(given: Mapping[str, str], name: str, offered: tuple[str, ...]) -> str:
    """The word that is chosen, the first where none is. Raises InvalidParameter for others."""
    value = given.get(name, offered[0])
    if value not in offered:
        raise mistake(name, f"{value!r} is not one of {', '.join(offered)},", 1)
    return value


def switch(given: Mapping[str, str], name: str, default: str) -> bool:
    """Whether it is on, which is 1 and not 0. Raises InvalidParameter for anything else."""
    value = given.get(name, default)
    if value not in ("0", "1"):
        raise mistake(name, f"{value!r} is neither 0 nor 1,", 1)
    return value == "1"
