"""Addresses, paths and hosts of upstreams: written once, and read in one way only."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.settings import UpstreamSettings
from service.upstream_values import host_name, http_url, path_prefix
from tests.refusing import first_message

SECRET = "hunter2secret"
BASE = "https://archive.example/exports/"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("http://h", "http://h/"),
        ("https://h/", "https://h/"),
        (" https://h/a\n", "https://h/a/"),
        ("https://h/a//", "https://h/a/"),
        ("https://h:1/a", "https://h:1/a/"),
        ("https://h:65535", "https://h:65535/"),
        ("https://Archive.Example/A", "https://archive.example/A/"),
        ("https://h:443/a", "https://h/a/"),
        ("http://h:080/a", "http://h/a/"),
        ("https://h:80/a", "https://h:80/a/"),
        ("http://10.0.0.7:8080/x", "http://10.0.0.7:8080/x/"),
        ("http://a_b-c.d", "http://a_b-c.d/"),
        ("http://[::1]", "http://[::1]/"),
        ("http://[2001:DB8::7]:8080/a", "http://[2001:db8::7]:8080/a/"),
        ("http://[::ffff:10.0.0.7]/", "http://[::ffff:10.0.0.7]/"),
        ("https://h/a%20b/%C3%BC/c%2Fd", "https://h/a%20b/%C3%BC/c%2Fd/"),
        ("https://h/~a/@b;c=1,d:e!$&'()*+", "https://h/~a/@b;c=1,d:e!$&'()*+/"),
        ("https://h/..a/b../...", "https://h/..a/b../.../"),
    ],
)
def test_addresses_of_upstreams(written: str, read: str) -> None:
    assert http_url(written) == read
    assert http_url(read) == read


NO_URL = "is not an http or https URL with a host"
NO_PORT = "names a port that is none"
NO_IPV6 = "has no IPv6 address in its brackets"
DOTS = "has '.' or '..' in its path"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        *(
            (f"{text}", NO_URL)
            for text in (
                *(
                    "",
                    SECRET,
                    f"//{SECRET}",
                    "https:",
                    "https://",
                    "https:///a",
                    f"https:/{SECRET}",
                ),
                *(f"ftp://{SECRET}", f"file:///{SECRET}", f"HTTPS://{SECRET}", f"ws://{SECRET}"),
                *(f"https://user:{SECRET}@h/", f"https://{SECRET}@h", f"https://h@{SECRET}@x/"),
                *(f"https://h?key={SECRET}", f"https://h/a?{SECRET}", f"https://h/#{SECRET}"),
                *(
                    "https://:80/",
                    "https://h:/",
                    "https://h:8o/",
                    "https://h:-1/",
                    "https://h:123456",
                ),
                *(
                    "https://h:٣/",
                    "https://[::1/",
                    "https://::1/",
                    "https://[]/",
                    "https://[::1%25lo]/",
                ),
                *("https://.h/", "https://a..b/", "https://./", "https://ü/", "https://a b/"),
                *(
                    "https://h\\a",
                    "https://h/a\\b",
                    "https://h/a b",
                    "https://h/\ta",
                    "https://h/\0",
                ),
                *(
                    "https://h/ü",
                    "https://h/%",
                    "https://h/%2",
                    "https://h/%zz",
                    'https://h/"',
                    "https://h/<a>",
                ),
                *(
                    "https://h/[a]",
                    "https://h/{a}",
                    "https://h/a\nb",
                    "https://h*/",
                    "https://h,i/",
                ),
            )
        ),
        ("https://h:0/", NO_PORT),
        ("https://h:00000", NO_PORT),
        ("https://h:65536/", NO_PORT),
        ("https://[::1]:99999/", NO_PORT),
        ("https://[12:34]/", NO_IPV6),
        ("https://[10.0.0.7]/", NO_IPV6),
        ("https://[:::]/a", NO_IPV6),
        ("https://[1:2:3:4:5:6:7:8:9]/", NO_IPV6),
        (f"https://h/{SECRET}/..", DOTS),
        (f"https://h/../{SECRET}", DOTS),
        ("https://h/.", DOTS),
        ("https://h/a/./b", DOTS),
        ("https://h/%2e%2E/", DOTS),
        ("https://h/a/.%2e", DOTS),
        ("https://h/a%2f..%2fb", DOTS),
    ],
)
def test_other_addresses_are_refused_and_never_quoted(written: str, message: str) -> None:
    told = first_message(UpstreamSettings, base_url=written)
    assert message in told
    assert SECRET not in told
    assert "12:34" not in told


@pytest.mark.parametrize(
    "prefix", ["a", "daily/", "a/b/c", "a%20b/", "..a", "a../", ".../", "@:;="]
)
def test_beginnings_of_paths(prefix: str) -> None:
    assert path_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "/", "/a", "//a", ".", "..", "./a", "../a", "a/..", "a/../b", "a/./b", "a/."),
        *("%2e%2e/a", "a/%2E", ".%2e", "a%2f..", "a?b", "a#b", "a\\b", "a b", "a\n", "\0", "ü"),
        *("%", "a%2", "%gg", "<", '"', "[a]"),
    ],
)
def test_what_is_no_beginning_of_a_path(prefix: str) -> None:
    told = first_message(UpstreamSettings, base_url=BASE, paths=[prefix])
    assert told.startswith("Value error, is not the beginning of a path below base_url")


@given(st.text(st.sampled_from("./%2eEfF5ca"), max_size=12))
@example("..%2f")
@example("a/.%2e/b")
def test_no_prefix_leads_upwards(prefix: str) -> None:
    try:
        path_prefix(prefix)
    except ValueError:
        return
    decoded = prefix.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%2F", "/")
    assert not {".", ".."} & set(decoded.split("/"))
    assert http_url(f"https://h/{prefix}").startswith("https://h/")


@pytest.mark.parametrize(
    "host",
    [
        *("h", "cdn.example", "*.example", "*.b.example:8443", "cdn.example:1", "a_b-c.d:65535"),
        *("10.0.0.7", "10.0.0.7:80", "[::1]", "[2001:db8::7]:8443", "xn--bcher-kva.example"),
    ],
)
def test_hosts_to_be_led_to(host: str) -> None:
    assert host_name(host) == host


@pytest.mark.parametrize(
    ("host", "message"),
    [
        *(
            (host, "is not a host in lower case")
            for host in (
                *("", "*", "*.", "**.a", "a.*", "*a.b", "*.*.a", "*.[::1]", "CDN.example", "[::A]"),
                *(
                    "https://cdn.example",
                    "cdn.example/",
                    "a b",
                    "a\n",
                    "ü.example",
                    ".a",
                    "a.",
                    "a..b",
                ),
                *("a:", "a:b", "a:123456", ":80", "user@a", "::1", "[::1", "[]", "a,b", "a?"),
            )
        ),
        ("a:0", NO_PORT),
        ("a:99999", NO_PORT),
        ("[::1]:65536", NO_PORT),
        ("[12:34]", NO_IPV6),
        ("[10.0.0.7]", NO_IPV6),
    ],
)
def test_what_is_no_host_to_be_led_to(host: str, message: str) -> None:
    told = first_message(UpstreamSettings, base_url=BASE, redirects=[host])
    assert told.startswith(f"Value error, {message}")
    assert "12:34" not in told
    with pytest.raises(ValueError, match=message):
        host_name(host)
