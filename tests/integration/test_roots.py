"""No spelling, link or special file leads out of a root, and none tells what is there."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import pytest

from service.download.roots import NOTHING, Root, refusing
from service.errors import Busy, NotFound
from tests.artifact_files import open_files
from tests.paths import ATTACKS, HIDDEN, LINKS, Attack, Tree, build_tree

IN_A_REQUEST_LINE = re.compile(r"[!-~]+")  # and neither "?" nor "#", which would end the path
NOBODY = 65534


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return build_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def root(tree: Tree) -> Root:
    return Root("files", tree.root)


def content(root: Root, path: str) -> bytes:
    found = root.open_file(path)
    try:
        return os.read(found.file, 1_000_000)
    finally:
        os.close(found.file)


def refuse(root: Root, path: str) -> None:
    with pytest.raises(NotFound) as caught:
        content(root, path)
    assert (caught.value.detail, caught.value.members) == (NOTHING, {})


def refuse_folder(root: Root, path: str) -> None:
    with pytest.raises(NotFound) as caught:
        root.list_folder(path, after=None, limit=10)
    assert (caught.value.detail, caught.value.members) == (NOTHING, {})


def numbered(attack: Attack) -> str:
    return f"{ATTACKS.index(attack)}:{attack.raw[:40]}"


@pytest.mark.parametrize("attack", ATTACKS, ids=numbered)
def test_an_attack_finds_nothing(tree: Tree, root: Root, attack: Attack) -> None:
    if attack.trap in tree.unlaid:
        pytest.skip(f"{attack.trap} cannot be laid here, or not for this account")
    if attack.good is not None:
        assert content(root, attack.path) == tree.files[attack.good]
        return
    refuse(root, attack.path)
    refuse_folder(root, attack.path)


def test_there_are_enough_attacks_and_each_fits_a_request_line() -> None:
    raws = {attack.raw for attack in ATTACKS}
    assert len(raws) == len(ATTACKS) >= 300
    assert not [raw for raw in raws if not IN_A_REQUEST_LINE.fullmatch(raw) or {*raw} & {*"?#"}]


def test_the_attacks_are_sharp(tree: Tree) -> None:
    """Somebody who decodes and joins, and decodes again, is caught by a good many of them."""
    leaks = 0
    for attack in ATTACKS:
        for path in (attack.path, unquote(attack.path)):
            target = Path(os.path.realpath(f"{tree.root}/{path}".replace("\0", "")))
            with suppress(OSError):
                if target.is_relative_to(tree.root.parent) and target.is_file():
                    leaks += tree.marker in target.read_bytes()
    assert leaks > 50


def test_every_good_file_is_served(tree: Tree, root: Root) -> None:
    for path, expected in tree.files.items():
        found = root.open_file(path)
        try:
            assert found.name == path.rpartition("/")[2]
            assert found.size == len(expected)
            assert found.modified.timestamp() == pytest.approx(os.fstat(found.file).st_mtime)
            assert not os.get_inheritable(found.file)
            assert os.read(found.file, 1000) == expected
        finally:
            os.close(found.file)


@pytest.mark.parametrize("path", ["sub", "sub/deep", "nowhere", "nowhere/", "/", "//", "sub//"])
def test_a_folder_is_asked_for_with_one_slash(root: Root, path: str) -> None:
    refuse_folder(root, path)


@pytest.mark.parametrize("path", ["", "sub/", "sub/deep/"])
def test_a_folder_is_no_file(root: Root, path: str) -> None:
    refuse(root, path)
    assert root.list_folder(path, after=None, limit=10).entries


@pytest.mark.parametrize("path", HIDDEN)
def test_hidden_files_are_served_where_they_may_be(tree: Tree, root: Root, path: str) -> None:
    refuse(root, path)
    assert content(Root("files", tree.root, hidden=True), path) == tree.marker


@pytest.mark.parametrize("path", [".", "..", "./readme.txt", "sub/../readme.txt", ".git/../a", "/"])
def test_hidden_or_not_dots_lead_nowhere(tree: Tree, path: str) -> None:
    refuse(Root("files", tree.root, hidden=True), path)


@pytest.mark.parametrize("name", LINKS)
def test_no_link_is_followed_where_hidden_files_are_served(tree: Tree, name: str) -> None:
    hidden = Root("files", tree.root, hidden=True)
    refuse(hidden, name)
    refuse_folder(hidden, f"{name}/")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems hold UTF-8 alone")
@pytest.mark.parametrize("letter", [0xDCFF, 0xFFFD, 0xFF])
def test_a_name_that_is_not_utf_8_cannot_be_asked_for(tmp_path: Path, letter: int) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_bytes(b"x")
    refuse(Root("files", tmp_path), f"{chr(letter)}.txt")


def test_a_path_is_no_longer_than_the_system_takes(tmp_path: Path) -> None:
    """Opened folder by folder it could be, and so could thousands of folders."""
    levels, name = 16, "n" * 254
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=folder)
        folder, outer = os.open(name, os.O_RDONLY, dir_fd=folder), folder
        os.close(outer)
    for file in ("fits.in.it.txt..", "fits.not.at.all.."):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    os.close(folder)
    root, deep = Root("files", tmp_path), f"{name}/" * levels
    assert content(root, f"{deep}fits.in.it.txt..") == b""
    refuse(root, f"{deep}fits.not.at.all..")


def test_the_root_may_be_a_link_that_is_moved(tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "version").write_text(version)
    current = tmp_path / "current"
    root = Root("files", current)
    refuse(root, "version")
    refuse_folder(root, "")
    current.symlink_to("one")
    assert content(root, "version") == b"one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(current)
    assert content(root, "version") == b"two"


@pytest.mark.parametrize("kind", ["missing", "file", "loop", "pipe"])
def test_a_root_that_is_no_folder_has_nothing(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_bytes(b"x")
    elif kind == "loop":
        place.symlink_to("place")
    elif kind == "pipe":
        os.mkfifo(place)
    refuse(Root("files", place), "x")
    refuse_folder(Root("files", place), "")


def test_special_files_are_not_even_opened(
    tree: Tree, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape rewinds when it is opened, a watchdog begins to count."""
    really, opened = os.open, []

    def noted(path: bytes | Path, flags: int, *, dir_fd: int | None = None) -> int:
        opened.append(path)
        return really(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noted)
    for name in {"pipe", "socket", "null", "zero", "block"} - tree.unlaid:
        refuse(root, name)
    assert set(opened) == {tree.root}


def test_no_descriptor_is_left_open(tree: Tree, root: Root) -> None:
    before = open_files()
    refused = 0
    for attack in ATTACKS * 3:
        try:
            os.close(root.open_file(attack.path).file)
        except NotFound:
            refused += 1
        try:
            root.list_folder(attack.path, after=None, limit=2)
        except NotFound:
            refused += 1
    assert refused > 3000
    assert open_files() == before


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """This process may open ``free`` more files until the block ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("free", [0, 1])
def test_too_many_open_files_are_no_missing_file(root: Root, free: int) -> None:
    before = open_files()
    with few_descriptors(free), pytest.raises(Busy) as caught:
        root.open_file("sub/deep/data.ndjson")
    with few_descriptors(free), pytest.raises(Busy):
        root.list_folder("sub/deep/", after=None, limit=1)
    assert caught.value.headers == {"Retry-After": "5"}
    assert open_files() == before


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="only Linux has leases")
def test_a_leased_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "leased").write_bytes(b"x")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # what tells the holder of the lease
    holder = os.open(tmp_path / "leased", os.O_RDWR)
    try:
        try:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            pytest.skip("this file system has no leases")
        with pytest.raises(Busy):
            Root("files", tmp_path).open_file("leased")
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, before)


def test_a_broken_disk_is_no_missing_file() -> None:
    with pytest.raises(OSError, match="Input/output"), refusing():
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def as_nobody() -> Iterator[None]:
    """As an account without rights, where this process may become one."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_what_may_not_be_read_is_not_there() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        tree = build_tree(Path(folder))
        root = Root("files", tree.root)
        with as_nobody():
            for path in ("unreadable.txt", "closed/secret.txt", "closed/nothing"):
                refuse(root, path)
            refuse_folder(root, "closed/")
            names = [entry.name for entry in root.list_folder("", after=None, limit=99).entries]
            assert content(root, "readme.txt") == tree.files["readme.txt"]
        assert sorted({*tree.files, "sub"} - {path for path in tree.files if "/" in path}) == names
        (tree.root / "closed").chmod(0o700)
