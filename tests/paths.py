"""Paths that were made to leave the folder they are asked of, and a folder laid with traps.

A path is the text behind the root as it stands in the request line, percent-encoded. It is decoded
once, as a server does.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Attack:
    """Nothing is there, or else ``good`` is, a file of the root that it merely spells its own way.

    ``trap`` is what it walks into, where a machine or an account may have been unable to lay it.
    """

    raw: str
    good: str | None = None
    trap: str | None = None

    @property
    def path(self) -> str:
        return unquote(self.raw)


@dataclass(frozen=True, slots=True)
class Tree:
    """``files`` are those of ``root`` that may be read, by path; ``marker`` is in all others."""

    root: Path
    marker: bytes
    files: dict[str, bytes]
    unlaid: frozenset[str]


GOOD = (
    *("readme.txt", "sub/deep/data.ndjson", "sub/empty.csv", "with space.txt", "größe.csv"),
    *("100%.txt", "%41.txt", "a+b.txt", "back\\slash.txt", "semi;colon.txt", "two..dots.txt"),
    *("dot.", "space ", "~", "what?.txt", "hash#.txt", "C:", "line\nbreak.txt", "\ufffd.txt"),
)
HIDDEN = (".hidden", ".git/config", "sub/.env", "sub/.../secret.txt")
OUTSIDE = "outside/secret.txt"
BESIDE = "root-beside/secret.txt"  # its path begins like that of the root

LINKS = {
    "link-file": "../outside/secret.txt",
    "link-folder": "../outside",
    "link-beside": "../root-beside",
    "link-everything": "/",
    "link-device": "/dev/zero",
    "link-self": "/proc/self",
    "link-descriptors": "/proc/self/fd",
    "link-dangling": "../nowhere",
    "link-loop": "link-loop",
    "link-there": "link-back",
    "link-back": "link-there",
    "link-twice": "link-file",
    "link-inside": "readme.txt",
    "link-sub": "sub",
    "link-here": ".",
    "link-up": "..",
    "sub/link-up": "../..",
    "sub/deep/link-file": "../../../outside/secret.txt",
}

_DOTS = (
    *("..", "%2e%2e", "%2E%2e", ".%2e", "%2e.", "%252e%252e", "%25252e%25252e", "..%252f.."),
    *("%c0%ae%c0%ae", "%c0%2e%c0%2e", "%e0%80%ae%e0%80%ae", "%f0%80%80%ae%f0%80%80%ae"),
    *("%u002e%u002e", "%uff0e%uff0e", "%%32e%%32e", "%2%65%2%65", "%ef%bc%8e%ef%bc%8e"),
    *("%e2%80%a4%e2%80%a4", "%e2%80%a5", "%e2%80%a6", "%e3%80%82%e3%80%82", "%ef%bd%a1%ef%bd%a1"),
    *("%ef%b9%92%ef%b9%92", "%c2%b7%c2%b7", "..%00", "%00..", ".%00.", "..%20", "%20..", ".%20."),
    *("..%09", "..%0d", "..%0a", "..%0d%0a", "..;", "..;a=b", "...", "....", "..%01", "..%7f"),
    *("..%e2%80%8b", "%e2%80%8b..", ".%e2%80%8c.", ".%c2%ad.", "%ef%bb%bf..", "..%cc%80", "..%ff"),
    *("~/..", "./..", "../.", ".../..", "..././", "....//"),
)
_SLASHES = (
    *("/", "%2f", "%2F", "//", "%2f%2f", "/./", "%2f.%2f", "\\", "%5c", "%5C", "/%5c", "%5c/"),
    *("%252f", "%25252f", "%255c", "%c0%af", "%c1%9c", "%c0%5c", "%e0%80%af", "%f0%80%80%af"),
    *("%u002f", "%u2215", "%u2216", "%uff0f", "%ef%bc%8f", "%ef%bc%bc", "%e2%88%95", "%e2%81%84"),
    *("%e2%88%96", "%e2%a7%b5", "%00/", "%0a/", "%3a", "%3b/", "%2f%00", "%%32%66", "%2%66"),
)
_DEPTHS = (*range(1, 13), 20, 64, 300)
_PLACES = (
    *("etc/passwd", "etc/shadow", "etc/hosts", "proc/self/environ", "proc/self/cmdline"),
    *("proc/self/fd/0", "proc/self/root/etc/passwd", "proc/self/cwd/pyproject.toml"),
    *("proc/self/mem", "proc/1/environ", "proc/version", "dev/null", "dev/zero", "dev/stdin"),
    *("dev/fd/0", "dev/tty", "sys/kernel/uevent_seqnum", "root/.ssh/id_rsa", "var/log/syslog"),
)
_SYSTEMS = (
    *("C:/Windows/win.ini", "C:%5cWindows%5cwin.ini", "c:", "C:..", "C:readme.txt"),
    *("%5c%5c%3f%5cC:%5c", "%5c%5c.%5cpipe%5cx", "%5c%5chost%5cshare%5cx", "//host/share/x"),
    *("readme.txt::$DATA", "readme.txt%3a%3a$DATA", "readme.txt:stream", "READ~1.TXT", "CON"),
    *("NUL", "aux.txt", "com1", "sub%5cdeep%5cdata.ndjson", "sub\\deep\\data.ndjson"),
    *("file:///etc/passwd", "file:%2f%2f%2fetc%2fpasswd", "http://127.0.0.1/", "data:,x"),
    *("~root", "~root/.ssh/id_rsa", "~/readme.txt", "$HOME", "$%7bHOME%7d", "%25HOME%25", "%HOME%"),
    *("..namedfork/rsrc", "readme.txt/..namedfork/rsrc", "._readme.txt", ".DS_Store"),
)
_SPELLINGS = (
    *(".", "..", "...", "/", "//", "%2f", "%2e", "%2e%2e", "%2e%2f", "./", "../", ".../", "%5c"),
    *("./readme.txt", "%2e/readme.txt", ".%2freadme.txt", "/readme.txt", "%2freadme.txt"),
    *("//readme.txt", "sub/../readme.txt", "sub/%2e%2e/readme.txt", "sub%2f..%2freadme.txt"),
    *("sub/deep/../../readme.txt", "sub//deep/data.ndjson", "sub/./deep/data.ndjson"),
    *("sub/%2e/deep/data.ndjson", "sub%2f%2fdeep/data.ndjson", "sub/deep//data.ndjson"),
    *("nowhere/../readme.txt", "sub/..", "sub/../", "sub/.", "sub/./", "sub//", "sub/%2f"),
    *("../root/readme.txt", "..%2froot%2freadme.txt", "a/../a", "readme.txt/../readme.txt"),
    *("readme.txt/", "readme.txt%2f", "readme.txt//", "readme.txt/.", "readme.txt/..", "sub"),
    *("readme.txt/x", "readme.txt/x/", "sub/deep", "sub%2fdeep", "sub/deep/data.ndjson/"),
    *("readme.txt.", "readme.txt..", "readme.txt%20", "%20readme.txt", "readme.txt%09", "dot"),
    *("space", "space%20%20", "readme", "readme.tx", "eadme.txt", "readme.txt.csv", "A.txt"),
    *("readme%252etxt", "%2572eadme.txt", "sub%252fdeep%252fdata.ndjson", "with%2520space.txt"),
    *("with+space.txt", "a%20b.txt", "gr%f6%dfe.csv", "gr%c3%83%c2%b6.csv", "100%2525.txt"),
    *("readme.txt;", "readme.txt;a=b", ";/readme.txt", "sub;x=y/deep/data.ndjson", "readme.txt&"),
    *("readme.txt%3fa=b", "readme.txt%3f", "readme.txt%23", "readme.txt%23x", "%3freadme.txt"),
    *("root/readme.txt", "*", "*.txt", "read%3fe.txt", "readme.[t]xt", "%7breadme,x%7d.txt"),
)
_CONTROLS = (
    *("%00", "%00readme.txt", "readme.txt%00", "readme.txt%00.csv", "read%00me.txt", "sub%00/x"),
    *("sub/%00", "%00/readme.txt", "readme.txt%2500", "readme.txt%c0%80", "readme.txt%00%2f.."),
    *("readme.txt%0a", "readme.txt%0d", "readme.txt%0d%0a", "%0areadme.txt", "%0d%0areadme.txt"),
    *("readme.txt%0d%0aSet-Cookie:%20a=b", "%0d%0a%0d%0a%3cscript%3e", "x%0aX-Sent:%20yes"),
    *("readme.txt%1b%5b2J", "readme.txt%08", "readme.txt%7f", "readme.txt%c2%85", "%01", "%1f"),
    *("readme.txt%e2%80%a8", "readme.txt%e2%80%ae", "readme.txt%e2%80%8b", "%ef%bb%bfreadme.txt"),
    *(
        "%fe%ff",
        "%80",
        "%c3",
        "%c3%28",
        "%ed%a0%80",
        "%ed%b3%bf",
        "%f4%90%80%80",
        "%f8%88%80%80%80",
    ),
    *("read%ffme.txt", "%", "%%", "%2", "%g0", "readme.txt%", "%2%65", "%u0000", "%-1", "%+2e"),
)
_COMMANDS = (
    *("|id", "%7cid", ";id", "$(id)", "`id`", "%60id%60", "%26%26id", "readme.txt|cat", "-", "--"),
    *("-readme.txt", "%22readme.txt%22", "'readme.txt'", "%3cscript%3ealert(1)%3c/script%3e"),
    *("%7b%7b7*7%7d%7d", "%7breadme%7d", "%25s%25n", "%25d", "'%20or%20'1'='1", "php://filter/x"),
    *("WEB-INF/web.xml", "..%c0%afWEB-INF", "xn--readme.txt", "readme.txt%20HTTP/1.1"),
)
_LONG = (
    *("a" * 255, "a" * 256, "a" * 4095, "a" * 4097, "%61" * 256, "%c3%a9" * 127, "%c3%a9" * 128),
    *("a" * 20_000, "sub/" + "a" * 256, "a" * 300 + "/readme.txt", "readme.txt" + "%20" * 300),
    *("a/" * 2000 + "x", "a/" * 9000 + "x", "sub/" * 1200 + "x", "/" * 5000, "/" * 300 + "x"),
    *("%2f" * 3000, "./" * 3000 + "readme.txt", "%2e%2f" * 1000 + "readme.txt", "." * 300),
    *("../" * 5000 + "etc/passwd", "%2e%2e/" * 2000, "..%5c" * 2000, "." * 5000, "%00" * 3000),
    *("sub/../" * 2000 + "readme.txt", "%25" * 3000, "%252e%252e%252f" * 1000 + "etc/passwd"),
)
_HIDDEN = (
    *(".hidden", "%2ehidden", "%2Ehidden", ".hidden/", "%252ehidden", ".git/config", ".git/"),
    *("%2egit/config", ".git%2fconfig", ".git", "sub/.env", "sub/%2eenv", "sub%2f.env"),
    *(
        "sub/.../secret.txt",
        "sub/%2e%2e%2e/secret.txt",
        "sub/.../",
        ".git/./config",
        ".git//config",
    ),
    *(".nothing", ".nothing/", ".git/nothing", ".readme.txt", ".sub/deep/data.ndjson"),
)
_LINKED = (
    *(name for name in LINKS),
    *(f"{name}/" for name in LINKS),
    *(f"{name}%2f" for name in LINKS),
    *("link-folder/secret.txt", "link-folder%2fsecret.txt", "link%2dfolder/secret.txt"),
    *("link-folder/deep/secret.txt", "link-folder/deep/", "link-folder//secret.txt"),
    *("link-beside/secret.txt", "link-everything/etc/passwd", "link-everything/etc/"),
    *("link-everything/proc/self/environ", "link-self/environ", "link-self/cwd/pyproject.toml"),
    *("link-self/root/etc/passwd", "link-self/fd/0", "link-descriptors/0", "link-dangling/x"),
    *("link-loop/x", "link-there/x", "link-twice/", "link-sub/deep/data.ndjson", "link-sub/deep/"),
    *("link-here/readme.txt", "link-here/link-here/readme.txt", "link-up/outside/secret.txt"),
    *("link-up/root/readme.txt", "sub/link-up/outside/secret.txt", "link-folder/../readme.txt"),
    *("sub/link-up/root/readme.txt", "link-folder/.", "link-sub/link-up/outside/secret.txt"),
)
_TRAPS = {
    "pipe": ("pipe", "%70ipe", "pipe/", "pipe/x"),
    "socket": ("socket", "socket/", "socket/x"),
    "null": ("null", "null/", "null/x"),
    "zero": ("zero", "zero/"),
    "block": ("block", "block/"),
    "unreadable.txt": ("unreadable.txt",),
    "closed/secret.txt": ("closed/secret.txt", "closed/", "closed/nothing"),
}
_HARMLESS = {
    "readme.txt": ("%72eadme.txt", "readme%2etxt", "%72%65%61%64%6D%65%2E%74%78%74"),
    "sub/deep/data.ndjson": ("sub%2fdeep/data.ndjson", "sub%2Fdeep%2Fdata.ndjson", "%73ub/deep/%64ata.ndjson"),
    "sub/empty.csv": ("sub/empty.csv",),
    "with space.txt": ("with%20space.txt",),
    "größe.csv": ("gr%C3%B6%C3%9Fe.csv", "gr%c3%b6%c3%9fe.csv"),
    "100%.txt": ("100%25.txt", "100%.txt"),
    "%41.txt": ("%2541.txt",),
    "a+b.txt": ("a+b.txt", "a%2bb.txt"),
    "back\\slash.txt": ("back%5cslash.txt", "back\\slash.txt"),
    "semi;colon.txt": ("semi;colon.txt", "semi%3Bcolon.txt"),
    "two..dots.txt": ("two..dots.txt", "two%2e%2edots.txt"),
    "dot.": ("dot.", "dot%2e"),
    "space ": ("space%20",),
    "~": ("~", "%7e"),
    "what?.txt": ("what%3f.txt",),
    "hash#.txt": ("hash%23.txt",),
    "C:": ("C:", "C%3a"),
    "\ufffd.txt": ("%ef%bf%bd.txt", "%ff.txt"),
}  # fmt: skip


def _traversals() -> list[str]:
    return [
        *(f"{dots}{slash}{OUTSIDE}" for dots in _DOTS for slash in ("/", "%2f", "%5c")),
        *(f"..{slash}outside{slash}secret.txt" for slash in _SLASHES),
        *(f"%2e%2e{slash}outside{slash}secret.txt" for slash in _SLASHES),
        *(f"sub{slash}..{slash}..{slash}{OUTSIDE}" for slash in _SLASHES),
        *(f"{dots}/{BESIDE}" for dots in ("..", "%2e%2e", "sub/../..")),
        *("../root-beside/", "../outside/", "..", "../..", "-beside/secret.txt", "..-beside/secret.txt"),
        *(f"{'../' * depth}etc/passwd" for depth in _DEPTHS),
        *(f"{'..%2f' * depth}etc%2fpasswd" for depth in _DEPTHS),
        *(f"sub/{'%2e%2e/' * depth}etc/passwd" for depth in _DEPTHS),
        *(f"{before}{place}" for place in _PLACES for before in ("/", "%2f", "", "../../../../")),
    ]  # fmt: skip


def _attacks() -> dict[str, Attack]:
    refused = (
        *(*_traversals(), *_SPELLINGS, *_CONTROLS, *_COMMANDS, *_SYSTEMS, *_LONG, *_HIDDEN),
        *_LINKED,
    )
    plain = {raw: Attack(raw) for raw in refused}
    trapped = {raw: Attack(raw, trap=trap) for trap, raws in _TRAPS.items() for raw in raws}
    harmless = {raw: Attack(raw, good=good) for good, raws in _HARMLESS.items() for raw in raws}
    return plain | trapped | harmless


# Each text once, in a stable order.
ATTACKS: tuple[Attack, ...] = tuple(_attacks().values())


def build_tree(folder: Path) -> Tree:
    """A root in ``folder``, with files, traps in it, and secrets in it and beside it."""
    root, marker = folder / "root", f"canary {secrets.token_hex(16)}".encode()
    files = {name: f"content of {name!r}\n".encode() for name in GOOD} | {"sub/empty.csv": b""}
    for name, content in files.items():
        _write(root / name, content)
    for name in HIDDEN:
        _write(root / name, marker)
    for name in (OUTSIDE, BESIDE, "outside/deep/secret.txt"):
        _write(folder / name, marker)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    return Tree(root, marker, files, _unlaid(root, marker))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _unlaid(root: Path, marker: bytes) -> frozenset[str]:
    """Lay what is no file, or may not be read; the names of what cannot be laid here."""
    special = {
        "pipe": (stat.S_IFIFO, 0),
        "socket": (stat.S_IFSOCK, 0),
        "null": (stat.S_IFCHR, os.makedev(1, 3)),
        "zero": (stat.S_IFCHR, os.makedev(1, 5)),
        "block": (stat.S_IFBLK, os.makedev(7, 250)),
    }
    unlaid = {
        name for name, (kind, device) in special.items() if not _made(root / name, kind, device)
    }
    for name in ("unreadable.txt", "closed/secret.txt"):
        _write(root / name, marker)
    (root / "unreadable.txt").chmod(0)
    (root / "closed").chmod(0)
    if os.access(root / "unreadable.txt", os.R_OK):  # root reads everything
        unlaid |= {"unreadable.txt", "closed/secret.txt"}
    return frozenset(unlaid)


def _made(path: Path, kind: int, device: int) -> bool:
    with suppress(OSError):
        os.mknod(path, kind | 0o600, device)
        return True
    return False
