"""An export's record, and how the API shows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.export.receipt import Outcome
from service.jobs.model import PROCESS_LOST, Kind, Record, State, describe, progress

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
UNKNOWN = {"rows_per_s": None, "bytes_per_s": None, "eta_s": None, "fraction": None}
TOTALS = {"total_rows": None, "total_kind": "unknown", "total_bytes": None}


def record(**values: Any) -> Record:
    fixed = Record(
        id="019b7f5e-0000-7000-8000-000000000001",
        kind=Kind.STREAM,
        owner="anonymous",
        dataset="a/b ü",
        source="main",
        lane="copy",
        format="csv",
        compression="none",
        profile="machine",
        request={"query": []},
        created_at=START,
        started_at=START,
    )
    return replace(fixed, **values)


def download(**values: Any) -> Record:
    """A file or a relay: of those there are no rows, only bytes."""
    nothing = dict.fromkeys(("dataset", "lane", "format", "compression", "profile"))
    return record(**{"kind": Kind.RELAY, "source": "archive", **nothing, **values})


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("values", "seconds", "expected"),
    [
        pytest.param(
            {"state": State.QUEUED, "started_at": None},
            10,
            {"rows": 0, "bytes": 0} | TOTALS | UNKNOWN,
            id="queued",
        ),
        pytest.param({"rows": 5, "bytes": 50}, 0, UNKNOWN, id="just begun"),
        pytest.param({"rows": 5}, -3, UNKNOWN, id="begun on a clock that is ahead"),
        pytest.param(
            {"rows": 50, "bytes": 1000},
            10,
            {"rows_per_s": 5.0, "bytes_per_s": 100.0, "fraction": None, "eta_s": None},
            id="running towards nobody knows what",
        ),
        pytest.param(
            {"rows": 50, "total_rows": 200, "total_kind": "estimate"},
            10,
            {"total_rows": 200, "total_kind": "estimate", "fraction": 0.25, "eta_s": 30.0},
            id="running",
        ),
        pytest.param(
            {"rows": 0, "total_rows": 200, "total_kind": "estimate"},
            10,
            {"rows_per_s": 0.0, "fraction": 0.0, "eta_s": None},
            id="waiting for the first row",
        ),
        pytest.param(
            {"rows": 300, "total_rows": 200, "total_kind": "estimate"},
            10,
            {"total_rows": 200, "fraction": 1.0, "eta_s": 0.0},
            id="more than was estimated",
        ),
        pytest.param(
            {"rows": 0, "total_rows": 0, "total_kind": "estimate"},
            10,
            {"total_rows": 0, "fraction": None, "eta_s": None},
            id="estimated to be empty",
        ),
        pytest.param(
            {
                "state": State.SUCCEEDED,
                "rows": 300,
                "bytes": 600,
                "total_rows": 200,
                "total_kind": "estimate",
                "finished_at": after(10),
            },
            1000,
            {
                "rows": 300,
                "bytes": 600,
                "total_rows": 300,
                "total_kind": "exact",
                "total_bytes": 600,
                "fraction": 1.0,
                "rows_per_s": 30.0,
                "bytes_per_s": 60.0,
                "eta_s": None,
            },
            id="succeeded: what came is what there was",
        ),
        pytest.param(
            {"state": State.SUCCEEDED, "rows": 0, "finished_at": after(0)},
            10,
            {"total_rows": 0, "total_kind": "exact", "fraction": 1.0, "rows_per_s": None},
            id="succeeded at once without a row",
        ),
        *(
            pytest.param(
                {
                    "state": state,
                    "rows": 50,
                    "total_rows": 200,
                    "total_kind": "estimate",
                    "finished_at": after(10),
                },
                1000,
                {"total_kind": "estimate", "fraction": 0.25, "rows_per_s": 5.0, "eta_s": None},
                id=f"{state.value}: no end to wait for",
            )
            for state in (State.FAILED, State.CANCELLED)
        ),
    ],
)
def test_progress(values: dict[str, Any], seconds: float, expected: dict[str, Any]) -> None:
    found = progress(record(**values), after(seconds))
    assert found.keys() == {"rows", "bytes"} | TOTALS.keys() | UNKNOWN.keys()
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("values", "seconds", "expected"),
    [
        pytest.param({"bytes": 500}, 10, TOTALS | {"fraction": None, "eta_s": None}, id="endless"),
        pytest.param(
            {"bytes": 500, "total_bytes": 2000},
            10,
            {"total_bytes": 2000, "fraction": 0.25, "bytes_per_s": 50.0, "eta_s": 30.0},
            id="running",
        ),
        pytest.param(
            {"bytes": 0, "total_bytes": 2000},
            10,
            {"fraction": 0.0, "bytes_per_s": 0.0, "eta_s": None},
            id="waiting for the first byte",
        ),
        pytest.param(
            {"bytes": 500, "total_bytes": 2000},
            0,
            {"fraction": 0.25, "bytes_per_s": None, "eta_s": None},
            id="just begun",
        ),
        pytest.param(
            {"bytes": 3000, "total_bytes": 2000},
            10,
            {"fraction": 1.0, "eta_s": 0.0},
            id="more than was announced",
        ),
        pytest.param(
            {"bytes": 0, "total_bytes": 0}, 10, {"fraction": None, "eta_s": None}, id="empty"
        ),
        pytest.param(
            {"bytes": 500, "total_bytes": 2000, "rows": 3, "total_rows": 4},
            10,
            {"fraction": 0.25, "eta_s": 30.0},
            id="of lines that are counted the bytes decide",
        ),
        pytest.param(
            {"bytes": 500, "state": State.SUCCEEDED, "finished_at": after(10)},
            1000,
            {"total_bytes": 500, "fraction": 1.0, "bytes_per_s": 50.0, "eta_s": None},
            id="succeeded: what came is what there was",
        ),
        pytest.param(
            {
                "bytes": 500,
                "total_bytes": 2000,
                "state": State.FAILED,
                "finished_at": after(10),
            },
            1000,
            {"total_bytes": 2000, "fraction": 0.25, "bytes_per_s": 50.0, "eta_s": None},
            id="failed: no end to wait for",
        ),
    ],
)
def test_progress_of_a_download(
    values: dict[str, Any], seconds: float, expected: dict[str, Any]
) -> None:
    found = progress(download(**values), after(seconds))
    assert found.keys() == {"rows", "bytes"} | TOTALS.keys() | UNKNOWN.keys()
    assert expected.items() <= found.items()


def test_describe_has_every_member_of_the_contract() -> None:
    error = {"code": "source_error"}
    shown = describe(record(state=State.FAILED, error=error), "https://x/tail", after(1))
    here = "https://x/tail/v1/exports/019b7f5e-0000-7000-8000-000000000001"
    assert shown == {
        "id": "019b7f5e-0000-7000-8000-000000000001",
        "kind": "stream",
        "owner": "anonymous",
        "dataset": "a/b ü",
        "source": "main",
        "format": "csv",
        "compression": "none",
        "profile": "machine",
        "request": {"query": []},
        "state": "failed",
        "attempt": 1,
        "attempts": [],
        "created_at": "2026-01-02T03:04:05.678901Z",
        "started_at": "2026-01-02T03:04:05.678901Z",
        "finished_at": None,
        "expires_at": None,
        "progress": shown["progress"],
        "error": error,
        "links": {
            "self": here,
            "events": f"{here}/events",
            "content": None,
            "receipt": f"{here}/receipt",
            "cancel": f"{here}/cancel",
        },
    }


def test_a_job_has_its_content_by_attempt_and_the_rates_that_were_stored() -> None:
    stored: dict[str, Any] = {"rows_per_s": 7.0, "bytes_per_s": 70.0, "eta_s": 2.5}
    job = record(kind=Kind.JOB, attempt=3, rows=50, total_rows=200, **stored)
    shown = describe(job, "https://x", after(10))
    here = "https://x/v1/exports/019b7f5e-0000-7000-8000-000000000001"
    assert shown["links"]["content"] == f"{here}/content?attempt=3"
    assert stored.items() <= shown["progress"].items()


def test_describe_keeps_what_is_not_for_clients() -> None:
    shown = describe(record(receipt={"rows": 1}), "", after(1))
    assert not shown.keys() & {"receipt", "lane", "heartbeat_at"}


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.RELAY])
def test_a_download_has_a_source_and_no_dataset(kind: Kind) -> None:
    shown = describe(download(kind=kind), "https://x", after(1))
    assert (shown["kind"], shown["source"]) == (kind.value, "archive")
    for name in ("dataset", "format", "compression", "profile"):
        assert shown[name] is None
    assert shown["links"]["content"] is None
    assert shown["links"]["cancel"].startswith("https://x/v1/exports/")


def test_what_a_record_is_of() -> None:
    assert (record().subject, download().subject) == ("a/b ü", "archive")


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.COMPLETE, State.SUCCEEDED),
        (Outcome.FAILED, State.FAILED),
        (Outcome.TRUNCATED, State.FAILED),
        (Outcome.CANCELLED, State.CANCELLED),
    ],
)
def test_how_a_stream_ended_decides_the_state(outcome: Outcome, state: State) -> None:
    receipt = {"rows": 7, "bytes": 70}
    done = record(rows=1).finished(receipt, outcome, after(3), None)
    assert (done.state, done.rows, done.bytes) == (state, 7, 70)
    assert (done.finished_at, done.receipt, done.error) == (after(3), receipt, None)
    assert done.state.final


@pytest.mark.parametrize(
    ("receipt", "counted"),
    [
        ({"rows": None, "bytes": 70, "encoded_bytes": None}, (0, 70)),
        ({"rows": 7, "bytes": 70, "encoded_bytes": 30}, (7, 70)),
        ({"rows": None, "bytes": 0, "encoded_bytes": 30}, (0, 0)),
        ({"rows": None, "bytes": None, "encoded_bytes": 30}, (0, 30)),
        ({"rows": None, "bytes": None, "encoded_bytes": None}, (0, 0)),
    ],
)
def test_a_download_counts_the_bytes_of_which_it_knows(
    receipt: dict[str, Any], counted: tuple[int, int]
) -> None:
    done = download().finished(receipt, Outcome.COMPLETE, after(3), None)
    assert (done.rows, done.bytes) == counted


def test_every_outcome_has_a_state() -> None:
    for outcome in Outcome:
        assert record().finished({"rows": 0, "bytes": 0}, outcome, START, None).state.final


def test_only_queued_and_running_are_not_final() -> None:
    assert [state for state in State if not state.final] == [State.QUEUED, State.RUNNING]


def test_a_lost_record_says_so() -> None:
    lost = record(rows=5).lost(after(60))
    assert (lost.state, lost.finished_at, lost.rows) == (State.FAILED, after(60), 5)
    assert lost.receipt is None
    assert lost.error is not None
    assert lost.error["code"] == PROCESS_LOST
    assert lost.error["title"]
    assert lost.error["detail"]
