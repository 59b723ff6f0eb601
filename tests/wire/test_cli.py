"""The commands as an operator runs them, each in a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from sqlalchemy.engine import make_url

from service import __version__
from service.embedded import EmbeddedPostgres
from tests.clients import ask, stalled
from tests.commands import launched, tailrace
from tests.postgres import Databases, fetch, run_sql
from tests.serving import Served, environment
from tests.waiting import wait_until

QUICKLY = 30.0  # seconds, on a machine that has other things to do
WITHIN = 60.0
CONFIG = """
[datasets.small]
sql = "select i as id from generate_series(1, 10) i"
[datasets.large]
sql = "select i as id, repeat('x', 1000) as pad from generate_series(1, 60000) i"
"""
MISTAKE = 2  # the exit code
FAILED_START = "the service ended"


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "tailrace.toml"
    file.write_text(CONFIG)
    return str(file)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A database without Tailrace's tables."""
    name = f"tailrace_empty_{uuid4().hex[:12]}"
    run_sql(databases.server_url, f"CREATE DATABASE {name}")
    yield databases.url(name)
    run_sql(databases.server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Whatever a test leaves running there is adopted and stopped."""
    path = tmp_path / "data"
    yield path
    if (path / "postgres" / "postmaster.pid").exists():
        with EmbeddedPostgres(path):
            pass


def refused(ended: subprocess.CompletedProcess[str]) -> str:
    """What a command that was told something wrong says: words, and no traceback."""
    assert ended.returncode == MISTAKE, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Tailrace serves on" not in ended.stdout
    return ended.stderr


def test_the_version_is_told_by_module_and_by_script() -> None:
    script = Path(sys.executable).with_name("tailrace")
    for command in ([sys.executable, "-m", "service"], [str(script)]):
        said = subprocess.run(
            [*command, "version"], capture_output=True, text=True, timeout=WITHIN, check=False
        )
        assert (said.returncode, said.stdout) == (0, f"{__version__}\n")


def test_help_lists_the_commands() -> None:
    said = tailrace("--help", environ=environment(None))
    assert said.returncode == 0
    for command in ("serve", "demo", "migrate", "check", "version"):
        assert command in said.stdout


def test_an_unknown_command_or_option_is_refused() -> None:
    for arguments in (("sirve",), ("serve", "--prot", "1")):
        said = tailrace(*arguments, environ=environment(None))
        assert said.returncode == MISTAKE
        assert arguments[-2:][0] in said.stderr


def test_check_explains_a_good_configuration_without_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "tailrace.toml"
    file.write_text(
        """
        [sources.main]
        url = "postgresql://reader:hunter2@db.example:5433/data"
        expose = ["public.*"]
        [datasets.flights]
        table = "public.flights"
        [upstreams.archive]
        base_url = "https://archive.example/exports"
        headers = { Authorization = "env:AUTHORIZATION", X-Key = "hunter2" }
        [llm.default]
        kind = "openai"
        api_key = "hunter2"
        model = "m"
        [llm.keyless]
        kind = "anthropic"
        model = "m"
        """
    )
    environ = environment(None) | {"AUTHORIZATION": "Bearer hunter2"}
    said = tailrace("check", "--config", str(file), environ=environ)
    assert said.returncode == 0
    assert "db.example:5433/data" in said.stdout
    assert "flights" in said.stdout
    assert "https://archive.example/exports/; sends Authorization, X-Key\n" in said.stdout
    assert "  default: openai, model m, with a key\n" in said.stdout
    lacking = "cannot be asked: It needs an api_key."
    assert f"  keyless: anthropic, model m, without a key; {lacking}\n" in said.stdout
    assert "hunter2" not in said.stdout + said.stderr


@pytest.mark.parametrize("command", ["check", "serve", "migrate", "demo"])
def test_every_mistake_is_told_with_its_line(tmp_path: Path, command: str) -> None:
    file = tmp_path / "tailrace.toml"
    file.write_text(
        '[limits]\nstall_timeout = "soon"\n[sources.main]\nlane = "fast"\n'
        '[datasets.a]\ntabel = "public.a"\n[server]\nport = 99999\n'
    )
    arguments = (command, "--config", str(file), "--data-dir", str(tmp_path / "data"))
    said = refused(tailrace(*arguments, environ=environment(None)))
    for line, name in ((2, "limits.stall_timeout"), (4, "sources.main.lane"), (8, "server.port")):
        assert f"{file}:{line}: {name}" in said
    assert f"{file}:6" in said
    assert "'table'" in said
    assert not (tmp_path / "data").exists()


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    said = refused(
        tailrace("check", "--config", str(tmp_path / "nothing.toml"), environ=environment(None))
    )
    assert "nothing.toml" in said
    said = refused(tailrace("check", environ=environment(None, limits__stall_timeout="soon")))
    assert "TAILRACE_LIMITS__STALL_TIMEOUT" in said


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 - refused
def test_others_are_not_let_in_by_accident(tmp_path: Path, command: str, host: str) -> None:
    arguments = (command, "--host", host, "--port", "0", "--data-dir", str(tmp_path / "data"))
    said = refused(tailrace(*arguments, environ=environment(None)))
    assert host in said
    assert "--allow-anonymous" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", "0.0.0.0", "--allow-anonymous"),  # noqa: S104 - what is tested
        ("--host", "127.0.0.2"),
        ("--host", "localhost"),
    ],
)
def test_loopback_or_a_clear_word_lets_in(
    tmp_path: Path, database_url: str, config: str, arguments: tuple[str, ...]
) -> None:
    fixed = ("serve", "--config", config, "--port", "0")
    with launched(tmp_path, *fixed, *arguments, environ=environment(database_url)) as found:
        wait_until(lambda: ready(found), within=WITHIN, what="it is ready")
        assert found.stop() == 0


def ready(served: Served) -> bool:
    try:
        return ask(served.base, "/readyz").status == 200
    except ConnectionError:
        return False


def test_a_taken_port_is_told(database_url: str, config: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ("serve", "--config", config, "--port", port)
        said = refused(tailrace(*arguments, environ=environment(database_url)))
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


def test_a_host_that_does_not_exist_is_told(database_url: str, config: str) -> None:
    arguments = ("serve", "--config", config, "--host", "nothing.invalid", "--allow-anonymous")
    assert "nothing.invalid" in refused(tailrace(*arguments, environ=environment(database_url)))


def test_a_configured_database_is_migrated_only_when_asked(
    tmp_path: Path, empty_database_url: str, config: str
) -> None:
    environ = environment(empty_database_url)
    arguments = ("serve", "--config", config, "--port", "0")
    assert "tailrace migrate" in refused(tailrace(*arguments, environ=environ))
    query = "SELECT count(*) FROM pg_namespace WHERE nspname = 'tailrace'"
    assert fetch(empty_database_url, query)[0][0] == 0
    for _ in range(2):
        said = tailrace("migrate", "--config", config, environ=environ)
        assert (said.returncode, said.stdout) == (0, "The schema is at head.\n")
    with launched(tmp_path, *arguments, environ=environ) as found:
        wait_until(lambda: ready(found), within=WITHIN, what="it is ready")
        assert ask(found.base, "/v1/rows/small.csv").status == 200


def test_a_database_of_a_newer_tailrace_is_left_alone(database_url: str, config: str) -> None:
    run_sql(database_url, "UPDATE tailrace.alembic_version SET version_num = '9999'")
    environ = environment(database_url)
    assert "tailrace migrate" in refused(tailrace("serve", "--config", config, environ=environ))
    assert "newer" in refused(tailrace("migrate", "--config", config, environ=environ))
    version = fetch(database_url, "SELECT version_num FROM tailrace.alembic_version")[0][0]
    assert version == "9999"


def _wrong(databases: Databases) -> dict[str, str]:
    server = make_url(databases.server_url)
    missing = server.set(database=f"nothing_{uuid4().hex}")
    return {
        "a closed port": "postgresql://somebody:hunter2@127.0.0.1:1/tailrace",
        "a missing database": missing.render_as_string(hide_password=False),
        "a missing socket": "postgresql://somebody@/tailrace?host=/nothing/here",
        "an unknown host": "postgresql://somebody:hunter2@nothing.invalid/tailrace",
    }


@pytest.mark.parametrize(
    "mistake", ["a closed port", "a missing database", "a missing socket", "an unknown host"]
)
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_wrong_database_is_never_replaced_by_the_embedded_one(
    tmp_path: Path, databases: Databases, command: str, mistake: str
) -> None:
    environ = environment(_wrong(databases)[mistake]) | {"XDG_DATA_HOME": str(tmp_path / "home")}
    for arguments in ((command,), (command, "--data-dir", str(tmp_path / "data"))):
        ended = tailrace(*arguments, environ=environ, within=QUICKLY)
        said = refused(ended)
        assert "database" in said
        assert "hunter2" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_reference_to_nothing_is_not_the_embedded_database(tmp_path: Path) -> None:
    file = tmp_path / "tailrace.toml"
    file.write_text('[database]\nurl = "env:DATABASE_URL_THAT_IS_NOT_SET"\n')
    arguments = ("serve", "--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert "DATABASE_URL_THAT_IS_NOT_SET" in refused(
        tailrace(*arguments, environ=environment(None))
    )
    assert not (tmp_path / "data").exists()


def test_the_demo_does_not_fill_a_configured_database(tmp_path: Path, database_url: str) -> None:
    arguments = ("demo", "--port", "0", "--data-dir", str(tmp_path / "data"))
    said = refused(tailrace(*arguments, environ=environment(database_url)))
    assert "embedded" in said
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert fetch(database_url, tables)[0][0] == 0
    assert not (tmp_path / "data").exists()


class Processes:
    """The processes that serve and the worker, children of one that only watches them."""

    def __init__(self, served: Served) -> None:
        self._parent = psutil.Process(served.process.pid)

    def serving(self) -> set[int]:
        """Those that listen."""
        return {child.pid for child in self._children() if _listens(child)}

    def everyone(self) -> set[int]:
        return {child.pid for child in self._children()}

    def _children(self) -> list[psutil.Process]:
        """Of multiprocessing's own helper and of processes that have ended: nothing."""
        return [
            child
            for child in self._parent.children()
            if "spawn_main" in " ".join(_line(child)) and "resource_tracker" not in _line(child)
        ]


def _listens(process: psutil.Process) -> bool:
    try:
        return any(one.status == psutil.CONN_LISTEN for one in process.net_connections("inet"))
    except psutil.Error:
        return False


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def two_processes(tmp_path: Path, database_url: str, config: str) -> Iterator[Served]:
    arguments = ("serve", "--config", config, "--port", "0", "--processes", "2")
    with launched(tmp_path, *arguments, environ=environment(database_url)) as found:
        wait_until(lambda: ready(found), within=WITHIN, what="one is ready")
        yield found


def gone(pids: set[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_two_processes_serve_and_a_killed_one_is_replaced(two_processes: Served) -> None:
    processes = Processes(two_processes)
    wait_until(lambda: len(processes.serving()) == 2, within=WITHIN, what="both listen")
    before = processes.serving()
    victim = min(before)
    psutil.Process(victim).kill()
    wait_until(
        lambda: len(processes.serving() - {victim}) == 2, within=WITHIN, what="a replacement"
    )
    (told,) = two_processes.events("process ended")
    assert told["exitcode"] == -signal.SIGKILL
    for pid in before - {victim}:
        psutil.Process(pid).suspend()  # only the new one can answer now
    wait_until(lambda: _answers(two_processes), within=WITHIN, what="the new one answers")
    for pid in before - {victim}:
        psutil.Process(pid).resume()
    everyone = processes.everyone()
    assert len(everyone) == 3
    assert two_processes.stop() == 0
    assert gone(everyone)


def _answers(served: Served) -> bool:
    """One of several tries: the connection may wait in the queue of a process that is halted."""
    command = ["curl", "-sSf", "-m", "1", "-o", "/dev/null", f"{served.base}/v1/rows/small.csv"]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_sigterm_lets_the_streams_of_every_process_end(two_processes: Served) -> None:
    everyone = Processes(two_processes).everyone()
    with ExitStack() as streams:
        opened = [
            streams.enter_context(stalled(two_processes.base, "/v1/rows/large.ndjson?end=1"))
            for _ in range(4)
        ]
        two_processes.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _answers(two_processes), within=WITHIN, what="it takes no more")
        for response in opened:
            end = json.loads(response.read().splitlines()[-1])["_end"]
            assert (end["status"], end["rows"]) == ("complete", 60_000)
    assert two_processes.process.wait(WITHIN) == 0
    assert gone(everyone)


def test_a_killed_parent_leaves_nobody_behind(two_processes: Served) -> None:
    """Orphans would hold the port, and the next start would find it taken."""
    everyone = Processes(two_processes).everyone()
    assert len(everyone) == 3
    two_processes.process.kill()
    two_processes.process.wait(WITHIN)
    wait_until(lambda: gone(everyone), within=WITHIN, what="the children have ended")


@pytest.mark.slow
def test_the_embedded_database_outlives_a_killed_service(
    tmp_path: Path, data_dir: Path, config: str
) -> None:
    arguments = ("serve", "--config", config, "--data-dir", str(data_dir), "--port", "0")
    environ = environment(None)
    with launched(tmp_path / "first", *arguments, environ=environ) as first:
        wait_until(lambda: ready(first), within=WITHIN, what="the first is ready")
        export_id = ask(first.base, "/v1/rows/small.csv").export_id
        receipt = ask(first.base, f"/v1/exports/{export_id}/receipt").json()
        second = tailrace(*arguments, environ=environ)
        said = refused(second)
        assert str(data_dir) in said
        assert str(first.process.pid) in said
        assert ask(first.base, "/readyz").status == 200
        wait_until(
            lambda: not first.events("records not written"), within=WITHIN, what="no failure"
        )
        with stalled(first.base, "/v1/rows/large.csv") as cut:
            cut_id = str(cut.headers["X-Export-Id"])
            wait_until(
                lambda: cut_id in str(ask(first.base, "/v1/exports?state=running").body),
                within=WITHIN,
                what="the running record is written",
            )
            first.process.kill()
            first.process.wait(WITHIN)
    with launched(tmp_path / "again", *arguments, environ=environ) as again:
        wait_until(lambda: ready(again), within=WITHIN, what="it is ready again")
        assert ask(again.base, f"/v1/exports/{export_id}/receipt").json() == receipt
        assert ask(again.base, f"/v1/exports/{cut_id}").json()["state"] == "running"
        assert ask(again.base, f"/v1/exports/{cut_id}/receipt").status == 404
        assert ask(again.base, "/v1/rows/small.csv").status == 200
        assert again.stop() == 0
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
