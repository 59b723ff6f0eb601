"""Chunks of exactly one size, and no byte lost or moved."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.export.chunk import MOST_PIECES, Chunker
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


def ways(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, in every two pieces, and in all of one length, with empty ones."""
    yield [data]
    yield from ([data[:place], data[place:]] for place in range(len(data) + 1))
    for length in range(1, len(data)):
        cut = [data[place : place + length] for place in range(0, len(data), length)]
        yield cut
        yield [piece for whole in cut for piece in (b"", whole)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 16, 39, 40, 41, 80])
def test_chunks_are_the_same_whatever_the_pieces(size: int) -> None:
    data = BYTES[:40]
    expected = [data[place : place + size] for place in range(0, 40 - 40 % size, size)]
    for pieces in ways(data):
        chunker = Chunker(size)
        fed = [chunker.feed(piece) for piece in pieces]
        assert [chunk for chunks in fed for chunk in chunks] == expected
        whole = [length // size for length in accumulate(map(len, pieces))]
        assert list(accumulate(map(len, fed))) == whole  # each as soon as it is whole
        assert chunker.rest() == data[len(expected) * size :]


@pytest.mark.parametrize("length", [1, 3, 1000])
@pytest.mark.parametrize("pieces", [MOST_PIECES - 1, MOST_PIECES, 3 * MOST_PIECES + 1])
@pytest.mark.parametrize("begun", [b"", b"begun"], ids=["empty", "begun"])
def test_many_pieces_are_joined_in_their_order(begun: bytes, pieces: int, length: int) -> None:
    data = begun + b"".join(bytes([number % 251]) * length for number in range(pieces))
    size = len(data) - 1
    chunker = Chunker(size)
    made = chunker.feed(begun)
    for place in range(len(begun), len(data), length):
        made += chunker.feed(data[place : place + length])
    assert made == [data[:size]]
    assert chunker.rest() == data[size:]


@pytest.mark.parametrize("length", [2, 8])
def test_small_pieces_take_no_more_memory_than_their_bytes(length: int) -> None:
    size = 256 * 1024
    block = bytes(1000)
    tracemalloc.start()
    try:
        chunker = Chunker(size)
        for _ in range(250):
            for place in range(0, 1000, length):
                assert not chunker.feed(block[place : place + length])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert chunker.rest() == bytes(250 * 1000)
    assert peak < 1.5 * size


def test_one_block_is_cut_into_many_chunks_at_once() -> None:
    chunker = Chunker(4)
    assert chunker.feed(b"ab") == []
    chunks = chunker.feed(b"cdab" * 250_000)
    assert len(chunks) == 250_000
    assert set(chunks) == {b"abcd"}
    assert chunker.rest() == b"ab"


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
        chunks = chunker.feed(piece)
        assert {len(chunk) for chunk in chunks} <= {size}
        made += b"".join(chunks)
        if flush:
            made += chunker.rest()
            assert BYTES.startswith(made)
    assert made + chunker.rest() == BYTES


def test_a_block_of_exactly_one_chunk_is_not_copied() -> None:
    block = bytes(1000)
    assert Chunker(1000).feed(block)[0] is block
