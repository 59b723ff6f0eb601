"""gzip and zstd: what other readers make of our streams, whole, synced and cut."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from service.export.compress import COMPRESSIONS
from tests.splitting import CUTS, Cuts, passed, split

CODINGS = [*COMPRESSIONS]
EASY = b"".join(b"%d,name %d,2024-01-01\n" % (i, i % 7) for i in range(30))
HARD = random.Random(1).randbytes(300)
READERS = {"gzip": ("gzip", "-t"), "zstd": ("zstd", "-tq")}


class Damaged(Exception):
    """What a reader says of a file that is not whole."""


def unpacked(coding: str, data: bytes) -> bytes:
    """The content of a whole file, as a reader that was not written here sees it."""
    try:
        if coding == "gzip":
            return gzip.decompress(data)
        reader = zstandard.ZstdDecompressor().decompressobj()
        content = reader.decompress(data)
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise Damaged from error
    if not reader.eof or reader.unused_data:
        raise Damaged
    return content


def readable_so_far(coding: str, data: bytes) -> bytes:
    if coding == "gzip":
        return zlib.decompressobj(31).decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.binary(max_size=200) | st.sampled_from([EASY, HARD]), cuts=CUTS)
def test_a_round_trip_in_any_split(coding: str, data: bytes, cuts: Cuts) -> None:
    assert unpacked(coding, passed(COMPRESSIONS[coding].stage(), data, cuts)) == data


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.sampled_from([EASY, HARD, EASY + HARD]), cuts=CUTS)
def test_a_sync_lets_a_reader_have_every_byte_so_far(coding: str, data: bytes, cuts: Cuts) -> None:
    stage = COMPRESSIONS[coding].stage()
    given_in, made = b"", b""
    for piece, sync in split(data, cuts):
        given_in += piece
        made += stage.feed(piece)
        if sync:
            made += stage.sync()
            assert readable_so_far(coding, made) == given_in
    assert unpacked(coding, made + stage.finish()) == data


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("synced", [False, True])
def test_a_file_that_is_cut_anywhere_is_not_whole(coding: str, *, synced: bool) -> None:
    file = passed(COMPRESSIONS[coding].stage(), EASY, [(200, synced), (300, synced)])
    assert unpacked(coding, file) == EASY
    for length in range(1, len(file)):
        with pytest.raises(Damaged):
            unpacked(coding, file[:length])


@pytest.mark.parametrize("coding", CODINGS)
def test_a_changed_content_does_not_fit_its_checksum(coding: str) -> None:
    file = passed(COMPRESSIONS[coding].stage(), HARD, [])
    place = file.index(HARD[100:110])
    damaged = bytearray(file)
    damaged[place] ^= 1
    with pytest.raises(Damaged):
        unpacked(coding, bytes(damaged))


@pytest.mark.parametrize("coding", CODINGS)
def test_no_bytes_are_a_whole_file_too(coding: str) -> None:
    file = COMPRESSIONS[coding].stage().finish()
    assert file
    assert unpacked(coding, file) == b""


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("content", [b"", EASY, EASY * 5000], ids=["empty", "small", "large"])
def test_the_command_line_tools_agree(coding: str, content: bytes, tmp_path: Path) -> None:
    command = READERS[coding]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    compression = COMPRESSIONS[coding]
    file = tmp_path / f"file{compression.suffix}"
    whole = passed(compression.stage(), content, [(100, True)])

    def accepted(data: bytes) -> bool:
        file.write_bytes(data)
        return subprocess.run([*command, file], capture_output=True, check=False).returncode == 0

    assert accepted(whole)
    for missing in (1, 4, 8, len(whole) // 2):
        assert not accepted(whole[:-missing])


@pytest.mark.parametrize("coding", CODINGS)
def test_text_becomes_much_smaller(coding: str) -> None:
    assert len(passed(COMPRESSIONS[coding].stage(), EASY * 1000, [])) < len(EASY) * 1000 / 5


def test_each_stream_has_a_state_of_its_own() -> None:
    one, two = COMPRESSIONS["gzip"].stage(), COMPRESSIONS["gzip"].stage()
    first, second = one.feed(EASY), two.feed(HARD)
    assert unpacked("gzip", first + one.finish()) == EASY
    assert unpacked("gzip", second + two.finish()) == HARD
