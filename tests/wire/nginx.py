"""A real nginx on a free port, as the user who runs the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.waiting import wait_until

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
WITHOUT_NGINX = pytest.mark.skipif(NGINX is None, reason="there is no nginx binary")
NEEDED = (pytest.mark.nginx, WITHOUT_NGINX)
START_SECONDS = 20
EXAMPLE = Path(__file__).parents[2] / "docs" / "nginx.conf"

# One process: a master would be root and its worker somebody else, who cannot enter the folder.
AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
PLAIN = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {base};
            proxy_http_version 1.0;
        }}
    }}
"""


@contextmanager
def running_nginx(folder: Path, port: int, servers: str) -> Iterator[str]:
    """nginx with these server blocks; gives the address of ``port``."""
    assert NGINX is not None
    folder.mkdir(parents=True, exist_ok=True)
    configuration, log = folder / "nginx.conf", folder / "error.log"
    configuration.write_text(AROUND.format(folder=folder, servers=servers))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [NGINX, "-p", folder, "-e", log, "-c", configuration], stdout=output, stderr=output
        )
    try:
        wait_until(lambda: _listens(process, port, log), within=START_SECONDS, what="nginx listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def plain_nginx(folder: Path, base: str) -> Iterator[str]:
    """nginx as somebody writes it who knows nothing of Tailrace: HTTP/1.0, and buffers."""
    port = free_port()
    servers = PLAIN.format(port=port, base=base)
    with running_nginx(folder, port, servers) as found:
        yield found


def example_nginx(folder: Path, base: str) -> Iterator[str]:
    """nginx with docs/nginx.conf as it stands, but for its two addresses."""
    port, text = free_port(), EXAMPLE.read_text()
    for written, real in (
        ("server 127.0.0.1:8000;", f"server {urlsplit(base).netloc};"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert text.count(written) == 1, f"{EXAMPLE} should say {written!r} once"
        text = text.replace(written, real)
    with running_nginx(folder, port, text) as found:
        yield found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"nginx ended: {log.read_text()[-3000:]}")
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0
