"""What may be quoted of a provider's message: one short sentence without secrets (pure)."""

from __future__ import annotations

import re

READ = 2_000  # characters: of a longer message the rest is not looked at
LONGEST = 200  # characters
MASK = "[masked]"
SHORT_SECRET = 6  # characters: to mask a shorter one would be to show where it is

SENTENCE_END = re.compile(r"(?<=[.!?])\s")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
NAMED = re.compile(
    r"""
        (?:\b|(?<=_))
        (
            (?:bearer|basic)\s
            | (?:key|token|secret|password|authorization)["']?\s*(?:[=:]|is\b|provided:)
        )
        \s*(?:bearer\s+|basic\s+)?\S+
    """,
    re.IGNORECASE | re.VERBOSE,
)
WORD = re.compile(r"[\w*.~+/=-]{6,}")
PREFIXED = re.compile(
    r"(?:sk|pk|rk|ak|org|proj|user|acct|gsk|xai|hf|pplx|ghp|nvapi)[-_]\S*[\d*]|AIza|AKIA|ya29|eyJ"
)
# Names of models and parameters have no such run.
RUN = re.compile(r"(?=[a-z]*\d)(?=\d*[a-z])[a-z\d]{16,}", re.IGNORECASE)
UUID = re.compile(r"[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}", re.IGNORECASE)


def quotation(message: str, secret: str | None = None) -> str:
    """The first sentence of ``message``, shortened, with all that looks like a key masked.

    Empty where there is nothing to quote: no message, or a page of HTML. ``secret`` is masked
    whatever it looks like.
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in message[:READ]).split())
    if text.startswith("<") or _tells(text, secret):
        return ""
    if secret:
        text = text.replace(secret, MASK)
    text = NAMED.sub(lambda found: f"{found[1].rstrip()} {MASK}", ADDRESS.sub(MASK, text))
    text = WORD.sub(lambda found: MASK if _is_secret(found[0]) else found[0], text)
    sentence = SENTENCE_END.split(text, maxsplit=1)[0]
    return sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST - 1].rstrip()}…"


def _tells(text: str, secret: str | None) -> bool:
    return bool(secret) and len(secret or "") < SHORT_SECRET and str(secret) in text


def _is_secret(word: str) -> bool:
    return "**" in word or any(
        (PREFIXED.match(word), RUN.search(word), UUID.search(word)),
    )
