"""A service that relays one test upstream under many settings, and who stands around it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.relaying import relay_service
from tests.serving import Served
from tests.upstream import Canary, Upstream, canary, upstream

SECRET = "s3cret-of-the-upstream-7f1b"
MAX_LINE = 65_536


@dataclass(frozen=True, slots=True)
class Relays:
    """The service, the upstream of most sections, and one that some may be redirected to."""

    served: Served
    up: Upstream
    elsewhere: Upstream
    proxy: Canary


@contextmanager
def running_relays(folder: Path, url: str) -> Iterator[Relays]:
    with (
        upstream() as up,
        upstream() as elsewhere,
        canary() as proxy,
        socket.socket() as closed,
        pytest.MonkeyPatch.context() as patch,
    ):
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        patch.setenv("ARCHIVE_AUTHORIZATION", f"Bearer {SECRET}")
        # Not HTTP_PROXY, which the tests' own clients would heed.
        patch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        secret = f'headers = {{ Authorization = "env:ARCHIVE_AUTHORIZATION", X-Key = "{SECRET}" }}'
        sections = {
            "plain": "",
            "open": "unframed = true",
            "forwarding": 'forward = ["Authorization", "X-Tenant"]',
            "secret": f'{secret}\nforward = ["X-Tenant", "authorization"]\n'
            f'redirects = ["127.0.0.1:{elsewhere.port}"]\n',
            "away": f'{secret}\nbase_url = "http://127.0.0.1:{closed.getsockname()[1]}"',
            "daily": f'base_url = "{up.base}/below/"\npaths = ["daily/", "a%20b/"]',
            "getting": 'methods = ["GET"]',
            "heading": 'methods = ["HEAD"]',
        }
        with relay_service(
            folder,
            url,
            up.base,
            sections,
            limits__max_line=f"{MAX_LINE}B",
            log__level="debug",
        ) as served:
            yield Relays(served, up, elsewhere, proxy)
