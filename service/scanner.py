"""Reading one parameter of the grammar, character by character, so that mistakes have a place."""

from __future__ import annotations

from service.errors import InvalidParameter


class Scanner:
    """A cursor over the text of one parameter; ``parameter`` is named in every mistake."""

    def __init__(self, parameter: str, text: str) -> None:
        self.parameter = parameter
        self.text = text
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

    def expect(self, literal: str) -> None:
        if not self.take(literal):
            found = repr(self.peek()) if not self.done else "the end"
            raise self.mistake(f"expected {literal!r}, found {found}")

    def until(self, stops: str) -> str:
        """Everything up to one of the characters of ``stops``, or to the end."""
        start = self.at
        while not self.done and self.text[self.at] not in stops:
            self.at += 1
        return self.text[start : self.at]

    def word(self, stops: str) -> str:
        """A name or value: quoted with ``"`` (backslash escapes the next character), or bare."""
        return self._quoted() if self.peek() == '"' else self.until(stops)

    def mistake(self, message: str) -> InvalidParameter:
        """The error to raise, with the character (from 1) at which it went wrong."""
        character = self.at + 1
        return InvalidParameter(
            self.parameter,
            f"{self.parameter}: {message} at character {character}.",
            character=character,
        )

    def _quoted(self) -> str:
        self.expect('"')
        letters: list[str] = []
        while not self.done:
            letter = self.text[self.at]
            self.at += 1
            if letter == '"':
                return "".join(letters)
            if letter == "\\" and not self.done:
                letter = self.text[self.at]
                self.at += 1
            letters.append(letter)
        raise self.mistake('expected a closing "')
