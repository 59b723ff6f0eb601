"""Feeding a stage the same bytes in every possible split."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from service.export.stage import Stage

# Where to cut, and whether to sync after each piece; equal places make an empty piece.
Cuts = Sequence[tuple[int, bool]]
CUTS = st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=12)


def split(data: bytes, cuts: Cuts) -> list[tuple[bytes, bool]]:
    """``data`` in pieces, each with whether a sync comes after it; together they are ``data``."""
    length = len(data) + 1
    places = sorted((place % length, sync) for place, sync in cuts)
    starts = [0, *(place for place, _ in places)]
    ends = [*starts[1:], len(data)]
    syncs = [*(sync for _, sync in places), False]
    return [(data[a:b], sync) for a, b, sync in zip(starts, ends, syncs, strict=True)]


def passed(stage: Stage, data: bytes, cuts: Cuts) -> bytes:
    """Everything that ``stage`` gives for ``data`` split at ``cuts``."""
    made = []
    for piece, sync in split(data, cuts):
        made.append(stage.feed(piece))
        if sync:
            made.append(stage.sync())
    return b"".join([*made, stage.finish()])
