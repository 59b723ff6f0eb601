"""What goes on to an upstream and what comes back: tables, and properties of what anyone may say."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.download.forwarding import (
    disposition,
    is_redirect_allowed,
    named_by_connection,
    path_below,
    query_of,
    query_without,
    request_fields,
    response_fields,
)
from service.errors import NotFound
from tests.paths import ATTACKS

Fields = list[tuple[str, str]]

OWN = frozenset({"chunk_size", "lines", "on_bad_line"})
IDENTITY = ("accept-encoding", "identity")
VIA = ("via", "1.1 tailrace")
RESENT = "; filename*=UTF-8''"
SAFE_DISPOSITION = re.compile(
    r"""attachment; filename="[^"\\/\x00-\x1f\x7f-\U0010ffff]+"(; filename\*=UTF-8''[!-~]+)?"""
)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ([], [IDENTITY, VIA]),
        ([("Host", "here"), ("User-Agent", "curl"), ("Cookie", "a=b")], [IDENTITY, VIA]),
        ([("Authorization", "Bearer x"), ("Proxy-Authorization", "Basic x")], [IDENTITY, VIA]),
        ([("X-Forwarded-For", "10.0.0.1"), ("Forwarded", "for=10.0.0.1")], [IDENTITY, VIA]),
        ([("Referer", "https://x/"), ("Origin", "https://x")], [IDENTITY, VIA]),
        ([("Content-Length", "5"), ("Expect", "100-continue")], [IDENTITY, VIA]),
        (
            [("Accept", "text/csv"), ("ACCEPT-Language", "de"), ("Accept-Encoding", "gzip")],
            [
                ("accept", "text/csv"),
                ("accept-language", "de"),
                ("accept-encoding", "gzip"),
                VIA,
            ],
        ),
        (
            [("Accept", "text/csv"), ("accept", "text/plain")],
            [("accept", "text/csv"), ("accept", "text/plain"), IDENTITY, VIA],
        ),
        (
            [("Range", "bytes=0-1"), ("If-Range", '"a"'), ("If-Match", '"b"')],
            [("range", "bytes=0-1"), ("if-range", '"a"'), ("if-match", '"b"'), IDENTITY, VIA],
        ),
        (
            [("If-None-Match", '"a"'), ("If-Modified-Since", "x"), ("If-Unmodified-Since", "y")],
            [
                ("if-none-match", '"a"'),
                ("if-modified-since", "x"),
                ("if-unmodified-since", "y"),
                IDENTITY,
                VIA,
            ],
        ),
        ([("Connection", "keep-alive, Range"), ("Range", "bytes=0-1")], [IDENTITY, VIA]),
        ([("Connection", "Accept-Encoding"), ("Accept-Encoding", "gzip")], [IDENTITY, VIA]),
        ([("TE", "trailers"), ("Upgrade", "h2c"), ("Keep-Alive", "5")], [IDENTITY, VIA]),
        (
            [("Via", "1.0 first"), ("via", "1.1 second")],
            [IDENTITY, ("via", "1.0 first, 1.1 second, 1.1 tailrace")],
        ),
    ],
)
def test_of_a_request_goes_on(client: Fields, expected: Fields) -> None:
    assert request_fields(client, lines=False) == expected


@pytest.mark.parametrize(
    ("client", "extra", "expected"),
    [
        (
            [("Authorization", "Bearer x"), ("X-Tenant", "7"), ("X-Other", "8")],
            ("authorization", "X-TENANT"),
            [("authorization", "Bearer x"), ("x-tenant", "7"), IDENTITY, VIA],
        ),
        ([("Connection", "X-Tenant"), ("X-Tenant", "7")], ("X-Tenant",), [IDENTITY, VIA]),
        ([("Proxy-Authorization", "x")], ("Proxy-Authorization",), [IDENTITY, VIA]),
    ],
)
def test_headers_that_are_forwarded_go_on_as_well(
    client: Fields, extra: tuple[str, ...], expected: Fields
) -> None:
    assert request_fields(client, lines=False, extra=extra) == expected


def test_lines_are_asked_for_whole_and_uncoded() -> None:
    conditions = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since")
    asked = [(name, "x") for name in (*conditions, "If-Unmodified-Since", "Accept-Encoding")]
    found = request_fields([("Accept", "*/*"), *asked], lines=True)
    assert found == [("accept", "*/*"), IDENTITY, VIA]


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ([], {}),
        (
            [("Content-Type", "text/csv"), ("Content-Length", "5"), ("ETag", '"a"')],
            {"content-type": "text/csv", "content-length": "5", "etag": '"a"'},
        ),
        (
            [("Content-Encoding", "gzip"), ("Accept-Ranges", "bytes"), ("Last-Modified", "x")],
            {"content-encoding": "gzip", "accept-ranges": "bytes", "last-modified": "x"},
        ),
        ([("Content-Range", "bytes 0-1/5")], {"content-range": "bytes 0-1/5"}),
        ([("Vary", "Accept"), ("vary", "Origin")], {"vary": "Accept, Origin"}),
        ([("X-Rate", "5"), ("Retry-After", "3")], {"x-rate": "5", "retry-after": "3"}),
        ([("Connection", "close, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "x")], {}),
        ([("Connection", "x"), ("Connection", " X-Hop\t,"), ("X-Hop", "1")], {}),
        ([("Transfer-Encoding", "chunked"), ("Trailer", "x"), ("Upgrade", "h2")], {}),
        ([("Proxy-Authenticate", "Basic"), ("Proxy-Connection", "x"), ("TE", "x")], {}),
        ([("Set-Cookie", "a=b"), ("Set-Cookie2", "a=b"), ("WWW-Authenticate", "Basic")], {}),
        ([("Strict-Transport-Security", "x"), ("Clear-Site-Data", "x"), ("Alt-Svc", "x")], {}),
        ([("Access-Control-Allow-Origin", "*"), ("Cross-Origin-Opener-Policy", "x")], {}),
        ([("X-Accel-Redirect", "/etc"), ("X-Sendfile", "/etc"), ("Refresh", "0")], {}),
        ([("Content-Security-Policy", "x"), ("X-Frame-Options", "x"), ("Link", "x")], {}),
        ([("Server", "x"), ("Date", "x"), ("X-Request-Id", "x"), ("X-Export-Id", "x")], {}),
        ([("Content-Disposition", "inline"), ("Location", "http://inside/")], {}),
    ],
)
def test_of_an_answer_comes_back(upstream: Fields, expected: dict[str, str]) -> None:
    assert response_fields(upstream, lines=False) == expected | dict([VIA])


def test_an_answer_that_came_by_others_names_them_all() -> None:
    found = response_fields([("Via", "1.0 a"), ("VIA", "1.1 b")], lines=False)
    assert found == {"via": "1.0 a, 1.1 b, 1.1 tailrace"}


def test_of_lines_nothing_is_told_that_was_true_of_the_bytes() -> None:
    untrue = ("Content-Length", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "ETag")
    more = ("Last-Modified", "Accept-Ranges", "Content-Range", "Content-Encoding", "Content-Type")
    fields = [(name, "x") for name in (*untrue, *more)]
    assert response_fields([*fields, ("X-Kept", "y")], lines=True) == {"x-kept": "y"} | dict([VIA])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], set()),
        ([("Connection", "close")], {"close"}),
        ([("connection", "Keep-Alive,X-A ,\tX-B")], {"keep-alive", "x-a", "x-b"}),
        ([("Connection", "a"), ("X", "b"), ("CONNECTION", "c")], {"a", "c"}),
    ],
)
def test_connection_names_fields(fields: Fields, expected: set[str]) -> None:
    assert named_by_connection(fields) - {""} == expected


@pytest.mark.parametrize(
    ("given_name", "path", "expected"),
    [
        (None, "daily/a.csv", 'filename="a.csv"'),
        (None, "daily/", 'filename="daily"'),
        (None, "", 'filename="download"'),
        (None, "größe.csv", f'filename="gr__e.csv"{RESENT}gr%C3%B6%C3%9Fe.csv'),
        (None, 'a"b\r\nc.csv', 'filename="a_b_c.csv"'),
        ("attachment", "a.csv", 'filename="a.csv"'),
        ("", "a.csv", 'filename="a.csv"'),
        ("inline", "a.csv", 'filename="a.csv"'),
        ("inline; filename=b.csv", "a.csv", 'filename="b.csv"'),
        ('attachment; filename="b c.csv"', "a.csv", 'filename="b c.csv"'),
        ('ATTACHMENT; FileName="b.csv"', "a.csv", 'filename="b.csv"'),
        ('attachment; filename=""', "a.csv", 'filename="a.csv"'),
        ('attachment; filename="../../etc/passwd"', "a", 'filename="passwd"'),
        (r'attachment; filename="..\\..\\boot.ini"', "a", 'filename="boot.ini"'),
        ('attachment; filename="/"', "a.csv", 'filename="a.csv"'),
        ('attachment; filename=".."', "a.csv", 'filename="export"'),
        (r'attachment; filename="a\"b.csv"', "x", 'filename="a_b.csv"'),
        ('attachment; filename="a;b.csv"', "x", 'filename="a;b.csv"'),
        ('attachment; filename="a\r\nSet-Cookie: b"', "x", 'filename="a_Set-Cookie_ b"'),
        ("attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv", "x", "größe.csv"),
        ("attachment; filename*=utf-8'de'%e2%82%ac.csv", "x", "€.csv"),
        ("attachment; filename*=ISO-8859-1''gr%F6%DFe.csv", "x", "größe.csv"),
        ("attachment; filename=plain.csv; filename*=UTF-8''%e2%82%ac.csv", "x", "€.csv"),
        ("attachment; filename*=UTF-8''%e2%82%ac.csv; filename=plain.csv", "x", "€.csv"),
        ("attachment; filename*=UTF-8''..%2f..%2fb.csv", "x", 'filename="b.csv"'),
        ("attachment; filename*=UTF-8''a%0d%0ab.csv", "x", 'filename="a_b.csv"'),
        ("attachment; filename*=UTF-8''a%00.csv", "x", 'filename="a_.csv"'),
        ("attachment; filename*=nonsense''b.csv", "x", 'filename="b.csv"'),
        # As the bytes of a field are read: Latin-1, where UTF-8 does not fit.
        ('attachment; filename="gr\xf6\xdfe.csv"', "x", "größe.csv"),
        ('attachment; filename="gr\xc3\xb6\xc3\x9fe.csv"', "x", "größe.csv"),
        ('attachment; filename="\xe2\x98\x83.csv"', "x", "☃.csv"),
        ('attachment; filename="b.csv', "x", 'filename="b.csv"'),
        ("attachment; filename", "a.csv", 'filename="a.csv"'),
        (";;;=;", "a.csv", 'filename="a.csv"'),
    ],
)
def test_the_name_to_save_it_under(given_name: str | None, path: str, expected: str) -> None:
    found = disposition(given_name, path)
    assert SAFE_DISPOSITION.fullmatch(found)
    if expected.startswith("filename="):
        assert found == f"attachment; {expected}"
    else:
        assert unquote(found.partition(RESENT)[2]) == expected


FIELD = st.text(st.characters(max_codepoint=0xFF))


@given(
    FIELD
    | st.builds(
        "attachment; {}={}".format,
        st.sampled_from(["filename", "filename*", "filename*0", "filename*0*", "filename*1"]),
        FIELD,
    ),
    FIELD,
)
@example("attachment; filename*0*=UTF-8''a; filename*1=b; filename*=x", "")
@example("attachment; filename*=''", "\x00")
@example("attachment; filename*0*=''", "")
def test_a_name_is_safe_whatever_the_upstream_says(given_name: str, path: str) -> None:
    assert SAFE_DISPOSITION.fullmatch(disposition(given_name, path))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("a.csv", "a.csv"),
        ("a/b/c.csv", "a/b/c.csv"),
        ("a/", "a/"),
        ("a//b", "a//b"),
        ("a%2Fb", "a%2Fb"),
        ("a%2fb", "a%2fb"),
        ("gr%C3%B6%C3%9Fe.csv", "gr%C3%B6%C3%9Fe.csv"),
        ("gr%F6%DFe.csv", "gr%F6%DFe.csv"),
        ("with%20space", "with%20space"),
        ("a;v=1/b;w", "a;v=1/b;w"),
        ("a%3Bb", "a%3Bb"),
        ("a%3Fb%23c", "a%3Fb%23c"),
        ("~a!$&'()*+,;=:@-._", "~a!$&'()*+,;=:@-._"),
        ("...", "..."),
        ("..a/b..", "..a/b.."),
        (".hidden", ".hidden"),
        ("a%252Fb", "a%252Fb"),
        ('a"b<c>', "a%22b%3Cc%3E"),
    ],
)
def test_a_path_goes_on_as_it_was_spelt(raw: str, expected: str) -> None:
    assert path_below(raw, ()) == expected


@pytest.mark.parametrize(
    "raw",
    [
        *("/", "/a", "//evil.example/a", ".", "..", "./a", "../a", "a/..", "a/../b", "a/./b"),
        *("%2e", "%2E%2e/a", ".%2e/a", "%2e./a", "a/%2e%2e", "a%2f..%2fb", "a%2F%2e%2e%2Fb"),
        *("%252e%252e/a", "%252e%252e%252fa", "..%252fa", "%25252e%25252e/a", "..%25252fa"),
        *("..;/a", "..;x=y/a", "a/..;", "%2e%2e;/a", "..%3b/a", "..%253b/a", ".;/a"),
        *("a\\b", "..\\a", "%5c", "a%5Cb", "a%255cb", "a%25255cb"),
        *("a%00", "a%2500", "a%0a", "a%0d%0aX: y", "a%250d%250a", "a%7f", "a%1b", "a\tb"),
        *("..%20/a", "%20../a", ".. /a"),
    ],
)
def test_a_path_that_may_lead_out_is_not_there(raw: str) -> None:
    with pytest.raises(NotFound):
        path_below(raw, ())


@pytest.mark.parametrize(
    ("raw", "prefixes"),
    [
        ("daily/a.csv", ("daily/",)),
        ("daily/", ("daily/",)),
        ("weekly/a.csv", ("daily/", "weekly/")),
        ("daily-2.csv", ("daily",)),
        ("d%61ily/a.csv", ("daily/",)),
        ("my%20files/a.csv", ("my%20files/",)),
        ("my%20files/a.csv", ("%6dy%20files/",)),
        ("gr%C3%B6%c3%9fe/a", ("gr%c3%b6%C3%9Fe/",)),
        ("a%2Fb/c", ("a%2Fb/",)),
        ("a%2fb/c", ("a%2Fb/",)),
        ("100%25/a", ("100%25/",)),
    ],
)
def test_a_path_below_a_prefix(raw: str, prefixes: tuple[str, ...]) -> None:
    assert path_below(raw, prefixes) == raw


@pytest.mark.parametrize(
    ("raw", "prefixes"),
    [
        ("", ("daily/",)),
        ("daily", ("daily/",)),
        ("Daily/a", ("daily/",)),
        ("weekly/a", ("daily/",)),
        ("xdaily/a", ("daily/",)),
        ("daily/../weekly/a", ("daily/",)),
        ("daily/%252e%252e/weekly/a", ("daily/",)),
        # Another file than one in the folder, unless the upstream decodes too much.
        ("daily%2Fa", ("daily/",)),
        ("daily%252Fa", ("daily/",)),
        ("a/b/c", ("a%2Fb/",)),
        ("my%2520files/a", ("my%20files/",)),
    ],
)
def test_a_path_below_no_prefix_is_not_there(raw: str, prefixes: tuple[str, ...]) -> None:
    with pytest.raises(NotFound):
        path_below(raw, prefixes)


def test_no_path_of_the_corpus_leads_out() -> None:
    passed = []
    for attack in ATTACKS:
        try:
            passed.append(path_below(attack.raw, ()))
        except NotFound:
            continue
    assert len(ATTACKS) > 300
    for path in passed:
        for _ in range(4):
            assert not {".", ".."}.intersection(path.split("/")), path
            assert "\\" not in path
            path = unquote(path)  # noqa: PLW2901 - as a server does that decodes too often


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("chunk_size=4096", ""),
        ("lines=1&a=1&on_bad_line=skip&b=2&chunk_size=5", "a=1&b=2"),
        ("b=2&a=1&b=1&b", "b=2&a=1&b=1&b"),
        ("a=%7E&b=~&c=%c3%b6&d=%C3%B6&e=a+b&f=%2B", "a=%7E&b=~&c=%c3%b6&d=%C3%B6&e=a+b&f=%2B"),
        ("lines=1&lines=0&a=1&lines", "a=1"),
        ("l%69nes=1&chunk%5Fsize=5&a=1", "a=1"),
        ("Lines=1&line=1&liness=1&xlines=1", "Lines=1&line=1&liness=1&xlines=1"),
        ("a=lines=1&=lines&b=%26lines=1", "a=lines=1&=lines&b=%26lines=1"),
        ("a=1&&b=2&", "a=1&&b=2&"),
        ("a=1;lines=1", "a=1;lines=1"),
        ("%6cines=1&%256cines=1", "%256cines=1"),
    ],
)
def test_a_query_goes_on_without_what_is_ours(raw: str, expected: str) -> None:
    assert query_without(raw, OWN) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("a=1&b=2&&", ""),
        ("lines=1&a=1&chunk%5Fsize=5&lines", "lines=1&chunk%5Fsize=5&lines"),
        ("a=lines&Lines=1&%256cines=1&on_bad_line=%ff", "on_bad_line=%ff"),
    ],
)
def test_what_is_ours_of_a_query(raw: str, expected: str) -> None:
    assert query_of(raw, OWN) == expected


CDN = ("cdn.example",)
ANY = ("*.example",)


@pytest.mark.parametrize(
    ("url", "hosts", "from_https"),
    [
        ("http://cdn.example/a", CDN, False),
        ("https://cdn.example/a", CDN, False),
        ("https://cdn.example/a", CDN, True),
        ("http://cdn.example:80/a", CDN, False),
        ("https://cdn.example:443", CDN, True),
        ("HTTPS://CDN.Example/a", CDN, True),
        ("https://cdn.example?a", CDN, True),
        ("https://cdn.example:8443/a", ("cdn.example:8443",), True),
        ("https://cdn.example/a", ("cdn.example:443",), True),
        ("http://cdn.example/a", ("cdn.example:80",), False),
        ("https://a.example/", ANY, True),
        ("https://a.b.example:443/", ANY, True),
        ("https://a.example:8443/", ("*.example:8443",), True),
        ("https://b.example/", ("a.example", "b.example"), True),
        ("http://[::1]/a", ("[::1]",), False),
        ("http://[2001:DB8::1]:80/a", ("[2001:db8::1]",), False),
        ("http://[::1]:8080/a", ("[::1]:8080",), False),
        ("http://127.0.0.1:8080/a", ("127.0.0.1:8080",), False),
    ],
)
def test_a_redirect_that_is_allowed(url: str, hosts: tuple[str, ...], from_https: bool) -> None:  # noqa: FBT001 - a column
    assert is_redirect_allowed(url, hosts, from_https=from_https)


@pytest.mark.parametrize(
    ("url", "hosts", "from_https"),
    [
        ("https://cdn.example/a", (), True),
        ("http://cdn.example/a", CDN, True),
        ("ftp://cdn.example/a", CDN, False),
        ("file:///etc/passwd", CDN, False),
        ("//cdn.example/a", CDN, False),
        ("/a", CDN, False),
        ("", CDN, False),
        ("https:cdn.example/a", CDN, True),
        ("https://cdn.example:8443/a", CDN, True),
        ("http://cdn.example:443/a", CDN, False),
        ("https://cdn.example:80/a", CDN, True),
        ("https://cdn.example/a", ("cdn.example:80",), True),
        ("https://cdn.example/a", ("cdn.example:8443",), True),
        ("https://xcdn.example/a", CDN, True),
        ("https://cdn.example.evil/a", CDN, True),
        ("https://evil/cdn.example", CDN, True),
        ("https://evil?cdn.example", CDN, True),
        ("https://evil#cdn.example", CDN, True),
        ("http://cdn.example@evil/", CDN, False),
        ("http://cdn.example:80@evil/", CDN, False),
        ("http://evil@cdn.example/", CDN, False),
        ("http://user:word@a.example/", ANY, False),
        ("http://evil\\@a.example/", ANY, False),
        ("http://evil\\.example/", ANY, False),
        ("http://evil/.example", ANY, False),
        ("http://evil%2f.example/", ANY, False),
        ("http://evil:1.example/", ANY, False),
        ("http://.example/", ANY, False),
        ("http://example/", ANY, False),
        ("http://aexample/", ANY, False),
        ("http://a.example:81/", ANY, False),
        ("http://cdn.example./", CDN, False),
        ("http://a.example./", ANY, False),
        ("http://cdn.example:/", CDN, False),
        ("http://cdn.example:0x50/", CDN, False),
        ("http://[::1]/a", ("[::2]",), False),
        ("http://[::1", CDN, False),
        ("http://[cdn.example]/", CDN, False),
        ("http://a\uff0fb.example/", ANY, False),
        ("http://\uff41.example/", ANY, False),
        ("http://a b.example/", ANY, False),
    ],
)
def test_a_redirect_that_is_refused(url: str, hosts: tuple[str, ...], from_https: bool) -> None:  # noqa: FBT001 - a column
    assert not is_redirect_allowed(url, hosts, from_https=from_https)
