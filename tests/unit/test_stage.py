"""Stages in a row: every byte passes every stage, and nothing is left behind."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.export.compress import Gzip
from service.export.encode import CsvFrame, FrameOptions, JsonFrame
from service.export.receipt import Meter
from service.export.stage import Pipeline, Stage
from tests.splitting import CUTS, Cuts, passed

DATA = b"".join(b'{"n":%d}\n' % n for n in range(40))


class Holding:
    """Keeps the last byte back until it must give it, and marks syncs and the end."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        self._held = data[-1:]
        return data[:-1]

    def sync(self) -> bytes:
        held, self._held = self._held, b""
        return held + b"<" + self._name + b">"

    def finish(self) -> bytes:
        return self._held + b"</" + self._name + b">"


def test_no_stages_change_nothing() -> None:
    assert passed(Pipeline([]), DATA, [(5, True)]) == DATA


def test_what_one_stage_gives_late_passes_the_next() -> None:
    pipeline = Pipeline([Holding(b"a"), Holding(b"b")])
    assert pipeline.feed(b"123") == b"1"
    assert pipeline.sync() == b"23<a><b>"
    assert pipeline.feed(b"4") == b""
    assert pipeline.finish() == b"4</a></b>"


def test_a_sync_of_nothing_held_reaches_every_stage_once() -> None:
    pipeline = Pipeline([Meter(), Holding(b"a"), Meter(), Holding(b"b")])
    assert pipeline.sync() == b"<a><b>"


def stages() -> list[Stage]:
    return [JsonFrame(FrameOptions(("n",))), Holding(b"a"), Meter(), Gzip(), Holding(b"b"), Meter()]


@given(CUTS, st.integers(0, 6))
def test_a_pipeline_of_pipelines_gives_the_same_bytes(cuts: Cuts, place: int) -> None:
    flat = passed(Pipeline(stages()), DATA, cuts)
    nested = stages()
    parts = Pipeline([Pipeline(nested[:place]), Pipeline(nested[place:])])
    assert passed(parts, DATA, cuts) == flat


@given(CUTS)
def test_a_pipeline_is_its_stages_one_after_the_other(cuts: Cuts) -> None:
    file, wire = Meter(), Meter()
    frame = CsvFrame(FrameOptions(("n",)))
    made = passed(Pipeline([frame, file, Gzip(), wire]), DATA, cuts)
    content = gzip.decompress(made)
    assert content == passed(CsvFrame(FrameOptions(("n",))), DATA, [])
    assert (file.bytes, wire.bytes) == (len(content), len(made))
    assert frame.rows == 40


@pytest.mark.parametrize("cuts", [[], [(0, True)], [(9, False), (9, True)]])
def test_an_empty_input_still_gives_what_each_stage_adds(cuts: Cuts) -> None:
    pipeline = Pipeline([JsonFrame(FrameOptions(("n",))), Meter(), Gzip()])
    assert gzip.decompress(passed(pipeline, b"", cuts)) == b"[]\n"
