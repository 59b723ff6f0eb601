"""What a setting of an upstream may be: addresses, paths, hosts, headers, each with its mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator

from service.values import MAX_PORT, Expected, absolute, spelled

_HOST = r"([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
_PATH = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"  # RFC 3986, section 3.3
_BASE_URL = re.compile(rf"(https?)://{_HOST}(/{_PATH}*)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OF_THE_CONNECTION = (  # RFC 9110, section 7.6.1; and what follows from the request alone
    "connection|content-length|expect|host|keep-alive|proxy-.*|range|if-.*|te|trailer"
    "|transfer-encoding|upgrade|via"
)


def parse_table(value: object) -> object:
    """A table as it is; a text, as an environment variable holds one, as a JSON object."""
    if not isinstance(value, str):
        return value
    try:
        table = json.loads(value)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ValueError("is not a JSON object")
    return table


def each_once(headers: Mapping[str, str]) -> Mapping[str, str]:
    """``headers``, unless two of their names differ only in case; then a ValueError."""
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("names a header twice")
    return headers


def http_url(text: str) -> str:
    """The address below which an upstream's files are; otherwise a ValueError.

    It ends in "/"; its host is in lower case and its port is left out if it is the default, as
    they are in most of the addresses that are to be told from it.
    """
    match = _BASE_URL.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not an http or https URL with a host, without user, query and '#'")
    scheme, host, port, path = match.groups(default="")
    _require_host(host, port)
    if _has_dots(path):
        raise ValueError("has '.' or '..' in its path")
    at = f":{int(port)}" if port and int(port) != _DEFAULT_PORTS[scheme] else ""
    return f"{scheme}://{host.lower()}{at}{path.rstrip('/')}/"


def host_name(text: str) -> str:
    """A host in lower case, a port behind it or not, "*." in front or not; or a ValueError."""
    match = re.fullmatch(_HOST, text.removeprefix("*."))
    if match is None or text != text.lower() or text.startswith("*.["):
        raise ValueError(
            "is not a host in lower case, such as 'cdn.example', '*.example' or 'cdn.example:8443'"
        )
    _require_host(*match.groups(default=""))
    return text


def path_prefix(text: str) -> str:
    """The beginning of a path below an upstream's address, as in a URL; otherwise a ValueError."""
    if not re.fullmatch(rf"(?!/){_PATH}+", text) or _has_dots(text):
        raise ValueError("is not the beginning of a path below base_url: no '/' in front, no '..'")
    return text


def _require_host(host: str, port: str) -> None:
    if port and not 1 <= int(port) <= MAX_PORT:
        raise ValueError("names a port that is none")
    if host.startswith("["):
        try:
            IPv6Address(host.strip("[]"))
        except ValueError:  # which quotes it
            raise ValueError("has no IPv6 address in its brackets") from None


def _has_dots(path: str) -> bool:
    return not {".", ".."}.isdisjoint(unquote(path).split("/"))


BaseUrl = Annotated[
    str, AfterValidator(http_url), Expected("a URL such as 'https://archive.example/exports/'")
]
PathPrefix = Annotated[str, AfterValidator(path_prefix)]
Method = Annotated[str, spelled("GET|HEAD", "is neither GET nor HEAD")]
HeaderName = Annotated[
    str,
    spelled(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "is not the name of a header"),
    spelled(rf"(?i)(?!(?:{_OF_THE_CONNECTION})$).*", "is a header that Tailrace sets by itself"),
]
HeaderValue = Annotated[
    str,
    spelled(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?", "is empty or not printable ASCII"),
    # What could not be replaced must not be sent as it stands.
    spelled(
        r"(?!(?:.*[\t ])?(?:env|file):).*",
        "names where a value is, in a place that is not looked up",
    ),
]
HostName = Annotated[str, AfterValidator(host_name)]
CaFile = Annotated[
    Annotated[Path, BeforeValidator(absolute)] | None, Expected("a file of certificates in PEM")
]
