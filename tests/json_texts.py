"""JSON as people write it: spaces anywhere, repeated keys, numbers of any size."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

BLANK = st.sampled_from(["", "", " ", "\n", "\r\n\t"])
NUMBERS = st.integers().map(str) | st.sampled_from(
    ["-0", "1.50", "1e400", "-1E-7", "0.1e+1", "1234567890" * 20]
)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """A JSON text that PostgreSQL's functions read: no escaped NUL, no lone surrogate."""
    inner = st.recursive(_scalars(), _holders, max_leaves=5)
    return draw(BLANK) + draw(inner) + draw(BLANK)


def _scalars() -> SearchStrategy[str]:
    return NUMBERS | _strings() | st.sampled_from(["null", "true", "false"])


def _strings() -> SearchStrategy[str]:
    short = st.text(CHARACTERS, max_size=6)
    escaped = st.builds(json.dumps, short, ensure_ascii=st.booleans())
    return escaped | st.sampled_from([r'"\/\u0041\u00e9"', '"\x7f\u2028"', r'"\ud83d\ude00"'])


def _holders(inner: SearchStrategy[str]) -> SearchStrategy[str]:
    members = st.tuples(_strings() | st.just('"a"'), BLANK, BLANK, inner, BLANK)
    objects = st.lists(members.map(lambda parts: "{}{}:{}{}{}".format(*parts)), max_size=3)
    arrays = st.lists(st.builds(str.__add__, inner, BLANK), max_size=3)
    return arrays.map(lambda cells: f"[{','.join(cells)}]") | st.builds(
        lambda blank, cells: f"{{{blank}{','.join(cells)}}}", BLANK, objects
    )
