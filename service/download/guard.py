"""Where a free relay may go: which URLs, which names, which addresses. Pure.

A URL is invalid wherever two parsers could read it differently, and ``Target.url`` is built anew
from what was read here: the host that is decided on is the very one that is connected to. A name
is decided on twice: as a name, and once it is resolved by ``decide``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from socket import inet_aton
from string import ascii_lowercase, ascii_uppercase
from urllib.parse import quote

import idna

from service.errors import AddressRefused, InvalidParameter
from service.grammar.scanner import mistake

MAX_URL = 8_000  # characters, as asked for and as normalised
MAX_PORT = 65_535
DEFAULT_PORTS = {"http": 80, "https": 443}

# What parsers strip, split at or take for a slash; surrogates have no UTF-8 to be escaped as.
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\s\\\ud800-\udfff]|%(?![0-9A-Fa-f]{2})")
URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.ASCII | re.IGNORECASE)
DOTS = re.compile(r"/(?:\.|%2e){1,2}(?![^/])", re.IGNORECASE)
AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::(.*))?")
PORT = re.compile(r"[1-9][0-9]{0,4}")
BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\]")
LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
NAME = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(?:\.{LABEL})*")
SAFE = "%/?:@!$&'()*+,;=[]"  # RFC 3986, sections 3.3 and 3.4, and brackets, as most clients do
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # str.lower() makes a k of the Kelvin sign

# Names of the machine and of the networks around it. Their addresses are decided on as well, but
# no public site has such a name, and a resolver that is asked for it may tell others.
LOCAL = (
    *("localhost", "localdomain", "localdomain4", "localdomain6"),  # RFC 6761, section 6.3
    *("local", "intranet", "internal", "private", "corp", "home", "lan"),  # RFC 6762, appendix G
    "home.arpa",  # RFC 8375
    "onion",  # RFC 7686: never to be looked up
    "metadata.goog",  # Google's metadata server
)

GLOBAL_UNICAST = IPv6Network("2000::/3")  # IANA gives out no others (RFC 4291, section 2.4)

ISATAP = 0x0000_5EFE  # what is before the IPv4 address in an interface identifier (RFC 5214)
ISATAP_MASK = 0xFCFF_FFFF  # without the bits u and g

# Written down, since Python's tables differ between versions. An IPv6 address that holds an IPv4
# one is refused whatever that is: who translates or tunnels it, and to where, is not known here.
SPECIAL = tuple(
    (ip_network(network), meaning)
    for network, meaning in (
        ("0.0.0.0/8", "this network (RFC 1122)"),
        ("10.0.0.0/8", "private networks (RFC 1918)"),
        ("100.64.0.0/10", "carriers' address translation (RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("168.63.129.16/32", "the platform of Azure (WireServer)"),
        ("169.254.0.0/16", "link-local, with the metadata of clouds (RFC 3927)"),
        ("172.16.0.0/12", "private networks (RFC 1918)"),
        ("192.0.0.0/24", "protocol assignments (RFC 6890)"),
        ("192.0.2.0/24", "documentation (RFC 5737)"),
        ("192.88.99.0/24", "6to4 relays (RFC 7526)"),
        ("192.168.0.0/16", "private networks (RFC 1918)"),
        ("198.18.0.0/15", "benchmarking (RFC 2544)"),
        ("198.51.100.0/24", "documentation (RFC 5737)"),
        ("203.0.113.0/24", "documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 1112)"),
        ("240.0.0.0/4", "reserved, with the broadcast address (RFC 1112, RFC 919)"),
        ("::/128", "unspecified (RFC 4291)"),
        ("::1/128", "loopback (RFC 4291)"),
        ("::/96", "IPv4-compatible (RFC 4291)"),
        ("::ffff:0:0/96", "IPv4-mapped (RFC 4291)"),
        ("::ffff:0:0:0/96", "IPv4-translated (RFC 2765)"),
        ("64:ff9b::/96", "NAT64 (RFC 6052)"),
        ("64:ff9b:1::/48", "local NAT64 (RFC 8215)"),
        ("100::/64", "discarded (RFC 6666)"),
        ("100:0:0:1::/64", "dummies (RFC 9780)"),
        ("200::/7", "NSAP (RFC 4048)"),
        ("2001::/32", "Teredo (RFC 4380)"),
        ("2001:2::/48", "benchmarking (RFC 5180)"),
        ("2001:10::/28", "ORCHID (RFC 4843)"),
        ("2001:20::/28", "ORCHID version 2 (RFC 7343)"),
        ("2001:30::/28", "DRIP (RFC 9374)"),
        ("2001::/23", "protocol assignments (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("2002::/16", "6to4 (RFC 3056)"),
        ("3ffe::/16", "the former 6bone (RFC 3701)"),
        ("3fff::/20", "documentation (RFC 9637)"),
        ("5f00::/16", "SRv6 (RFC 9602)"),
        ("fc00::/7", "unique local (RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291)"),
        ("fec0::/10", "site-local (RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291)"),
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL names: ``host`` is in lower case, a name in A-labels or an address, no brackets.

    ``url`` is what to ask for: ASCII, without a fragment, the port only where it is no default.
    """

    scheme: str
    host: str
    port: int
    url: str


def parse_target(url: str, ports: Collection[int]) -> Target:
    """What to ask for. Raises InvalidParameter, or AddressRefused for what may not be gone to.

    A name is held against LOCAL here, and may still have addresses that are not public.
    """
    scheme, authority, path, query = _parts(url)
    host, port = _host_and_port(authority, DEFAULT_PORTS[scheme])
    if port not in ports:
        raise AddressRefused(f"url: port {port} is not one that a relay may go to.")
    shown = f"[{host}]" if ":" in host else host
    if port != DEFAULT_PORTS[scheme]:
        shown = f"{shown}:{port}"
    normal = f"{scheme}://{shown}{quote(path, SAFE)}{quote(query, SAFE)}"
    _demand_short(normal)
    return Target(scheme, host, port, normal)


def decide(addresses: Sequence[str]) -> tuple[str, ...]:
    """What may be connected to of a name's ``addresses``, in their order, without duplicates.

    Raises AddressRefused where there is none and where any is not public: a name that also points
    inside is refused as a whole. The error does not tell the address, which the caller may not
    know; ``refusal`` does.
    """
    if not addresses:
        raise AddressRefused("url: the host has no address.")
    if any(refusal(address) is not None for address in addresses):
        raise AddressRefused("url: the host has an address that is not public.")
    return tuple(dict.fromkeys(str(ip_address(address)) for address in addresses))


def refusal(address: str) -> str | None:
    """Why ``address``, as getaddrinfo gives it, is not public; None if it is.

    The words follow the address in a sentence. Public is what IANA's special-purpose registries
    (RFC 6890) do not hold, and of IPv6 only global unicast.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return "is no IP address"
    for network, meaning in SPECIAL:
        if ip in network:
            return f"is in {network}: {meaning}"
    if isinstance(ip, IPv6Address) and (why := _refusal6(ip)) is not None:
        return why
    return None if ip.is_global else "is not globally reachable"


def _refusal6(ip: IPv6Address) -> str | None:
    if ip.scope_id is not None:
        return "has a zone: it is of one network alone (RFC 4007)"
    if ip not in GLOBAL_UNICAST:
        return f"is not in {GLOBAL_UNICAST}: not given out (RFC 4291)"
    if int(ip) >> 32 & ISATAP_MASK == ISATAP:
        return "holds an IPv4 address: ISATAP (RFC 5214)"
    return None


def _parts(url: str) -> tuple[str, str, str, str]:
    """Scheme, authority, path and query, the latter with its question mark."""
    _demand_short(url)
    if (forbidden := FORBIDDEN.search(url)) is not None:
        place = forbidden.start() + 1
        raise mistake("url", f"{forbidden[0]!r} has to be percent-encoded", place)
    found = URL.fullmatch(url)
    if found is None:
        raise _mistake("it has to begin with http:// or https:// and a host")
    scheme, authority, path, query = found.groups()
    # Also behind a "?" or "#" that follows the host: some take what is before it for credentials.
    if "@" in url[found.start(2) :].partition("/")[0]:
        raise _mistake("credentials are not taken, nor any @ before the path")
    if DOTS.search(path):
        raise _mistake("the path must not hold the segments '.' and '..'")
    return scheme.lower(), authority, path or "/", query or ""


def _host_and_port(authority: str, default: int) -> tuple[str, int]:
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        raise _mistake("an IPv6 address, and nothing else, stands in brackets")
    host, port = found.groups(default=str(default))
    if PORT.fullmatch(port) is None or int(port) > MAX_PORT:
        raise _mistake(f"a port is a number from 1 to {MAX_PORT}, without zeros before it")
    return _bracketed(host) if host.startswith("[") else _host(host), int(port)


def _bracketed(text: str) -> str:
    """The IPv6 address in brackets, as RFC 5952 writes it; zones (RFC 6874) are not taken."""
    found = BRACKETED.fullmatch(text)
    try:
        address = str(IPv6Address(found[1] if found else ""))
    except ValueError as error:
        raise _mistake(f"{text!r} is no IPv6 address") from error
    return _public(address)


def _host(text: str) -> str:
    name = _name(text)
    last = name.rpartition(".")[2]
    if last[0].isdigit():  # no top-level domain is one; every spelling of an address is
        return _dotted(name)
    if last == name or any(f".{name}".endswith(f".{local}") for local in LOCAL):
        raise AddressRefused(f"url: {name} is a name of the local machine or network.")
    return name


def _dotted(name: str) -> str:
    """The IPv4 address, which only four decimal numbers spell alike for everybody.

    The C library also reads octal, hexadecimal and fewer numbers (inet_aton(3)).
    """
    try:
        address = str(IPv4Address(inet_aton(name)))
    except OSError as error:
        raise _mistake(f"{name} ends in a number and is no IPv4 address") from error
    if _public(address) != name:
        raise _mistake(f"{name} has to be written as {address}")
    return address


def _name(text: str) -> str:
    """The name as DNS has it: IDNA 2008 (RFC 5891), which maps nothing, dots and digits included.

    All of a name with an A-label is held against it, so that every client can read it back.
    """
    name = text.translate(LOWER)
    if not name.isascii() or "xn--" in name:
        try:
            name = idna.encode(name, strict=True).decode("ascii")
        except ValueError as error:
            raise _mistake(f"{text[:100]!r} is no internationalised name") from error
    if NAME.fullmatch(name) is None:
        raise _mistake(f"{text[:100]!r} is no host")
    return name


def _public(address: str) -> str:
    if (why := refusal(address)) is not None:
        raise AddressRefused(f"url: {address} {why}.")
    return address


def _demand_short(url: str) -> None:
    if len(url) > MAX_URL:
        raise _mistake(f"it may have {MAX_URL:,} characters, and has {len(url):,}")


def _mistake(message: str) -> InvalidParameter:
    return InvalidParameter("url", f"url: {message}.")
