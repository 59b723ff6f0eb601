"""The column names of a request: a name picks a reflected column or is a mistake. Pure."""

from __future__ import annotations

from service.column import Column
from service.dataset import Dataset
from service.errors import UnknownColumn, Unsupported
from service.grammar.scanner import ESCAPE, QUOTED, Scanner

UNSUPPORTED = {"->": "json paths", "::": "casts"}


class Names:
    """The columns of one dataset by name."""

    def __init__(self, dataset: Dataset) -> None:
        self.columns = dataset.columns
        self._dataset = dataset.name
        self._by_name = {column.name: column for column in dataset.columns}

    def parameter(self, name: str) -> Column:
        """The column that a filter is called after: by its name, or by that in quotes."""
        quoted = QUOTED.fullmatch(name) if name not in self._by_name else None
        plain = ESCAPE.sub(r"\1", quoted[1]) if quoted else name
        return self.column(Scanner(name, name), plain, 0)

    def column(self, scanner: Scanner, name: str, at: int) -> Column:
        """The column ``name``, which stands at ``at``; raises UnknownColumn or Unsupported."""
        column = self._by_name.get(name)
        if column is not None:
            return column
        for sign, form in UNSUPPORTED.items():
            if sign in name and scanner.text.startswith(name, at):
                place = at + name.index(sign)
                raise scanner.mistake(
                    f"{form} ({sign}) are not offered", at=place, kind=Unsupported
                )
        offered = ", ".join(self._by_name)
        message = f"{self._dataset} has no column {name!r} (it has {offered})"
        raise scanner.mistake(message, at=at, kind=UnknownColumn, column=name)
