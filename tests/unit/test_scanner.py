"""The cursor under the grammar: what it takes, and where it says that it stopped."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.grammar.scanner import Scanner

STOPS = ",:()"


def test_bare_words_end_at_a_stop_or_at_the_end() -> None:
    scanner = Scanner("select", "one,two")
    assert (scanner.word(","), scanner.peek(), scanner.at) == ("one", ",", 3)
    scanner.expect(",")
    assert (scanner.word(","), scanner.peek(), scanner.done) == ("two", "", True)
    assert scanner.word(",") == ""


@pytest.mark.parametrize(
    ("text", "word", "rest"),
    [
        ('""', "", ""),
        ('"a,b"', "a,b", ""),
        ('"a",b', "a", ",b"),
        (r'"a\"b"', 'a"b', ""),
        (r'"a\\"b', "a\\", "b"),
        (r'"\a\n"', "an", ""),
        ('"a""b"', "a", '"b"'),
        ('a"b', 'a"b', ""),
        (' "a"', ' "a"', ""),
        ('"line\nbreak"', "line\nbreak", ""),
    ],
)
def test_a_quoted_word_ends_at_its_quote(text: str, word: str, rest: str) -> None:
    scanner = Scanner("select", text)
    assert scanner.word(STOPS) == word
    assert scanner.text[scanner.at :] == rest


def test_take_steps_over_a_whole_literal_or_nothing() -> None:
    scanner = Scanner("x", "not.not")
    assert scanner.take("not.")
    assert not scanner.take("not.")
    assert scanner.at == 4


@pytest.mark.parametrize(
    ("text", "at", "message", "character"),
    [
        ("abc", 1, "x: expected ',', found 'b' at character 2.", 2),
        ("abc", 3, "x: expected ',', found the end at character 4.", 4),
        ("", 0, "x: expected ',', found the end at character 1.", 1),
    ],
)
def test_what_was_expected_is_told_with_its_place(
    text: str, at: int, message: str, character: int
) -> None:
    scanner = Scanner("x", text)
    scanner.at = at
    with pytest.raises(InvalidParameter) as caught:
        scanner.expect(",")
    assert caught.value.detail == message
    assert caught.value.members == {"parameter": "x", "character": character}
    assert scanner.at == at


@pytest.mark.parametrize("text", ['"', '"abc', '"abc\\"', '"abc\\'])
def test_a_quote_that_nothing_closes_is_a_mistake_at_the_end(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Scanner("select", text).word(STOPS)
    assert caught.value.detail.startswith('select: expected a closing "')
    assert caught.value.members["character"] == len(text) + 1


def quoted(word: str) -> str:
    """As the grammar's documentation tells callers to quote."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.text(), st.text(alphabet="abc,:").map(lambda text: "," + text))
def test_whatever_is_quoted_reads_back(word: str, rest: str) -> None:
    scanner = Scanner("select", quoted(word) + rest)
    assert scanner.word(STOPS) == word
    assert scanner.text[scanner.at :] == rest


@given(st.text(alphabet='a",:()\\ü\n', max_size=20))
def test_reading_always_goes_on_or_raises(text: str) -> None:
    scanner = Scanner("select", text)
    words: list[str] = []
    with suppress(InvalidParameter):
        while len(words) <= len(text) and scanner.peek():
            words.append(scanner.word(STOPS))
            scanner.take(scanner.peek())
    assert scanner.done
