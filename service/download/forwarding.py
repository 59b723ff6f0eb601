"""What of a request goes on to an upstream, and what of its answer comes back. Pure.

Hop-by-hop fields and those that ``Connection`` names stay on their side (RFC 9110, section 7.6.1),
and so does whatever would act on our origin, or tell the upstream who its client is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from service.errors import NotFound
from service.representation import content_disposition

Fields = Sequence[tuple[str, str]]

VIA = "1.1 tailrace"
CONDITIONS = (
    *("range", "if-range", "if-match", "if-none-match"),
    *("if-modified-since", "if-unmodified-since"),
)
ASKED = frozenset({"accept", "accept-language", "accept-encoding", *CONDITIONS})
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info"}
    | {"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
# Ours are set by the server or below; the others act on the origin that a browser sees: cookies,
# policies and credentials, and what a proxy in front of us would take for an order.
KEPT_BACK = frozenset(
    {"date", "server", "via", "set-cookie", "set-cookie2", "clear-site-data", "alt-svc"}
    | {"strict-transport-security", "public-key-pins", "www-authenticate", "refresh"}
    | {"content-security-policy", "content-security-policy-report-only", "x-frame-options"}
    | {"content-disposition", "x-content-type-options", "service-worker-allowed", "x-sendfile"}
    | {"nel", "report-to", "reporting-endpoints", "sourcemap", "x-sourcemap", "location"}
    | {"x-request-id", "x-export-id", "link", "http2-settings", "proxy-status"}
)
KEPT_BACK_PREFIXES = ("access-control-", "x-accel-", "cross-origin-", "x-lighttpd-")
OF_THE_BYTES = frozenset(  # they are no longer true once lines are framed anew
    {"content-length", "content-md5", "digest", "content-digest", "repr-digest", "etag"}
    | {"last-modified", "accept-ranges", "content-range", "content-encoding", "content-type"}
)
DOTS = frozenset({".", ".."})
UNSAFE_IN_PATH = re.compile(r"[\x00-\x1f\x7f\\]")
PATH_SAFE = "%/:@!$&'()*+,;=-._~"  # RFC 3986, section 3.3
HOST = re.compile(r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[0-9]+)?")
PARAMETER = re.compile(r""";[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*|[^\s;"]*)""", re.DOTALL)
SAFEGUARDS = {
    "X-Content-Type-Options": "nosniff",
    # Whatever an upstream calls HTML must not run on our origin.
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


def request_fields(
    client: Fields, *, lines: bool, extra: Collection[str] = ()
) -> list[tuple[str, str]]:
    """The client's fields that go on; ``extra`` names more of them. Lower-case names.

    With ``lines`` the whole is asked for, uncoded: parts and codings have no lines.
    """
    wanted = (ASKED | {name.lower() for name in extra}) - named_by_connection(client) - HOP_BY_HOP
    if lines:
        wanted -= {*CONDITIONS, "accept-encoding"}
    passed = [(name.lower(), text) for name, text in client if name.lower() in wanted]
    if not any(name == "accept-encoding" for name, _ in passed):
        passed.append(("accept-encoding", "identity"))
    came_by = [text for name, text in client if name.lower() == "via"]
    return [*passed, ("via", ", ".join((*came_by, VIA)))]


def response_fields(upstream: Fields, *, lines: bool) -> dict[str, str]:
    """The answer's fields that come back, those of one name joined. Lower-case names."""
    left_out = named_by_connection(upstream) | HOP_BY_HOP | KEPT_BACK
    if lines:
        left_out |= OF_THE_BYTES
    passed: dict[str, str] = {}
    for name, text in ((name.lower(), text) for name, text in upstream):
        if name not in left_out and not name.startswith(KEPT_BACK_PREFIXES):
            passed[name] = f"{passed[name]}, {text}" if name in passed else text
    via = [text for name, text in upstream if name.lower() == "via"]
    return passed | {"via": ", ".join((*via, VIA))}


def named_by_connection(fields: Fields) -> frozenset[str]:
    """The lower-case names of fields that are of this connection alone."""
    return frozenset(
        token.strip(" \t").lower()
        for name, text in fields
        if name.lower() == "connection"
        for token in text.split(",")
    )


def disposition(given: str | None, path: str) -> str:
    """``attachment`` with the name that the upstream gave, or else the last one of ``path``."""
    name = path.rstrip("/").rpartition("/")[2] or "download"
    # With "/" and "\" as ends of folders: RFC 6266, section 4.3.
    return content_disposition(re.split(r"[/\\]", _file_name(given or ""))[-1] or name)


def _file_name(given: str) -> str:
    """What a Content-Disposition says, ``filename*`` first (RFC 6266, section 4.3), or nothing."""
    parameters: list[tuple[str, str]] = PARAMETER.findall(given)
    found = {name.lower(): text for name, text in reversed(parameters)}
    charset, _, extended = found.get("filename*", "").partition("'")
    if extended:
        data = unquote_to_bytes(extended.partition("'")[2])
        # The two of RFC 5987; RFC 8187 leaves the first alone.
        return data.decode("latin-1" if charset.lower() == "iso-8859-1" else "utf-8", "replace")
    plain = found.get("filename", "")
    if plain.startswith('"'):
        plain = re.sub(r"\\(.)", r"\1", plain[1:], flags=re.DOTALL)
    try:
        return plain.encode("latin-1").decode()
    except UnicodeError:
        return plain


def path_below(raw: str, prefixes: Sequence[str]) -> str:
    """``raw``, a path as it stood in the request line, for an upstream.

    ``prefixes`` are what it may begin with, all where there are none. Raises NotFound, also for
    whatever a server behind the upstream could take for a way out of its folder.
    """
    decoded = unquote(raw, errors="replace")
    allowed = not prefixes or any(_is_below(raw, prefix) for prefix in prefixes)
    if not allowed or raw.startswith("/") or any(map(_leads_out, _readings(decoded))):
        raise NotFound("There is nothing that may be relayed at this path.")
    return quote(raw, safe=PATH_SAFE)


def _is_below(raw: str, prefix: str) -> bool:
    """Whether it begins so, however both are spelt; an encoded slash is no end of a folder."""
    found, (*folders, start) = _segments(raw), _segments(prefix)
    count = len(folders)
    return found[:count] == folders and any(
        segment.startswith(start) for segment in found[count : count + 1]
    )


def _segments(raw: str) -> list[bytes]:
    return [unquote_to_bytes(segment) for segment in raw.split("/")]


def _readings(decoded: str) -> Iterator[str]:
    """The path, and what it becomes where it is decoded once or twice more than it should be."""
    for _ in range(3):
        yield decoded
        decoded = unquote(decoded, errors="replace")


def _leads_out(path: str) -> bool:
    # Some servers cut parameters off first: "..;x" is ".." to them.
    segments = (segment.partition(";")[0].strip() for segment in path.split("/"))
    return UNSAFE_IN_PATH.search(path) is not None or not DOTS.isdisjoint(segments)


def query_without(raw: str, own: Collection[str]) -> str:
    """``raw``, a query string, without the parameters that are ours."""
    return "&".join(pair for pair in raw.split("&") if not _is_of(own, pair))


def query_of(raw: str, own: Collection[str]) -> str:
    """The parameters of ``raw`` that are ours alone."""
    return "&".join(pair for pair in raw.split("&") if _is_of(own, pair))


def _is_of(own: Collection[str], pair: str) -> bool:
    return unquote(pair.partition("=")[0]) in own


def is_redirect_allowed(url: str, hosts: Iterable[str], *, from_https: bool) -> bool:
    """Whether one of ``hosts`` is that of ``url``: ``cdn.example[:port]`` or ``*.example``.

    Never from https to http, and never with a user, behind which another host may be meant.
    """
    try:
        scheme, netloc, *_ = urlsplit(url)
    except ValueError:
        return False
    if scheme not in ("http", "https") or (from_https and scheme != "https"):
        return False
    found = netloc.lower()
    return HOST.fullmatch(found) is not None and any(
        _is_host(found, scheme, each) for each in hosts
    )


def _is_host(netloc: str, scheme: str, host: str) -> bool:
    default = {"http": ":80", "https": ":443"}[scheme]
    found = netloc.removesuffix(default)
    wanted = host.removesuffix(default)
    if wanted.startswith("*."):
        return found.endswith(wanted[1:]) and len(found) > len(wanted[1:])
    return found == wanted
