"""Free addresses hop by hop: what a redirect may lead to, and what goes along."""

from __future__ import annotations

import pytest

from service.download.upstream import Asked, FreeRoute
from service.errors import AddressRefused, InvalidParameter, RedirectRefused
from service.settings import RelaySettings

ROUTE = FreeRoute(RelaySettings(allow_urls=True, ports=(80, 443, 8443)))
FIELDS = (("accept", "text/csv"),)
PLAIN = Asked("GET", "http://a.example/x", FIELDS)
SECURE = Asked("GET", "https://a.example/x", FIELDS)


@pytest.mark.parametrize(
    ("asked", "url", "found"),
    [
        (PLAIN, "http://b.example/y?z#w", "http://b.example/y?z"),
        (PLAIN, "https://b.example", "https://b.example/"),
        (PLAIN, "http://B.example:80/", "http://b.example/"),
        (PLAIN, "http://b.example:8443/", "http://b.example:8443/"),
        (SECURE, "https://b.example:8443/", "https://b.example:8443/"),
        (SECURE, "HTTPS://a.example:443/y", "https://a.example/y"),
        (SECURE, "https://8.8.8.8/", "https://8.8.8.8/"),
    ],
)
def test_a_hop_that_is_allowed(asked: Asked, url: str, found: str) -> None:
    assert ROUTE.redirected(asked, url) == Asked("GET", found, FIELDS)


@pytest.mark.parametrize(
    ("asked", "url"),
    [
        (SECURE, "http://a.example/x"),
        (SECURE, "http://b.example/"),
        (SECURE, "HTTP://b.example:443/"),
        (PLAIN, "http://b.example:22/"),
        (PLAIN, "https://b.example:22/"),
        (PLAIN, "http://127.0.0.1/"),
        (PLAIN, "http://169.254.169.254/latest/meta-data/"),
        (PLAIN, "http://[::1]/"),
        (PLAIN, "http://localhost/"),
        (PLAIN, "http://user@b.example/"),
        (PLAIN, "http://user:password@b.example/"),
        (PLAIN, "file:///etc/passwd"),
        (PLAIN, "ftp://b.example/"),
        (PLAIN, "//b.example/"),
        (PLAIN, "/y"),
        (PLAIN, ""),
        (PLAIN, "http://b.example/a b"),
        (PLAIN, "http://b.example/\r\nX: y"),
    ],
)
def test_a_hop_that_is_not(asked: Asked, url: str) -> None:
    with pytest.raises(RedirectRefused) as refused:
        ROUTE.redirected(asked, url)
    assert refused.value.status == 502


def test_from_http_to_https_there_is_no_way_back() -> None:
    secure = ROUTE.redirected(PLAIN, "https://b.example/")
    with pytest.raises(RedirectRefused):
        ROUTE.redirected(secure, PLAIN.url)


def test_what_is_of_one_server_alone_goes_to_no_other() -> None:
    asked = Asked("GET", PLAIN.url, FIELDS, private=(("authorization", "s3cret"),))
    assert ROUTE.redirected(asked, "http://b.example/").private == ()


def test_the_first_address_is_the_caller_s_to_mend() -> None:
    assert ROUTE.asked("HEAD", "http://a.example#x", FIELDS).url == "http://a.example/"
    with pytest.raises(AddressRefused):
        ROUTE.asked("GET", "http://127.0.0.1/", FIELDS)
    with pytest.raises(InvalidParameter):
        ROUTE.asked("GET", "http://user@a.example/", FIELDS)
