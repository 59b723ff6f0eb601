"""The bytes that the test upstream serves: a pure function of where they stand."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from hashlib import shake_128

from isal import isal_zlib

BLOCK = 65_536
ZEROS = 16 * 2**20  # bytes that one block of the bomb expands to
GIB = 2**30
GZIP_HEAD = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no name, no time (RFC 1952)
MALFORMED = (b'{"i":1,"word":', b"lines", b'{"i":"\xff\xfe"}', b'{"i":1}{"i":2}', b"{'i':1}")


def content(size: int, seed: int = 0) -> bytes:
    """The whole of a file of ``size`` bytes; another ``seed`` gives other bytes."""
    return piece(0, size - 1, seed)


def piece(first: int, last: int, seed: int = 0) -> bytes:
    """The bytes at ``first`` to ``last``, both included, of any file that is long enough."""
    numbers = range(first // BLOCK, last // BLOCK + 1)
    start = first % BLOCK
    joined = b"".join(_block(seed, number) for number in numbers)
    return joined[start : start + last - first + 1]


@lru_cache(maxsize=256)
def _block(seed: int, number: int) -> bytes:
    return shake_128(f"{seed}:{number}".encode()).digest(BLOCK)


@lru_cache(maxsize=4)
def encoded(size: int, seed: int = 0) -> bytes:
    """``content(size, seed)`` as one gzip member, the same bytes each time."""
    return gzip.compress(content(size, seed), compresslevel=1, mtime=0)


@lru_cache(maxsize=2)
def bomb(gib: int = 4) -> bytes:
    """One gzip member of about a thousandth of the ``gib`` GiB of zeros that it expands to."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(bytes(ZEROS)) + deflate.flush(zlib.Z_FULL_FLUSH)
    count, check = gib * GIB // ZEROS, 0
    for _ in range(count):
        check = isal_zlib.crc32_combine(check, _zeros_check(), ZEROS)
    trailer = struct.pack("<II", check, gib * GIB % 2**32)
    return GZIP_HEAD + block * count + deflate.flush() + trailer


@lru_cache(maxsize=1)
def _zeros_check() -> int:
    return zlib.crc32(bytes(ZEROS))


def lines(
    count: int, *, malformed: Sequence[int] = (), overlong: Sequence[int] = (), width: int = 100_000
) -> list[bytes]:
    """Lines of JSON with their ends, numbered from 0, of many lengths and partly not ASCII.

    Those named in ``malformed`` are no JSON, each in one of several ways; those in ``overlong``
    are right, but of ``width`` bytes and more.
    """
    found = [_line(number) for number in range(count)]
    for number in overlong:
        found[number] = _line(number, "x" * width)
    for turn, number in enumerate(malformed):
        found[number] = MALFORMED[turn % len(MALFORMED)]
    return [line + b"\n" for line in found]


def _line(number: int, more: str = "") -> bytes:
    start = shake_128(f"{number}:0".encode()).hexdigest(number % 61)  # content(number % 61, number)
    word = start + "é" * (number % 5) + more
    return json.dumps({"i": number, "word": word}, ensure_ascii=False).encode()
