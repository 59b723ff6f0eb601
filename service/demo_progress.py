"""The demonstration's progress on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn


class ConsoleProgress:
    """A bar for the table being loaded, a line for each that is done; a context manager.

    It satisfies ``service.demo.Progress``. Where ``console`` is no terminal only lines appear.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            TaskProgressColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, table: str, total: int, unit: str) -> None:
        del unit  # the bar shows per cent
        self._tasks[table] = self._bars.add_task(table, total=total)

    def advance(self, table: str, amount: int) -> None:
        self._bars.advance(self._tasks[table], amount)

    def finish(self, table: str, rows: int) -> None:
        self._bars.remove_task(self._tasks.pop(table))
        self._say(table, f"{rows:,} rows")

    def present(self, table: str) -> None:
        self._say(table, "is there already")

    def _say(self, table: str, what: str) -> None:
        self._bars.console.print(f"{table:>9}  {what}", highlight=False)
