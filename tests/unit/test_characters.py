"""Halves of characters, joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.chat.characters import Characters


def _joined(pieces: list[str]) -> str:
    characters = Characters()
    found = [characters.feed(piece) for piece in pieces]
    for each in found:
        each.encode()  # whole at any time
    return "".join([*found, characters.finish()])


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([], ""),
        (["a", "", "b"], "ab"),
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "", "\ude00b"], "a😀b"),
        (["\ud83d\ude00"], "😀"),
        (["\ud83d"], "\ufffd"),
        (["\ud83d", "a"], "\ufffda"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
        (["\ude00", "\ud83d"], "\ufffd\ufffd"),
        (["\ufeff\ude00"], "\ufeff\ufffd"),
    ],
    ids=ascii,
)
def test_halves(pieces: list[str], text: str) -> None:
    assert _joined(pieces) == text


@given(st.text(), st.data())
def test_any_text_in_utf16_units(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-16-le")
    units = [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]
    ends = sorted(data.draw(st.lists(st.integers(0, len(units)), max_size=5)))
    starts = [0, *ends]
    pieces = ["".join(units[a:b]) for a, b in zip(starts, [*ends, len(units)], strict=True)]
    assert _joined(pieces) == text
