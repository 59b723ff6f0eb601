"""Where a free relay may go: the corpus, every spelling of an address, and other parsers' reading."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.download.guard import (
    DEFAULT_PORTS,
    GLOBAL_UNICAST,
    MAX_URL,
    SPECIAL,
    Target,
    decide,
    parse_target,
    refusal,
)
from service.errors import AddressRefused, InvalidParameter, RequestError
from tests.addresses import GOOD_URLS, PUBLIC_ADDRESSES, REFUSED_ADDRESSES, REFUSED_URLS

PORT = 8080
PORTS = frozenset({80, 443, PORT})
ERRORS: dict[str, type[RequestError]] = {"refused": AddressRefused, "invalid": InvalidParameter}
PUBLIC_4 = [address for address in PUBLIC_ADDRESSES if ":" not in address]
PUBLIC_6 = [address for address in PUBLIC_ADDRESSES if ":" in address]


def numbered(cases: tuple[object, ...]) -> list[str]:
    """Ids for cases that are too long, or too odd, for a terminal."""
    return [str(number) for number in range(len(cases))]


def accepted(url: str) -> Target | None:
    try:
        return parse_target(url, PORTS)
    except (AddressRefused, InvalidParameter):
        return None


def numeric(host: str) -> list[str]:
    """What getaddrinfo reads ``host`` as without asking anybody; nothing where it is a name."""
    try:
        found = socket.getaddrinfo(host, PORT, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(address[4][0]) for address in found]


@pytest.mark.parametrize(("address", "why"), REFUSED_ADDRESSES, ids=numbered(REFUSED_ADDRESSES))
def test_an_address_that_is_refused(address: str, why: str) -> None:
    assert why in (refusal(address) or "nothing")
    with pytest.raises(AddressRefused):
        decide([address])


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_an_address_that_is_public(address: str) -> None:
    assert refusal(address) is None
    assert decide([address]) == (address,)


@pytest.mark.parametrize(("url", "verdict"), REFUSED_URLS, ids=numbered(REFUSED_URLS))
def test_a_url_that_is_not_gone_to(url: str, verdict: str) -> None:
    with pytest.raises(ERRORS[verdict]) as caught:
        parse_target(url.replace("{port}", str(PORT)), PORTS)
    assert caught.value.status == {"refused": 403, "invalid": 400}[verdict]
    assert caught.value.detail.startswith("url: ")
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize(("url", "host", "port", "normal"), GOOD_URLS, ids=numbered(GOOD_URLS))
def test_a_url_that_is_gone_to(url: str, host: str, port: int, normal: str) -> None:
    target = parse_target(url, PORTS)
    assert target == Target(normal.partition(":")[0], host, port, normal)
    assert parse_target(target.url, PORTS) == target


def test_the_corpus_is_large_and_nothing_stands_in_it_twice() -> None:
    urls = [url for url, _ in REFUSED_URLS]
    addresses = [address for address, _ in REFUSED_ADDRESSES]
    for entries in (urls, addresses, PUBLIC_ADDRESSES, GOOD_URLS):
        assert len(set(entries)) == len(entries)
    assert len(urls) >= 600
    assert len([url for url in urls if "{port}" in url]) >= 300


@pytest.mark.parametrize("url", ["http://a.example/\ud800", "http://\udfffa.example/", "\ud800"])
def test_half_a_character_is_no_url(url: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_target(url, PORTS)
    assert caught.value.detail.isascii()


def test_a_mistake_names_its_place() -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_target("http://example.com/a b", PORTS)
    assert caught.value.members == {"parameter": "url", "character": 21}
    assert caught.value.detail == "url: ' ' has to be percent-encoded at character 21."


def test_a_refusal_says_what_the_address_is() -> None:
    with pytest.raises(AddressRefused) as caught:
        parse_target("http://0xa.1/", PORTS)
    assert caught.value.detail == "url: 10.0.0.1 is in 10.0.0.0/8: private networks (RFC 1918)."


def test_only_ports_of_the_list() -> None:
    assert parse_target("http://a.example:8081/", {8081}).port == 8081
    for url in ("http://a.example/", "https://a.example/", "http://a.example:8080/"):
        with pytest.raises(AddressRefused):
            parse_target(url, {8081})
        with pytest.raises(AddressRefused):
            parse_target(url, ())


def test_so_long_and_no_longer() -> None:
    longest = "http://a.example/".ljust(MAX_URL, "x")
    assert parse_target(longest, PORTS).url == longest
    grown = "http://a.example/" + "\u00e9" * ((MAX_URL - 17) // 6 + 1)
    for url in (longest + "x", longest + "#", grown):
        with pytest.raises(InvalidParameter):
            parse_target(url, PORTS)


def test_what_may_be_connected_to() -> None:
    asked = ["2606:4700:4700::1111", "1.1.1.1", "2606:4700:4700:0::1111", "1.1.1.1", "1.0.0.1"]
    assert decide(asked) == ("2606:4700:4700::1111", "1.1.1.1", "1.0.0.1")


@pytest.mark.parametrize(
    "addresses",
    [
        [],
        ["10.1.2.3"],
        ["1.1.1.1", "10.1.2.3"],
        ["10.1.2.3", "1.1.1.1"],
        ["1.1.1.1", "::ffff:1.1.1.1"],
        ["1.1.1.1", "2606:4700:4700::1111", "fe80::1%2"],
        ["1.1.1.1", "a.example"],
    ],
)
def test_a_name_that_also_points_inside_is_refused(addresses: list[str]) -> None:
    with pytest.raises(AddressRefused) as caught:
        decide(addresses)
    assert not any(address in caught.value.detail for address in addresses)


NETWORKS = [network for network, _ in SPECIAL]
NETWORKS_4 = [network for network in NETWORKS if network.version == 4]
INSIDE = st.sampled_from(NETWORKS).flatmap(lambda network: st.ip_addresses(network=network))
LOCAL_4 = (
    st.sampled_from(NETWORKS_4)
    .flatmap(lambda network: st.ip_addresses(network=network))
    .map(lambda address: IPv4Address(int(address)))
)
LOCAL_OR_PUBLIC_4 = st.one_of(LOCAL_4, st.builds(IPv4Address, st.integers(0, 2**32 - 1)))


@given(address=INSIDE)
def test_no_address_of_a_network_that_is_written_down_is_public(
    address: IPv4Address | IPv6Address,
) -> None:
    assert refusal(str(address)) is not None
    assert refusal(address.exploded) is not None


@given(address=st.one_of(st.ip_addresses(), st.builds(IPv6Address, st.integers(0, 2**128 - 1))))
def test_what_python_holds_for_local_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert refusal(str(address)) is not None
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        assert refusal(str(address)) is not None


def digits(value: int, base: str, zeros: int, *, upper: bool) -> str:
    text = {"8": f"{value:o}", "10": f"{value}", "16": f"{value:x}"}[base]
    text = {"8": "0", "10": "", "16": "0x"}[base] + ("0" * zeros if base != "10" else "") + text
    return text.upper() if upper else text


@st.composite
def spellings(draw: st.DrawFn, address: IPv4Address) -> str:
    """One of those that inet_aton(3) reads: one to four numbers, each in a base of its own."""
    count = draw(st.integers(1, 4))
    packed = address.packed
    values = [*packed[: count - 1], int.from_bytes(packed[count - 1 :], "big")]
    return ".".join(
        digits(
            value,
            draw(st.sampled_from(["8", "10", "16"])),
            draw(st.integers(0, 3)),
            upper=draw(st.booleans()),
        )
        for value in values
    )


@given(data=st.data(), address=LOCAL_4)
def test_no_spelling_of_a_local_address_is_gone_to(
    data: st.DataObject, address: IPv4Address
) -> None:
    host = data.draw(spellings(address))
    assert numeric(host)[:1] == [str(address)]
    for url in (f"http://{host}/", f"https://{host}:{PORT}/x?y#z"):
        with pytest.raises(AddressRefused):
            parse_target(url, PORTS)


@given(data=st.data(), address=st.sampled_from(PUBLIC_4).map(IPv4Address))
def test_a_public_address_has_one_spelling(data: st.DataObject, address: IPv4Address) -> None:
    host = data.draw(spellings(address))
    target = accepted(f"http://{host}/")
    assert (target is not None) == (host == str(address))
    assert target is None or target.host == host


# Where a mechanism of transition puts an IPv4 address, as a function of it and of 64 more bits.
EMBEDDINGS: dict[str, Callable[[int, int], int]] = {
    "compatible": lambda v4, _: v4,
    "mapped": lambda v4, _: 0xFFFF << 32 | v4,
    "translated": lambda v4, _: 0xFFFF << 48 | v4,
    "nat64": lambda v4, _: 0x64_FF9B << 96 | v4,
    "local nat64, /96": lambda v4, more: 0x64_FF9B_0001 << 80 | more >> 16 << 32 | v4,
    "local nat64, /48": lambda v4, _: 0x64_FF9B_0001 << 80 | v4 >> 16 << 64 | (v4 & 0xFFFF) << 40,
    "6to4": lambda v4, more: 0x2002 << 112 | v4 << 80 | more,
    "teredo server": lambda v4, more: 0x2001_0000 << 96 | v4 << 64 | more,
    "teredo client": lambda v4, more: 0x2001_0000 << 96 | more >> 32 << 32 | v4 ^ 0xFFFF_FFFF,
    "isatap": lambda v4, more: more << 64 | 0x0000_5EFE << 32 | v4,
    "isatap, universal": lambda v4, more: more << 64 | 0x0200_5EFE << 32 | v4,
    "isatap, global unicast": lambda v4, more: (more >> 3 | 1 << 61) << 64 | 0x0200_5EFE << 32 | v4,
}


@pytest.mark.parametrize("mechanism", EMBEDDINGS)
@given(v4=LOCAL_OR_PUBLIC_4, more=st.integers(0, 2**64 - 1))
@example(v4=IPv4Address("127.0.0.1"), more=0x2A00_1450_4001_0001)
@example(v4=IPv4Address("8.8.8.8"), more=0x2606_4700_0000_0000)
def test_an_address_that_holds_another_is_refused(
    mechanism: str, v4: IPv4Address, more: int
) -> None:
    whole = IPv6Address(EMBEDDINGS[mechanism](int(v4), more))
    dotted = f"{whole.exploded[:30]}{IPv4Address(whole.packed[12:])}"
    assert IPv6Address(dotted) == whole
    for spelt in (str(whole), whole.exploded, whole.exploded.upper(), dotted):
        assert refusal(spelt) is not None
        with pytest.raises(AddressRefused):
            parse_target(f"http://[{spelt}]/", PORTS)


HOSTS = st.one_of(
    st.text(st.sampled_from("0123456789abcfx.:"), min_size=1, max_size=12),
    st.from_regex(r"(?:(?:0x)?[0-9a-f]{1,4}\.){0,3}(?:0[xX])?[0-9a-f]{1,9}", fullmatch=True),
    st.from_regex(r"[0-9]{1,3}(?:[.\u3002\uff0e\uff61][0-9\uff10-\uff19]{1,3}){3}", fullmatch=True),
    st.from_regex(r"\[[0-9a-f:.%]{2,20}\]", fullmatch=True),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    LOCAL_4.flatmap(spellings),
    st.sampled_from(PUBLIC_4),
    st.sampled_from(PUBLIC_6).map(lambda address: f"[{address}]"),
    st.builds(
        lambda label, name: f"{label}.{name}",
        st.text(min_size=1, max_size=6),
        st.sampled_from(["example", "com", "xn--zckzah", "my_bucket.example"]),
    ),
)


@given(host=HOSTS)
@example(host="1.1.1.1")
@example(host="[2606:4700:4700::1111]")
@example(host="\uff11.1.1.1")
@example(host="1\u30021\u30021\u30021")
def test_getaddrinfo_reads_a_host_as_it_was_decided_on(host: str) -> None:
    bare = host.removeprefix("[").removesuffix("]")
    target = accepted(f"http://{host}/")
    if target is None:
        return
    literal = ":" in target.host or target.host.rpartition(".")[2][0].isdigit()
    read = {target.host} if literal else set()
    assert set(numeric(target.host)) == read
    assert set(numeric(bare)) == read
    assert all(refusal(address) is None for address in read)


@given(host=HOSTS)
@example(host="127.1")
@example(host="\u2460\u2461\u2466.0.0.1")
@example(host="127\u30020\u30020\u30021")
@example(host="[::1%1]")
def test_what_getaddrinfo_reads_as_a_local_address_is_not_gone_to(host: str) -> None:
    read = numeric(host.removeprefix("[").removesuffix("]"))
    if any(refusal(address) is not None for address in read):
        assert accepted(f"http://{host}/") is None
        assert accepted(f"https://{host}:{PORT}/") is None


REST = st.text(st.sampled_from("/?#:@%[]\\;&=.~!$'()*+,-_a1\u00e9{}|^`\"<> \t"), max_size=12)
URLS = st.one_of(
    st.builds(
        lambda scheme, host, port, rest: f"{scheme}://{host}{port}{rest}",
        st.sampled_from(["http", "https", "HTTP", "hTTps"]),
        HOSTS,
        st.sampled_from(["", ":80", ":443", f":{PORT}", ":", ":0", ":080"]),
        st.one_of(REST, REST.map(lambda rest: f"/{rest}")),
    ),
    st.builds(
        lambda whole, place, text: whole[:place] + text + whole[place:],
        st.sampled_from([url for url, *_ in GOOD_URLS]),
        st.integers(0, 40),
        REST,
    ),
    st.text(max_size=30).map(lambda text: f"http://{text}"),
)


@given(url=URLS)
@example(url="http://a.example?@b.example")
@example(url="http://a.example#@b.example")
@example(url="http://a.example\\@b.example")
@example(url="http://a.example:80@b.example")
@example(url="http://xn--bcher-kva.a_b.example")
def test_other_parsers_read_the_same(url: str) -> None:
    target = accepted(url)
    if target is None:
        return
    assert target.url.isascii()
    assert target.url.isprintable()
    split = urlsplit(target.url)
    assert (split.scheme, split.hostname) == (target.scheme, target.host)
    assert (split.username, split.password, split.fragment) == (None, None, "")
    assert (split.port or DEFAULT_PORTS[split.scheme]) == target.port
    for text in (url, target.url):
        other = httpx2.URL(text)
        host = other.raw_host.decode("ascii")
        assert (str(IPv6Address(host)) if ":" in host else host) == target.host
        assert (other.port or DEFAULT_PORTS[other.scheme]) == target.port
        assert other.userinfo == b""
    assert str(httpx2.URL(target.url)) == target.url
    assert httpx2.URL(target.url).host
    assert parse_target(target.url, PORTS) == target


@given(text=st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.example/{text}", f"http://{text}.example/"):
        target = accepted(url)
        assert target is None or target.port in PORTS
    assert refusal(text) is not None or ip_address(text).is_global
