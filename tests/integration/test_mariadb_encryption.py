"""TLS to MariaDB: what the parameters of a URL ask for is had, or there is no connection."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import SourceUnavailable
from tests.mariadb import MISSING, found, open_source, running

CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"


def certificate(folder: Path, name: str) -> Path:
    """A certificate for this machine, with its key beside it."""
    path = folder / f"{name}.pem"
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    names = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(path.with_suffix(".key")), "-out", str(path))
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    path.with_suffix(".key").chmod(0o644)  # the server has another user
    return path


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    # Not pytest's own folder, into which the server's user cannot look.
    made = Path(tempfile.mkdtemp(prefix="tailrace-certificates-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    program = found("mariadbd")
    if program is None:
        pytest.skip(MISSING)
    path = certificate(folder, "server")
    certificate(folder, "other")
    options = (f"--ssl-cert={path}", f"--ssl-key={path.with_suffix('.key')}")
    with running(program, *options) as url:
        yield url


async def cipher(url: str) -> str:
    async with open_source(url) as source:
        await source.ping()
        async with source.engine.connect() as connection:
            return str((await connection.exec_driver_sql(CIPHER)).one().Value)


async def test_nothing_is_encrypted_unless_it_is_asked_for(server: str) -> None:
    assert await cipher(server) == ""


async def test_encryption_alone(server: str) -> None:
    assert await cipher(f"{server}?ssl=true") != ""


async def test_a_certificate_that_is_known(server: str, folder: Path) -> None:
    assert await cipher(f"{server}?ssl_ca={folder / 'server.pem'}") != ""


async def test_a_certificate_that_is_not_known(server: str, folder: Path) -> None:
    with pytest.raises(SourceUnavailable):
        await cipher(f"{server}?ssl_ca={folder / 'other.pem'}")


async def test_a_server_without_encryption(mariadb_url: str) -> None:
    with pytest.raises(SourceUnavailable):
        await cipher(f"{mariadb_url}?ssl=true")
