"""What the SDKs of the providers share: whether they are there, and how they connect."""

from __future__ import annotations

import importlib
import ssl

import httpx2

from service.download.network import Backend
from service.download.transport import Transport, no_cookies, trusting

SDKS = frozenset({"openai", "anthropic"})  # kinds of providers, and the packages that they need
MOST_CONNECTIONS = 100_000  # who asks has limits of its own
SENT = frozenset(
    {
        "accept",
        "accept-encoding",
        "anthropic-version",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)
CREDENTIALS = frozenset({"authorization", "x-api-key"})
NO_KEY = "none"  # the SDKs insist on one; it is never sent


def missing_sdk(kind: str) -> str | None:
    """Why providers of this kind cannot be used here; None if they can."""
    if kind not in SDKS:
        return None
    try:
        importlib.import_module(kind)
    except ImportError as error:
        return f"The package {kind} is needed: pip install 'tailrace[llm]' ({error})."
    return None


def http_client(key: str | None, trust: ssl.SSLContext | None) -> httpx2.AsyncClient:
    """Connections that nothing of the environment has a say in, without time-outs or cookies.

    ``trust`` None trusts the certificates of certifi.
    """

    async def keep_to_the_configuration(request: httpx2.Request) -> None:
        # The SDKs take fields, among them credentials, from the environment, which are meant for
        # their makers and not for the address that is configured. They also describe this machine.
        for name, value in list(request.headers.items()):
            own = name in CREDENTIALS and key is not None and key in value
            if name not in SENT and not own:
                del request.headers[name]

    return httpx2.AsyncClient(
        transport=Transport(
            Backend(), trust or trusting(None), max_connections=MOST_CONNECTIONS, http2=False
        ),
        trust_env=False,
        cookies=no_cookies(),
        headers={"Accept-Encoding": "identity"},  # who compresses small events holds them back
        timeout=None,
        event_hooks={"request": [keep_to_the_configuration]},
    )
