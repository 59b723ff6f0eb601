"""Chunks of exactly one size, and no byte lost or moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.export.chunk import Chunker
from tests.splitting import CUTS, Cuts, split

BYTES = bytes(range(256)) + bytes(range(144))


@pytest.mark.parametrize(
    ("pieces", "chunks", "rest"),
    [
        ([], [], b""),
        ([b""], [], b""),
        ([b"ab"], [], b"ab"),
        ([b"abc"], [b"abc"], b""),
        ([b"abcd"], [b"abc"], b"d"),
        ([b"abcdefg"], [b"abc", b"def"], b"g"),
        ([b"a", b"b", b"c"], [b"abc"], b""),
        ([b"ab", b"", b"cd"], [b"abc"], b"d"),
        ([b"ab", b"cdef"], [b"abc", b"def"], b""),
        ([b"a", b"bcdefgh", b"i"], [b"abc", b"def", b"ghi"], b""),
    ],
)
def test_chunks(pieces: list[bytes], chunks: list[bytes], rest: bytes) -> None:
    chunker = Chunker(3)
    assert [chunk for piece in pieces for chunk in chunker.feed(piece)] == chunks
    assert chunker.rest() == rest
    assert chunker.rest() == b""


@given(st.integers(1, 450), CUTS, st.binary(max_size=50))
def test_chunks_have_their_size_and_together_are_the_bytes(
    size: int, cuts: Cuts, tail: bytes
) -> None:
    chunker = Chunker(size)
    data = BYTES + tail
    held = 0
    chunks: list[bytes] = []
    for piece, _ in split(data, cuts):
        completed = chunker.feed(piece)
        held += len(piece) - size * len(completed)
        assert 0 <= held < size
        chunks += completed
    assert {len(chunk) for chunk in chunks} <= {size}
    rest = chunker.rest()
    assert len(rest) == held
    assert b"".join(chunks) + rest == data


@given(st.integers(1, 450), CUTS)
def test_a_flush_of_the_rest_starts_a_new_chunk(size: int, cuts: Cuts) -> None:
    chunker = Chunker(size)
    made = b""
    for piece, flush in split(BYTES, cuts):
        made += b"".join(chunker.feed(piece))
        if flush:
            made += chunker.rest()
            assert BYTES.startswith(made)
    assert made + chunker.rest() == BYTES


def test_a_block_of_exactly_one_chunk_is_not_copied() -> None:
    block = bytes(1000)
    assert Chunker(1000).feed(block)[0] is block
