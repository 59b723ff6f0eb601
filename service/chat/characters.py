"""Text that arrives in pieces, made whole characters (pure)."""

from __future__ import annotations

LEADING = ("\ud800", "\udbff")  # the first half of a character beyond U+FFFF (Unicode, D71)


class Characters:
    """Joins the halves of characters that came in two pieces.

    JSON may spell a character as two escapes (RFC 8259, section 7), and a model's tokens may end
    between them. A half that stays alone becomes U+FFFD: it could neither be stored nor sent.
    """

    def __init__(self) -> None:
        self._half = ""

    def feed(self, piece: str) -> str:
        """The whole characters that there are by now; may be empty."""
        text = self._half + piece
        self._half = text[-1:] if LEADING[0] <= text[-1:] <= LEADING[1] else ""
        return _whole(text.removesuffix(self._half))

    def finish(self) -> str:
        """What is left."""
        return _whole(self._half)


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
