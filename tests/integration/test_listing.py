"""Folders in pages: every name once, in order, and nothing that could not be opened."""

from __future__ import annotations

import os
import sys
import tempfile
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.download.listing import EPOCH, FIRST, LAST, Entry, Listing, modified, page
from service.download.roots import Root
from tests.paths import Tree, build_tree

NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1).filter(
    lambda name: not name.startswith(".") and len(name.encode()) <= 255
)
DAY = datetime(2026, 3, 1, 12, 30, 15, 123456, UTC)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return build_tree(tmp_path_factory.mktemp("tree"))


def pages(root: Root, path: str, limit: int) -> list[Listing]:
    found = [root.list_folder(path, after=None, limit=limit)]
    while found[-1].more:
        assert found[-1].after not in [listing.after for listing in found[:-1]]
        found.append(root.list_folder(path, after=found[-1].after, limit=limit))
    return found


def names(listing: Listing) -> list[str]:
    return [entry.name for entry in listing.entries]


@settings(deadline=None)
@given(st.sets(NAMES, max_size=12), st.sets(NAMES, max_size=4), st.integers(1, 6))
def test_pages_are_all_names_in_order(files: set[str], folders: set[str], limit: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        for name in folders:
            (Path(place) / name).mkdir()
        for name in files - folders:
            (Path(place) / name).touch()
        found = pages(Root("files", Path(place)), "", limit)
    told = [entry for listing in found for entry in listing.entries]
    assert [entry.name for entry in told] == sorted(files | folders, key=str.encode)
    assert {entry.name for entry in told if entry.folder} == folders
    assert {len(listing.entries) for listing in found[:-1]} <= {limit}
    assert len(found) == max(-(-len(told) // limit), 1)


def test_what_is_told_of_each(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.csv").write_bytes(b"12345")
    for path in tmp_path.iterdir():
        os.utime(path, (0, DAY.timestamp()))
    assert Root("files", tmp_path).list_folder("", after=None, limit=10) == Listing(
        (Entry("a.csv", False, 5, DAY), Entry("b", True, None, DAY)), None
    )


def test_links_hidden_and_special_files_are_not_listed(tree: Tree) -> None:
    top = {path.partition("/")[0] for path in tree.files}
    unread = {name.partition("/")[0] for name in tree.unlaid if not (tree.root / name).is_fifo()}
    listed = names(Root("files", tree.root).list_folder("", after=None, limit=1000))
    assert listed == sorted(top | (unread & {"unreadable.txt", "closed"}), key=str.encode)
    hidden = Root("files", tree.root, hidden=True)
    more = names(hidden.list_folder("", after=None, limit=1000))
    assert sorted({*more} - {*listed}) == [".git", ".hidden"]
    assert names(hidden.list_folder("sub/", after=None, limit=9)) == [
        *("...", ".env", "deep", "empty.csv")
    ]
    assert names(hidden.list_folder("sub/.../", after=None, limit=9)) == ["secret.txt"]


def test_what_is_left_out_takes_no_room_on_a_page(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).symlink_to("e")
    os.mkfifo(tmp_path / "d")
    for name in ("e", "f"):
        (tmp_path / name).touch()
    root = Root("files", tmp_path)
    assert [names(listing) for listing in pages(root, "", 1)] == [["e"], ["f"]]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems hold UTF-8 alone")
def test_names_that_cannot_be_asked_for_are_not_listed(tmp_path: Path) -> None:
    for name in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"good"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    assert pages(Root("files", tmp_path), "", 1) == [
        Root("files", tmp_path).list_folder("", after=None, limit=9)
    ]
    assert names(pages(Root("files", tmp_path), "", 9)[0]) == ["good"]


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ("", ["a", "b", "ü"]),
        ("a", ["b", "ü"]),
        ("aa", ["b", "ü"]),
        ("b\0", ["ü"]),
        ("../x", ["a", "b", "ü"]),
        ("z" * 10_000, ["ü"]),
        ("\ud800", []),
        ("\U0010ffff", []),
    ],
)
def test_any_text_may_be_started_behind(tmp_path: Path, after: str, told: list[str]) -> None:
    for name in ("a", "b", "ü"):
        (tmp_path / name).touch()
    assert names(Root("files", tmp_path).list_folder("", after=after, limit=9)) == told


@pytest.mark.parametrize("becomes", ["nothing", "a link", "a pipe"])
def test_what_changes_while_it_is_read_is_left_out(tmp_path: Path, becomes: str) -> None:
    """A page may so be shorter than asked for, and the next one is found all the same."""
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()

    def changing(name: bytes) -> bool:
        if name == b"b":
            (tmp_path / "b").unlink()
            if becomes == "a link":
                (tmp_path / "b").symlink_to("a")
            if becomes == "a pipe":
                os.mkfifo(tmp_path / "b")
        return True

    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        found = page(folder, changing, after=None, limit=2)
    finally:
        os.close(folder)
    assert names(found) == ["a"]
    assert found.after == "b"


def test_only_a_page_is_kept_in_memory(tmp_path: Path) -> None:
    for number in range(3000):
        os.close(os.open(tmp_path / f"a name that is not short {number:05}", os.O_CREAT))
    root = Root("files", tmp_path)
    tracemalloc.start()
    try:
        found = root.list_folder("", after="a name", limit=10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert names(found)[-1] == "a name that is not short 00009"
    assert peak < 100_000


@pytest.mark.parametrize(
    ("nanoseconds", "told"),
    [
        (0, EPOCH),
        (1999, datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        (10**30, LAST),
        (-(10**30), FIRST),
        (2**63 - 1, datetime(2262, 4, 11, 23, 47, 16, 854775, UTC)),
        (300_000_000_000 * 10**9, LAST),
    ],
)
def test_any_time_that_a_file_system_knows(nanoseconds: int, told: datetime) -> None:
    assert modified(os.stat_result((0,) * 10, {"st_mtime_ns": nanoseconds})) == told
