"""The finished cells of a comparison: where each lies, read back; into which kind a method is sorted.

Builds on errors alone: a report needs no model, no data, and not the machine that the cells were made on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tacit.errors import DataError

Row = Mapping[str, Any]
ORDERS = ("shuffled", "blocked", "reversed")
"""Orders of a stream."""


@dataclass(frozen=True)
class Cell:
    """One method on one stream."""

    label: str
    data: str
    order: str
    seed: int

    def folder(self, out: Path) -> Path:
        """Where its results lie."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.data).stem if Path(self.data).exists() else self.data)
        return out / "cells" / re.sub(r"[^A-Za-z0-9._-]+", "-", self.label) / slug / f"{self.order}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """A finished cell: its cell.json, its rows in stream order, and its probes."""

    record: Mapping[str, Any]
    rows: Sequence[Row]
    probes: Sequence[Row]

    @classmethod
    def load(cls, record: Mapping[str, Any], folder: Path) -> Result:
        """The cell in ``folder``."""
        rows = sorted(_read(folder / "rows.jsonl"), key=lambda row: int(row["position"]))
        if len({row["position"] for row in rows}) < len(rows):
            raise ValueError("a problem is there twice")
        return cls(record, rows, list(_read(folder / "probes.jsonl")))

    @property
    def seed(self) -> int:
        return int(self.record["seed"])


def _read(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8", errors="surrogatepass") as handle:
        for row in map(json.loads, handle):
            # A method that gave not even an empty answer to a problem with a gold answer is wrong there.
            silent = row["correct"] is None and row["greedy_correct"] is not None
            yield {**row, "correct": 0.0, "rights": []} if silent else row


def find(out: Path) -> list[Result]:
    """All finished cells in a comparison's folder, by name and seed.

    Raises:
        DataError: there are none, or one is damaged.
    """
    results = []
    for file in sorted(out.glob("cells/*/*/*/cell.json")):
        try:
            results.append(Result.load(json.loads(file.read_text(encoding="utf-8")), file.parent))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{file.parent} is damaged; delete that folder and run the comparison again") from None
    if not results:
        raise DataError(f"no finished cells in {out}; give the folder of a comparison")
    return sorted(results, key=lambda result: result.seed)


Stream = tuple[str, str, str]
"""(label, data, order): a row of the table; its cells differ by seed."""


def grouped(results: Iterable[Result]) -> dict[Stream, list[Result]]:
    """Cells by row of the table, in the order they come."""
    streams: dict[Stream, list[Result]] = {}
    for result in results:
        record = result.record
        streams.setdefault((record["label"], record["data"], record["order"]), []).append(result)
    return streams


KINDS = {
    "frozen": "No learning",
    "text": "Earlier attempts shown again, nothing trained",
    "trained": "Weights, adapters or one prompt trained",
    "memories": "Latent memories, one per problem (ELM)",
    "controls": "Controls: what should gain nothing",
    "bounds": "Told the answers: upper bounds",
    "other": "Other methods",
}
"""Kinds of methods in the order of tables and pictures, with their headings."""

_STARTS = {
    "frozen": ("zero-shot", "majority", "best-of", "likeliest"),
    "text": ("icl", "reasoning-bank", "lag"),
    "trained": ("grpo", "ttrl", "instance", "sequential"),
    "controls": ("elm-random", "elm-unlike", "elm-format"),
    "bounds": ("truth", "elm-oracle"),
    "memories": ("elm",),
}


def kind(method: str) -> str:
    """The kind of a registered method, by its name."""
    return next((name for name, starts in _STARTS.items() if method.startswith(starts)), "other")


def marks(row: Mapping[str, Any]) -> str:
    """Marks of a row's method: † it uses labels, ‡ it trains before the first problem, § it gives one answer."""
    return "†" * bool(row["uses_labels"]) + "‡" * bool(row["offline"]) + "§" * bool(row.get("single"))


def short(data: str) -> str:
    """A data source's name without what is the same for all of its sort: "A" for "testbed:A"."""
    name = data.removeprefix("testbed:").removeprefix("hub:")
    return name.rstrip("/").rpartition("/")[2].removesuffix(".jsonl") or data


def where(data: str, order: str) -> str:
    """A stream's name."""
    return data if order == "shuffled" else f"{data}, {order}"
