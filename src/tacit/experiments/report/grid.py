"""Tables as rows of text: methods down, streams across; and how figures are written in them.

Builds on comparison_cells; comparison_tables fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tacit.experiments.report.cells import KINDS, Figures, marks

Make = Callable[[Figures], Sequence[str]]
MISSING = "–"


@dataclass(frozen=True)
class Line:
    """A row: its head, its cells, which of them are the best of their column, marks and a remark at the head."""

    head: str
    cells: Sequence[str]
    best: frozenset[int] = frozenset()
    marks: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: heading.
        note: how to read it.
        groups: (text, columns) over the column heads; empty for none.
        heads: of the columns, the first one's included.
        parts: (heading or "", rows).
        folded: whether it is closed at first.
    """

    title: str
    note: str
    groups: Sequence[tuple[str, int]]
    heads: Sequence[str]
    parts: Sequence[tuple[str, Sequence[Line]]]
    folded: bool = False


class Rows:
    """The rows of table.json, by method and stream."""

    def __init__(self, rows: Sequence[Figures]) -> None:
        self.all = list(rows)
        self.streams = list(dict.fromkeys((row["data"], row["order"]) for row in rows))
        self.methods = {row["method"]: row for row in rows}
        self._by = {(row["method"], row["data"], row["order"]): row for row in rows}

    def of(self, method: str) -> list[Figures | None]:
        """The rows of a method, stream by stream."""
        return [self._by.get((method, *stream)) for stream in self.streams]

    def name(self, stream: tuple[str, str]) -> str:
        """What a stream is called."""
        data, order = stream
        return data if order == "shuffled" else f"{data}, {order}"

    def table(
        self,
        title: str,
        note: str,
        heads: Sequence[str],
        make: Make,
        keep: Callable[[Figures], Any] = lambda row: True,
        best: Callable[[Figures], Sequence[float | None]] | None = None,
        remark: Callable[[Sequence[Figures]], str] = lambda rows: "",
        folded: bool = False,
    ) -> Table | None:
        """Methods down, by kind; per stream the cells that ``make`` makes of a row; None if no row is kept."""
        parts = []
        tops = self._tops(best) if best else {}
        for kind, heading in KINDS.items():
            lines = []
            for method, first in self.methods.items():
                rows = [row if row is not None and keep(row) else None for row in self.of(method)]
                if first["kind"] != kind or not any(rows):
                    continue
                cells = [cell for row in rows for cell in (make(row) if row else [MISSING] * len(heads))]
                top = tops.get(method, frozenset())
                lines.append(Line(method, cells, top, marks(first), remark([row for row in rows if row])))
            if lines:
                parts.append((heading, lines))
        if not parts:
            return None
        groups = [(self.name(stream), len(heads)) for stream in self.streams]
        return Table(title, note, groups, ["method", *list(heads) * len(groups)], parts, folded)

    def _tops(self, best: Callable[[Figures], Sequence[float | None]]) -> dict[str, frozenset[int]]:
        """Per method the columns in which it is highest of those that use no labels."""
        found: dict[str, set[int]] = {}
        for at, stream in enumerate(self.streams):
            fair = [row for row in self.all if (row["data"], row["order"]) == stream and not row["uses_labels"]]
            values = {row["method"]: best(row) for row in fair if "accuracy" in row}
            width = len(next(iter(values.values()), ()))
            for column in range(width):
                known = [held[column] for held in values.values()]
                top = max((value for value in known if value is not None), default=None)
                for method, held in values.items():
                    if top is not None and held[column] == top:
                        found.setdefault(method, set()).add(at * width + column)
        return {method: frozenset(columns) for method, columns in found.items()}


# -- words ------------------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """A share in percent, without the sign of it."""
    return MISSING if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in points, always signed."""
    return MISSING if value is None else f"{100 * value:+.1f}".replace("-", "−")


def count(value: float | None) -> str:
    """A number in groups of three."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def between(low: float, high: float, shown: Callable[[float | None], str] = percent) -> str:
    """An interval."""
    return f"[{shown(low)}, {shown(high)}]"


def gained(row: Mapping[str, Any], name: str, low: str | None = None) -> str:
    if row.get(name) is None:
        return MISSING
    bounds = ("low", "high") if low == "low" else (f"{name}_low", f"{name}_high")
    return f"{points(row[name])} {between(row[bounds[0]], row[bounds[1]], points)}"


def span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def of(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else MISSING
