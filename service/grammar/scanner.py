"""Reading one parameter of the grammar from left to right, so that every mistake has a place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from service.errors import InvalidParameter

QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# One step inside an array or object literal: plain text, an escape, a quoted element, a brace.
BRACED = re.compile(r'[^{}"\\]++|\\.|"(?:[^"\\]++|\\.)*+"|[{}]', re.DOTALL)
# A value of a list with what ends it.
LISTED = re.compile(r'(?:"((?:[^"\\]++|\\.)*+)"|((?!")[^,)]*))([,)])', re.DOTALL)


class Word(NamedTuple):
    """A text that was read, and the place (from 0) at which it begins."""

    text: str
    at: int


class Scanner:
    """A place in the text of one parameter; ``parameter`` is named in every mistake.

    In a text that is a group, values end at a comma or parenthesis; else at the end.
    """

    def __init__(self, parameter: str, text: str, *, group: bool = False) -> None:
        self.parameter = parameter
        self.text = text
        self.group = group
        self.at = 0

    @property
    def done(self) -> bool:
        return self.at >= len(self.text)

    def peek(self) -> str:
        """The next character, or the empty string at the end."""
        return self.text[self.at : self.at + 1]

    def take(self, literal: str) -> bool:
        """Step over ``literal`` if it comes next."""
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def expect(self, *literals: str) -> str:
        """Step over the one of ``literals`` that comes next; a mistake if none does."""
        for literal in literals:
            if self.take(literal):
                return literal
        raise self._unexpected(*literals)

    def spaces(self) -> None:
        """Step over spaces, which mean nothing between the parts of a group."""
        while self.take(" "):
            pass

    def until(self, stops: str) -> str:
        """Everything up to one of the characters of ``stops``, or to the end."""
        found = _run(stops).match(self.text, self.at)
        word = found[0] if found else ""
        self.at += len(word)
        return word

    def value(self) -> str:
        """A value: all the rest, or inside a group quoted, in braces, or bare."""
        if not self.group:
            return self.until("")
        return self.braced() if self.peek() == "{" else self.word(",)")

    def word(self, stops: str) -> str:
        """A name or value: quoted with ``"`` (backslash escapes the next character), or bare."""
        return self._quoted() if self.peek() == '"' else self.until(stops)

    def listed(self) -> Iterator[Word]:
        """The words of ``a,"b,c")``, whose opening parenthesis is read already."""
        if self.take(")"):
            return
        end = ","
        while end == ",":
            at = self.at
            found = LISTED.match(self.text, at)
            if found is None:
                self.word(",)")  # which a missing quote ends
                raise self._unexpected(",", ")")
            quoted, bare, end = found.groups()
            self.at = found.end()
            yield Word(bare if quoted is None else ESCAPE.sub(r"\1", quoted), at)

    def braced(self) -> str:
        """``{…}`` as it stands: braces nest, and those of quoted elements do not count."""
        start, depth = self.at, 0
        while found := BRACED.match(self.text, self.at):
            self.at = found.end()
            depth += {"{": 1, "}": -1}.get(found[0], 0)
            if depth == 0:
                return self.text[start : self.at]
        self.at = len(self.text)
        raise self.mistake("expected a closing }")

    def mistake(
        self,
        message: str,
        *,
        at: int | None = None,
        kind: type[InvalidParameter] = InvalidParameter,
        **members: Any,
    ) -> InvalidParameter:
        """The error to raise, with the character (from 1) at which it went wrong."""
        character = (self.at if at is None else at) + 1
        return mistake(self.parameter, message, character, kind=kind, **members)

    def _unexpected(self, *literals: str) -> InvalidParameter:
        found = repr(self.peek()) if not self.done else "the end"
        return self.mistake(f"expected {' or '.join(map(repr, literals))}, found {found}")

    def _quoted(self) -> str:
        found = QUOTED.match(self.text, self.at)
        if found is None:
            self.at = len(self.text)
            raise self.mistake('expected a closing "')
        self.at = found.end()
        return ESCAPE.sub(r"\1", found[1])


def mistake(
    parameter: str,
    message: str,
    character: int,
    *,
    kind: type[InvalidParameter] = InvalidParameter,
    **members: Any,
) -> InvalidParameter:
    """A mistake at ``character`` (from 1) of the decoded text of ``parameter``."""
    detail = f"{parameter}: {message} at character {character}."
    return kind(parameter, detail, character=character, **members)


@lru_cache(maxsize=16)
def _run(stops: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(stops)}]*" if stops else ".*", re.DOTALL)
