"""Writing and opening artifacts in tests."""

from __future__ import annotations

from pathlib import Path

from service.artifacts.folder import ArtifactFolder
from service.artifacts.reading import ArtifactReader
from service.artifacts.writer import ArtifactWriter


def left(folder: ArtifactFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def reader_of(folder: ArtifactFolder, name: str) -> ArtifactReader:
    file = folder.open_growing_or_finished(name)
    assert file is not None
    return ArtifactReader(file)


async def written(folder: ArtifactFolder, *pieces: bytes) -> ArtifactWriter:
    """An open writer of a new name with ``pieces`` in its file."""
    writer = ArtifactWriter(folder, folder.new_name())
    await writer.open()
    for piece in pieces:
        await writer.write(piece)
    return writer
