"""What holds after a fault, whichever it was: files are whole or absent, readers know which."""

from __future__ import annotations

from tests.curl import CUT_SHORT, Download
from tests.jobs import Row, artifacts, assert_whole, files, row
from tests.points import Plain
from tests.serving import Served
from tests.session import Session
from tests.waiting import wait_until

REFUSED, GOT_NOTHING, RESET = 22, 52, 56  # curl's exit codes: an error status with --fail, …
BROKEN = frozenset({CUT_SHORT, GOT_NOTHING, RESET})


def assert_whole_or_absent(served: Served, found: Row, body: bytes) -> None:
    """Also between the two moments at which a file gets its name and its record says so."""
    name = str(found["artifact"])
    if name in files(served):
        try:
            data = (artifacts(served) / name).read_bytes()
        except FileNotFoundError:
            data = body
        assert data == body


def recovered(served: Served, database: Session, export: str, plain: Plain, within: float) -> Row:
    """The row once it has succeeded; at no moment is there a file that is not whole."""
    found: Row = {}

    def over() -> bool:
        found.update(row(database, export))
        assert_whole_or_absent(served, found, plain.body)
        return found["state"] not in ("queued", "running")

    wait_until(over, within=within, what="another attempt has made the export")
    assert_whole(served, found, plain.digest)
    return found


def assert_never_mixed(follower: Download, body: bytes) -> None:
    """A follower (with --fail) has one attempt's bytes: all of them, or visibly not all."""
    code = follower.exit_code()
    if code == 0:
        assert follower.body == body
    else:
        assert code in BROKEN | {REFUSED}, follower.said.read_text()
        assert body.startswith(follower.body)
        assert code != REFUSED or follower.status == 503
