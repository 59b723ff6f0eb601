"""On which line of a TOML text each key stands, which tomllib does not tell. Pure."""

from __future__ import annotations

import re
import tomllib
from collections import deque
from collections.abc import Iterator

KeyPath = tuple[str, ...]

_TOKEN = re.compile(
    r"""(?sx)
    \"{3} (?: \\. | "{1,2}(?!") | [^"\\] )* "{3,5} | " (?: \\. | [^"\\\n] )* "
    | '{3} (?: '{1,2}(?!') | [^'] )* '{3,5} | ' [^'\n]* '
    | (?P<gap> \# [^\n]* | [^\S\n]+ )
    | [^\s\[\]{}=,."'\#]+
    | .
    """
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which each key, table and list element of a valid TOML text begins."""
    lines: dict[KeyPath, int] = {}
    tokens = deque(_tokens(text))
    table: KeyPath = ()
    while tokens[0][0]:
        if tokens[0][0] in ("\n", "]"):
            tokens.popleft()
        elif tokens[0][0] == "[":
            table = _key(tokens, (), lines)
        else:
            _pair(tokens, table, lines)
    return lines


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match["gap"] is None:
            yield match[0], line
        line += match[0].count("\n")
    yield "", line


def _key(tokens: deque[tuple[str, int]], table: KeyPath, lines: dict[KeyPath, int]) -> KeyPath:
    path = table
    while tokens[0][0] not in ("=", "]"):
        token, line = tokens.popleft()
        if token not in (".", "["):
            quoted = token[0] in "\"'"
            path = (*path, tomllib.loads(f"key = {token}")["key"] if quoted else token)
            lines.setdefault(path, line)
    return path


def _pair(tokens: deque[tuple[str, int]], table: KeyPath, lines: dict[KeyPath, int]) -> None:
    path = _key(tokens, table, lines)
    tokens.popleft()
    _value(tokens, path, lines)


def _value(tokens: deque[tuple[str, int]], path: KeyPath, lines: dict[KeyPath, int]) -> None:
    opening, _ = tokens.popleft()
    if opening not in ("[", "{"):
        while tokens[0][0] not in (",", "\n", "]", "}", ""):
            tokens.popleft()
        return
    index = 0
    while tokens[0][0] not in ("]", "}"):
        if tokens[0][0] in (",", "\n"):
            index += tokens.popleft()[0] == ","
        elif opening == "{":
            _pair(tokens, path, lines)
        else:
            lines[(*path, str(index))] = tokens[0][1]
            _value(tokens, (*path, str(index)), lines)
    tokens.popleft()
