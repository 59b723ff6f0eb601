"""What the query of a request tells the test upstream to do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

# A table for its reader: each name, what its value is and does.
OPTIONS = {
    "key": "a name under which answers are counted, instead of the request's target",
    # the file
    "size": "its bytes (1000)",
    "seed": "which bytes (0)",
    "type": "Content-Type (application/octet-stream); empty: none",
    "etag": "ETag as it stands, with its quotes; without it none",
    "modified": "Last-Modified as it stands; without it none",
    "changes": "N: from answer N on it is another file: seed + 1, another ETag and date",
    "ranges": "1, or a lie of upstream_ranges.RANGES; without it Range is ignored",
    "lies_from": "N: which answer is the first in which `ranges` lies, counted from 0 (1)",
    "gzip": "sent with Content-Encoding: gzip",
    "bomb": "GiB that a gzip body of a few MB expands to (4)",
    "endless": "the body never ends",
    # /lines, see upstream_bytes.lines
    "n": "lines of /lines (100); redirects of /chain (5)",
    "malformed": "numbers of lines: 3,17",
    "overlong": "numbers of lines",
    "width": "bytes of an overlong line (100000)",
    "unended": "the last line has no line feed",
    # the answer
    "status": "with the body all the same",
    "redirect": "Location as it stands",
    "code": "the status of a redirect (302)",
    "header": "Name:Value, added whatever it is; as often as needed",
    "hints": "N answers 103 come first (1)",
    "http10": "HTTP/1.0, and the connection ends",
    "close": "`Connection: close`, and it does; `silent`: it does without a word",
    # the framing
    "framing": "length, chunked or close (no length: the body ends with the connection)",
    "short": "N: Content-Length says N bytes too many (1); then FIN",
    "long": "N: Content-Length says N bytes too few (1)",
    "two_lengths": "a second Content-Length (size + 1)",
    "bad_length": "Content-Length as it stands",
    "both": "Content-Length (size) beside Transfer-Encoding: chunked",
    "bad_chunk": "the second size line of a chunked body as it stands (zz)",
    "cut_tail": "a chunked body without its last chunk, then FIN",
    # the head
    "bad_head": "sent as it stands instead of an answer, then FIN (SSH-2.0-OpenSSH_9.6)",
    "huge_head": "bytes of one more field (100000000)",
    "many_headers": "fields more (10000)",
    "bad_header": "one of upstream_head.BAD_HEADERS: nul, fold, cr, lf, space, colonless, nameless",
    # the pace
    "pieces": "a,b,c: bytes of each write and chunk, over and over (65536)",
    "trickle": "N,ms: writes of N bytes with pauses of ms behind each",
    # the end
    "cut": "N: FIN after N bytes of the body of this answer",
    "cut_each": "the same, whatever cut_times says",
    "cut_at": "N: FIN at byte N of the file, so that who resumes there gets nothing",
    "reset": "N: RST after N bytes of the body, once the peer's system has them all",
    "stall": "N: nothing more after N bytes of the body, until the peer leaves",
    "cut_head": "N: FIN after N bytes of the head (0: no answer at all)",
    "reset_head": "N: RST after N bytes of the head (0)",
    "stall_head": "N: nothing more after N bytes of the head (0)",
    "accept_only": "nothing is read behind the head of the request, and nothing sent",
}

# `cut_times=K` keeps all of these to the first K answers, `cut_after=K` to those behind them.
# For any other option its own name does it: `status_times=1`, `redirect_after=2`.
FAMILIES = {
    "cut": ("cut", "cut_at", "cut_tail", "cut_head", "reset", "reset_head", "short"),
    "stall": ("stall", "stall_head"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Names and values that hold for the answer of this ``number``, counted from 0."""

    pairs: tuple[tuple[str, str], ...]
    number: int = 0

    def has(self, name: str) -> bool:
        return any(found == name for found, _ in self.pairs)

    def text(self, name: str, default: str = "") -> str:
        return next((value for found, value in self.pairs if found == name and value), default)

    def every(self, name: str) -> list[str]:
        return [value for found, value in self.pairs if found == name]

    def count(self, name: str, default: int) -> int:
        return int(self.text(name, str(default)))

    def counts(self, name: str) -> tuple[int, ...]:
        return tuple(int(text) for text in self.text(name).split(",") if text)

    def at(self, number: int) -> Options:
        """Those that hold for the answer of another number."""
        idle = {name for pair in self.pairs for name in _idle(*pair, number)}
        return Options(tuple(pair for pair in self.pairs if pair[0] not in idle), number)


def target(path: str, **options: object) -> str:
    """A path with its query, encoded as ``parse`` reads it; a list is an option several times."""
    query = urlencode(options, doseq=True, encoding="latin-1")
    return f"{path}?{query}" if query else path


def parse(query: str) -> Options:
    """The options of a query; a percent-encoded byte stands for itself.

    Raises ValueError for a name that is none, so that a slip of a test is seen.
    """
    pairs = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    for name, _ in pairs:
        stem, _, rule = name.rpartition("_")
        if name not in OPTIONS and not (rule in {"times", "after"} and stem in OPTIONS):
            raise ValueError(f"the upstream has no option {name!r}")
    return Options(tuple(pairs))


def _idle(name: str, value: str, number: int) -> tuple[str, ...]:
    """Which options this one keeps out of the answer of this number."""
    stem, _, rule = name.rpartition("_")
    idle = {"times": lambda: number >= int(value), "after": lambda: number < int(value)}
    return FAMILIES.get(stem, (stem,)) if rule in idle and idle[rule]() else ()
