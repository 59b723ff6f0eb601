"""The proof of a stream: a meter that changes nothing, and a receipt as plain data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.export.receipt import Meter, Outcome, Receipt, SnapshotMark, rfc3339
from tests.splitting import CUTS, Cuts, split

AT = datetime(2026, 3, 1, 12, 30, 5, 250_000, tzinfo=UTC)
RECEIPT = Receipt(
    export_id="0190",
    outcome=Outcome.COMPLETE,
    rows=2,
    bytes=10,
    sha256="ab",
    encoded_bytes=7,
    encoded_sha256="cd",
    format="csv",
    compression="none",
    query_sha256="ef",
    snapshot=SnapshotMark(AT, "0/1A"),
    started_at=AT,
    finished_at=AT.replace(microsecond=0),
    db_seconds_held=0.1234567,
)


@given(st.binary(max_size=400), CUTS)
def test_a_meter_gives_what_it_takes_and_digests_all_of_it(data: bytes, cuts: Cuts) -> None:
    meter = Meter()
    passed = b""
    for piece, sync in split(data, cuts):
        passed += meter.feed(piece)
        if sync:
            assert meter.sync() == b""
        assert meter.bytes == len(passed)
        assert meter.sha256 == hashlib.sha256(passed).hexdigest()
    assert meter.finish() == b""
    assert passed == data


def test_a_meter_of_nothing() -> None:
    meter = Meter()
    assert meter.bytes == 0
    assert meter.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_receipt_as_plain_data() -> None:
    plain = RECEIPT.as_dict()
    assert plain == {
        "export_id": "0190",
        "outcome": "complete",
        "rows": 2,
        "bytes": 10,
        "sha256": "ab",
        "encoded_bytes": 7,
        "encoded_sha256": "cd",
        "format": "csv",
        "compression": "none",
        "query_sha256": "ef",
        "snapshot": {"at": "2026-03-01T12:30:05.250000Z", "lsn": "0/1A"},
        "next_cursor": None,
        "started_at": "2026-03-01T12:30:05.250000Z",
        "finished_at": "2026-03-01T12:30:05Z",
        "db_seconds_held": 0.123457,
        "cancel": None,
    }
    assert json.loads(json.dumps(plain)) == plain


def test_a_receipt_of_a_download_says_what_only_downloads_have() -> None:
    download = {"status": 206, "retries": 1}
    unknown = replace(RECEIPT, rows=None, bytes=None, sha256=None, format=None, compression=None)
    plain = replace(unknown, snapshot=None, download=download).as_dict()
    assert plain["download"] == download
    assert plain.keys() - RECEIPT.as_dict().keys() == {"download"}
    for name in ("rows", "bytes", "sha256", "format", "compression", "snapshot"):
        assert plain[name] is None
    assert (plain["encoded_bytes"], plain["encoded_sha256"]) == (7, "cd")
    assert json.loads(json.dumps(plain)) == plain


def test_a_receipt_of_a_stream_that_never_read_has_no_snapshot() -> None:
    plain = replace(RECEIPT, snapshot=None, outcome=Outcome.FAILED).as_dict()
    assert (plain["snapshot"], plain["outcome"]) == (None, "failed")


def test_a_snapshot_whose_log_position_is_unknown() -> None:
    plain = replace(RECEIPT, snapshot=SnapshotMark(AT, None)).as_dict()
    assert plain["snapshot"] == {"at": "2026-03-01T12:30:05.250000Z", "lsn": None}


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), "0001-01-01T00:00:00.000001Z"),
        (AT, "2026-03-01T12:30:05.250000Z"),
    ],
)
def test_times_have_the_z_of_utc(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
    assert datetime.fromisoformat(text) == moment
