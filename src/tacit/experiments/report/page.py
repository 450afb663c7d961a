"""What the pages of runs and comparisons have in common: pictures, tables, how figures are written, and the files.

Builds on jinja2 and files. A page is one file: pictures inlined, no scripts, nothing from elsewhere, all text escaped,
because problems, answers and names come from models and strangers. ``base.html.jinja`` is the page that both fill in.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from tacit.errors import DataError
from tacit.experiments.run_folder import write_atomically, write_json
from tacit.tasks.base import called

MISSING = "–"
SHOWN_TEXT = 1200
"""Most characters of a problem or answer shown on the page."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture: the name of its file, its title and caption (how to read it), and what it shows in words."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, which a PNG says in its first bytes."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    @property
    def data(self) -> str:
        """The picture as an address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


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
        heads: of the columns, the first one's included.
        parts: (heading or "", rows).
        groups: (text, columns) over the column heads; empty for none.
        folded: whether it is closed at first.
    """

    title: str
    note: str
    heads: Sequence[str]
    parts: Sequence[tuple[str, Sequence[Line]]]
    groups: Sequence[tuple[str, int]] = ()
    folded: bool = False

    def markdown(self) -> str:
        """Title, note and rows, without groups and marks."""
        rows = [[line.head, *line.cells] for _, lines in self.parts for line in lines]
        return f"## {self.title}\n\n{self.note}\n\n{markdown_rows(self.heads, rows)}\n"


def markdown_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal or a Markdown page."""
    lines = [f"| {' | '.join(cells)} |" for cells in [heads, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])


def percent(value: float | None) -> str:
    """A share in percent, without the sign of it."""
    return MISSING if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in points, always signed."""
    return MISSING if value is None else f"{100 * value:+.1f}".replace("-", "−")


def count(value: float | None) -> str:
    """Digits in groups of three, with narrow spaces that do not break."""
    return MISSING if value is None else f"{value:,.0f}".replace(",", "\u202f")


def between(low: float, high: float, shown: Callable[[float | None], str] = percent) -> str:
    """An interval."""
    return f"[{shown(low)}, {shown(high)}]"


def measured(value: Mapping[str, Any], shown: Callable[[float | None], str] = points) -> str:
    """``{mean, low, high}``, if it could be measured."""
    if value["mean"] is None or value["low"] is None:
        return MISSING
    return f"{shown(value['mean'])} {between(value['low'], value['high'], shown)}"


def of(part: int, whole: int) -> str:
    """A count, and of how many."""
    return f"{part} of {whole}" if whole else MISSING


def clip(text: object) -> str:
    """A text from a model, cut."""
    string = MISSING if text is None else str(text)
    return string if len(string) <= SHOWN_TEXT else string[:SHOWN_TEXT] + " …"


def render(template: str, **values: Any) -> str:
    """A page as text; what is put into it is escaped, and what is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tacit.experiments.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "count": count,
        "clip": clip,
        "of": of,
        "task": called,
    }
    return environment.get_template(template).render(**values)


def publish(out: Path, figures: tuple[str, Any, int], pictures: Sequence[Picture], page: str) -> None:
    """Write a report's files, each whole or not at all: its figures (name, values, indentation), pictures and page.

    Raises:
        DataError: they cannot be written.
    """
    name, values, indent = figures
    try:
        write_json(out / name, values, indent)
        (out / "plots").mkdir(exist_ok=True)
        for picture in pictures:
            write_atomically(out / "plots" / f"{picture.name}.png", picture.png)
        write_atomically(out / "report.html", page)
    except OSError as error:
        raise DataError(f"the report cannot be written to {out} ({error.strerror or error}); mend that") from error
