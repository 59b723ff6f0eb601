"""What may be quoted of a provider: a sentence, and no secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.chat.quotation import LONGEST, MASK, quotation

PROJECT_KEY = "sk-proj-4f9Zk_Ab3-Cd5"  # the shape of one

QUOTED = [
    ("", ""),
    ("Model not found.", "Model not found."),
    ("First. Second.", "First."),
    ("Version 1.5 is\n\told! More", "Version 1.5 is old!"),
    ("a\x00b\x1b[31m\u202e", "a b [31m"),
    ("<html><title>502</title></html>", ""),
    ("model 'claude-3-5-sonnet-20241022' is gone", "model 'claude-3-5-sonnet-20241022' is gone"),
    ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ("max_tokens: 99999 > 8192, which is too many", "max_tokens: 99999 > 8192, which is too many"),
    ("'messages.0.content' is a user-defined key", "'messages.0.content' is a user-defined key"),
    (f"Wrong key {PROJECT_KEY} here", f"Wrong key {MASK} here"),
    ("Incorrect API key provided: sk-ab**********yz.", f"Incorrect API key provided: {MASK}"),
    ("Bad Authorization: Bearer abc", f"Bad Authorization: {MASK}"),
    ("Bad bearer abc here", f"Bad bearer {MASK} here"),
    ("api_key=hunter2 is wrong", f"api_key= {MASK} is wrong"),
    ('{"token": "hunter2"}', f'{{"token": {MASK}'),
    ("in organization org-AbC123dEf on tokens", f"in organization {MASK} on tokens"),
    ("id 0f8fad5b-d9cb-469f-a165-70867728950e", f"id {MASK}"),
    ("hash 9f86d081884c7d659a2feaa0c55ad015", f"hash {MASK}"),
    ("token eyJhbGciOi.eyJzdWIi.c2ln", f"token {MASK}"),
    ("see https://user:pass@host/path?key=1 for more", f"see {MASK} for more"),
]


@pytest.mark.parametrize(("message", "quoted"), QUOTED, ids=range(len(QUOTED)))
def test_quotations(message: str, quoted: str) -> None:
    assert quotation(message) == quoted


@given(st.text(), st.text())
def test_the_configured_key_is_never_told(before: str, after: str) -> None:
    for key in ("plain words as key", PROJECT_KEY, "abc"):
        told = quotation(f"{before}{key}{after}", key)
        assert key not in told
        assert len(told) <= LONGEST


def test_a_long_sentence_is_cut() -> None:
    told = quotation("word " * 1_000)
    assert len(told) <= LONGEST
    assert told.startswith("word word ")
    assert told.endswith("…")
