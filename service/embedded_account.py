"""Whom the embedded PostgreSQL's processes run as, and what that account may reach.

PostgreSQL refuses to run as root (initdb(1), postgres(1)). An ordinary process runs it as
itself. A process of root runs it as the system account ``tailrace-postgres``, which is made
with useradd(8) when it is missing, and gives that account exactly this:

- the cluster, the socket folder and the server's log become its own, with mode 0700 or 0600;
- every folder above them, and above PostgreSQL's binaries, gets ``o+x`` where it lacks it:
  others may then pass *through* that folder to names they know, but neither list nor write it.
  The server opens files by their full path and dies when that is taken away while it runs.
  A data directory is therefore 0711 under root and 0700 otherwise.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import ConfigurationError

ACCOUNT = "tailrace-postgres"
# cron and minimal containers have a PATH without the administrator's folders
ATTEMPTS, ATTEMPT_INTERVAL = 5, 0.2  # seconds
ADMINISTRATION = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group of the server's processes; ``foreign`` when they are not our own."""

    uid: int
    gid: int
    foreign: bool

    def run(
        self, command: Sequence[str | Path], *, timeout: float, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` as this account with ``text`` as its input; at most ``timeout`` seconds.

        Neither our working directory nor our ``PG…`` variables reach it. Raises
        ConfigurationError when it cannot be started or does not end in time.
        """
        try:
            return subprocess.run(
                [os.fspath(part) for part in command],
                input=text,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                umask=0o077,
                user=self.uid if self.foreign else None,
                group=self.gid if self.foreign else None,
                extra_groups=[] if self.foreign else None,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigurationError(f"Cannot run {command[0]}: {error}.") from error

    def folder(self, path: Path) -> None:
        """Make ``path`` a private folder (0700) of this account, or verify that it is one.

        Raises ConfigurationError for a link, anything but a folder, or a folder of others.
        """
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise ConfigurationError(f"{path} is not a private folder: {error}.") from error
        try:
            if os.fstat(descriptor).st_uid not in (os.geteuid(), self.uid):
                raise ConfigurationError(f"{path} belongs to another user: remove it.")
            self._own(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def file(self, path: Path) -> None:
        """Make ``path`` an empty private file (0600) of this account, unless it exists."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            self._own(descriptor, 0o600)
        finally:
            os.close(descriptor)

    def open_way_to(self, path: Path) -> None:
        """Let a foreign account pass through the folders above ``path`` (``o+x``, see above)."""
        if not self.foreign:
            return
        for parent in path.resolve().parents:
            mode = stat.S_IMODE(parent.stat().st_mode)
            if not mode & stat.S_IXOTH:
                parent.chmod(mode | stat.S_IXOTH)

    def _own(self, descriptor: int, mode: int) -> None:
        if self.foreign:
            os.fchown(descriptor, self.uid, self.gid)
        os.fchmod(descriptor, mode)


def server_account() -> Account:
    """This process's own account, or under root the unprivileged one, made if it is missing.

    Raises ConfigurationError when it is missing and cannot be made.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), foreign=False)
    entry = _entry() or _made()
    return Account(entry.pw_uid, entry.pw_gid, foreign=True)


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None


def _made() -> pwd.struct_passwd:
    outcome = ""
    for _ in range(ATTEMPTS):
        outcome = _useradd()
        # whatever useradd said, another process may have made it in the meantime, or be about to:
        # useradd(8) gives up at once when /etc/passwd is locked
        entry = _entry()
        if entry is not None:
            return entry
        time.sleep(ATTEMPT_INTERVAL)
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and the system account {ACCOUNT!r} for it could not "
        f"be made ({outcome}). Make that account, run Tailrace as another user, or configure "
        "[database] url."
    )


def _useradd() -> str:
    """Try to make the account; what went wrong, for the operator."""
    program = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:{ADMINISTRATION}")
    if program is None:
        return "there is no useradd here"
    options = ("--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    done = subprocess.run(
        [program, *options, "--shell", "/usr/sbin/nologin", ACCOUNT],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return f"useradd ended with {done.returncode}: {done.stderr.strip()}"
