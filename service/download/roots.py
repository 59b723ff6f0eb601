"""Folders that files are served from, and the files in them: nothing leads out of a root."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path

from service.download.listing import Listing, modified, page
from service.errors import Busy, NotFound

MAX_PATH = 4096  # bytes: PATH_MAX of Linux, and so many folders to open at most
SETTLED = 20_000_000  # nanoseconds: kernels without finer stamps tick every 10 ms at the slowest
NOTHING = "There is nothing to be read at this path."

ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FOLDER = ROOT | os.O_NOFOLLOW
# Whatever is put there between the look and the open: it is not waited for, and takes no terminal.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

NOT_THERE = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP),
        *(errno.EINVAL, errno.EILSEQ, errno.ESTALE),  # names that the file system cannot hold; NFS
    }
)
NOT_NOW = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN})  # EAGAIN: somebody's lease

Stamp = tuple[int, int, int, int, int]


@dataclass(slots=True)
class OpenFile:
    """A regular file: a descriptor, which the holder closes, and what it was at the last look.

    ``stamp`` is device, inode, size in bytes, and the times of the last change of content and
    of inode in nanoseconds; ``links`` is how many names the file has.
    """

    file: int
    name: str
    size: int
    modified: datetime
    stamp: Stamp
    links: int

    def etag(self) -> str:
        """A strong validator (RFC 9110, section 8.8.1) once the stamp is settled.

        A hash, so that it tells no inode number. The time of the inode's change is part of it:
        nobody can set that back, as ``touch`` and ``rsync --times`` set the other one. The
        price: a ``chmod`` or a new name makes a new tag of the same bytes.
        """
        digest = hashlib.sha256(repr(self.stamp).encode()).hexdigest()
        return f'"{digest[:32]}"'

    def unchanged(self) -> bool:
        """Whether what was read so far is all of the one version that was opened.

        Size and time of the content must be the same. The time of the inode may differ only
        together with the number of names: so it does where another file takes the name, where
        this one is deleted, or gets a second name, and its bytes stay as they were. Alone it
        may mean that content was written and its time set back, and so a ``chmod`` or ``mv`` of
        the file itself is taken for a change too: a stream that breaks can be asked for again,
        and one of two versions would pass for whole. What is written through a memory map is
        seen when the kernel stamps it, which may be later. False also where nobody can tell.
        """
        try:
            status = os.fstat(self.file)
        except OSError:
            return False
        *content, changed = _stamp(status)
        *content_before, changed_before = self.stamp
        same_inode = changed == changed_before or status.st_nlink != self.links
        return content == content_before and same_inode

    def settled_in(self, now_ns: int) -> float:
        """Seconds until no later change can leave the same stamp; 0.0 is now, 0.02 the most.

        ``now_ns`` is the time of day. Kernels stamp with the time of their last tick, so that
        two changes within one tick look the same. Whoever waits for as long and then looks
        again may serve what is there under its tag. A stamp from the future is that of another
        host's clock, or of one that jumped: waited for as for one of this moment. File systems
        that keep whole seconds (FAT, HFS+) are not waited for.
        """
        _, _, _, written, changed = self.stamp
        age = max(now_ns - max(written, changed), 0)
        return max(SETTLED - age, 0) / 1e9

    def look_again(self) -> bool:
        """Take over what the file is by now; whether that is still the same version.

        If it is, and ``settled_in`` was waited for, the stamp is settled. If not, the file is
        being written or was replaced: open it anew. Raises NotFound where it cannot be asked.
        """
        with refusing():
            status = os.fstat(self.file)
        before, self.stamp = self.stamp, _stamp(status)
        self.size, self.modified, self.links = status.st_size, modified(status), status.st_nlink
        return self.stamp == before


@dataclass(frozen=True, slots=True)
class Root:
    """A folder by its ``name`` in addresses; with ``hidden``, names may begin with a dot.

    ``path`` may be a link and is opened anew for each call, so that the folder may be swapped or
    mounted later. Below it no link is followed. A mount and a hard link inside are part of it:
    whoever may make them may also copy. The methods block for as long as the file system takes.
    """

    name: str
    path: Path
    _: KW_ONLY
    hidden: bool = False

    def open_file(self, path: str) -> OpenFile:
        """The regular file at ``path``, what the URL holds behind the root, decoded once.

        Raises NotFound for everything else, in a sentence that does not tell what is there, and
        Busy where no descriptor is left.
        """
        *folders, name = self._components(path)
        with refusing(), self._folder(folders) as folder:
            # A device may do something when it is opened, so there is a look before.
            _require_regular(os.stat(name, dir_fd=folder, follow_symlinks=False))
            return _opened(os.open(name, FILE, dir_fd=folder), name)

    def list_folder(self, path: str, *, after: str | None, limit: int) -> Listing:
        """A page of the folder at ``path``, which is empty for the root, or else ends in a slash.

        See ``listing.page``. Raises NotFound and Busy as ``open_file`` does.
        """
        if path and not path.endswith("/"):
            raise NotFound(NOTHING)
        folders = self._components(path.removesuffix("/")) if path else []
        with refusing(), self._folder(folders) as folder:
            return page(folder, self._offers, after=after, limit=limit)

    def _components(self, path: str) -> list[bytes]:
        try:
            spelt = path.encode()
        except UnicodeEncodeError:
            raise NotFound(NOTHING) from None
        names = spelt.split(b"/")
        if len(spelt) > MAX_PATH or not all(map(self._offers, names)):
            raise NotFound(NOTHING)
        return names

    def _offers(self, name: bytes) -> bool:
        if name in {b"", b".", b".."} or b"\0" in name:
            return False
        return self.hidden or not name.startswith(b".")

    @contextmanager
    def _folder(self, names: Sequence[bytes]) -> Iterator[int]:
        """A descriptor of the folder that ``names`` lead to, until the block ends."""
        folder = os.open(self.path, ROOT)
        try:
            for name in names:
                inner = os.open(name, FOLDER, dir_fd=folder)
                folder, outer = inner, folder
                os.close(outer)
            yield folder
        finally:
            os.close(folder)


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what the file system refuses into NotFound or Busy; a broken disk stays an OSError."""
    try:
        yield
    except OSError as error:
        if error.errno in NOT_THERE:
            raise NotFound(NOTHING) from error
        if error.errno in NOT_NOW:
            raise Busy("No more files can be opened at the moment.") from error
        raise


def _opened(file: int, name: bytes) -> OpenFile:
    try:
        status = os.fstat(file)
        _require_regular(status)
        return OpenFile(
            file=file,
            name=name.decode(),
            size=status.st_size,
            modified=modified(status),
            stamp=_stamp(status),
            links=status.st_nlink,
        )
    except BaseException:
        os.close(file)
        raise


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotFound(NOTHING)


def _stamp(status: os.stat_result) -> Stamp:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
