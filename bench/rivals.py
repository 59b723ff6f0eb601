"""Other people's servers, as they come: data7, Datasette, nginx, and the tutorial's application."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy.engine import make_url

from bench.environment import Unavailable, installed
from bench.service_under_test import Bench
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
START_SECONDS = 180  # data7 runs each query once before it listens

DATA7_SETTINGS = """
global:
  datasets_root_url: "/d"
  db_pool_check: true
  db_pool_recycle: 3600
  db_pool_size: 5
  db_pool_max_overflow: 10
  chunk_size: 5000
  schema_sniffer_size: 1000
  default_dtype_backend: pyarrow
  profiler_interval: 0.001
  profiler_async_mode: enabled
production:
  execution_environment: production
  debug: false
  sentry_dsn: null
  profiling: false
"""
DATA7_DATASETS = """
production:
  datasets:
    - basename: flights
      query: "SELECT * FROM flights"
"""

NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")  # where Debian puts it
NCHAN = """
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location = /events {{ nchan_subscriber eventsource; nchan_channel_id bench; }}
        location = /publish {{ nchan_publisher http; nchan_channel_id bench; }}
    }}
"""
FILES = """
    sendfile on;
    tcp_nopush on;
    server {{ listen 127.0.0.1:{port}; root {folder}; }}
"""
PROXY = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_max_temp_file_size 0;
        }}
    }}
"""
NGINX = """
{modules}
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {home}/pid;
events {{ worker_connections 15000; }}
http {{
    access_log off;
    client_body_temp_path {home}/client;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {servers}
}}
"""


@dataclass(frozen=True, slots=True)
class Nchan:
    """``base`` has /events to read and /publish to POST to; ``worker`` is the process id."""

    base: str
    worker: int


@contextmanager
def data7(bench: Bench) -> Iterator[str]:
    """data7 with its own defaults, over psycopg: the address of its folder of datasets."""
    home = bench.folder / "data7"
    program = installed(bench.folder, "data7") / "data7"
    url = make_url(bench.url).set(drivername="postgresql+psycopg")
    secret = f'production:\n  DATABASE_URL: "{url.render_as_string(hide_password=False)}"\n'
    (home / "settings.yaml").write_text(DATA7_SETTINGS)
    (home / "data7.yaml").write_text(DATA7_DATASETS)
    (home / ".secrets.yaml").write_text(secret)
    port = _free_port()
    arguments = ["run", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    with _started([program, *arguments], port, home, {"ENV_FOR_DYNACONF": "production"}):
        yield f"http://127.0.0.1:{port}/d"


@contextmanager
def datasette(bench: Bench, file: Path) -> Iterator[str]:
    """Datasette over ``file``, opened as immutable; larger pages than its thousand rows gain nothing."""
    home = bench.folder / "datasette"
    program = installed(bench.folder, "datasette") / "datasette"
    port = _free_port()
    arguments = ["serve", "--immutable", str(file.absolute()), "--port", str(port)]
    for name, value in (("max_csv_mb", "0"), ("sql_time_limit_ms", "60000")):
        arguments += ["--setting", name, value]
    with _started([program, *arguments], port, home, {}):
        yield f"http://127.0.0.1:{port}/{file.stem}"


@contextmanager
def nchan(bench: Bench) -> Iterator[Nchan]:
    """nginx with the module nchan, one worker process."""
    if not NCHAN_MODULE.exists():
        raise Unavailable("nginx's module nchan is not installed")
    port = _free_port()
    module = f"load_module {NCHAN_MODULE};"
    with _nginx(bench, "nchan", port, NCHAN.format(port=port), module) as process:
        master = psutil.Process(process.pid)
        wait_until(master.children, within=START_SECONDS, what="nginx has its worker")
        yield Nchan(f"http://127.0.0.1:{port}", master.children()[0].pid)


@contextmanager
def file_server(bench: Bench, folder: Path) -> Iterator[str]:
    """nginx that sends the files of ``folder`` with sendfile, one worker process."""
    port = _free_port()
    with _nginx(bench, "nginx-files", port, FILES.format(port=port, folder=folder)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def proxy(bench: Bench, upstream: str) -> Iterator[str]:
    """nginx that passes everything on to ``upstream``, buffered in memory alone."""
    port = _free_port()
    with _nginx(bench, "nginx-proxy", port, PROXY.format(port=port, upstream=upstream)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _nginx(
    bench: Bench, name: str, port: int, servers: str, modules: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Unavailable("nginx is not installed")
    home = bench.folder / name
    home.mkdir(exist_ok=True)
    # As root, the worker would else be an account that cannot enter this folder.
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX.format(modules=modules, user=user, home=home, servers=servers)
    (home / "nginx.conf").write_text(text)
    arguments = (program, "-p", home, "-e", "stderr", "-c", home / "nginx.conf")
    with _started(arguments, port, home, {}) as process:
        yield process


@contextmanager
def tutorial(bench: Bench) -> Iterator[str]:
    """``bench.tutorial`` over the same PostgreSQL."""
    port = _free_port()
    home = bench.folder / "tutorial"
    home.mkdir(exist_ok=True)
    arguments = [sys.executable, "-m", "bench.tutorial", bench.url, str(port)]
    with _started(arguments, port, home, {"PYTHONPATH": str(ROOT)}):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _started(
    arguments: Sequence[str | Path], port: int, home: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            arguments, cwd=home, env={**os.environ, **variables}, stdout=out, stderr=out
        )

    def listens() -> bool:
        if process.poll() is not None:
            raise Unavailable(f"it ended at once, see {log}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, within=START_SECONDS, what=f"{home.name} listens")
        yield process
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
