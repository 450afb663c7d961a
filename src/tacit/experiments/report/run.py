"""The report of a run folder: summary.json, report.html and plots/*.png from results.jsonl, run.json and map.json.

Builds on run_figures, run_plots, bank_map and page. ``tacit run`` calls it at the end, ``tacit report DIR`` at any
time: it needs no model and no bank. A finished run can be reported on any machine, and a running one while it runs (a
torn last line is left out).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tacit.errors import DataError
from tacit.experiments.report.bank_map import MAP, drawn
from tacit.experiments.report.figures import Figures
from tacit.experiments.report.page import publish, render
from tacit.experiments.report.run_figures import LABELS, summarise
from tacit.experiments.report.run_plots import draw_all
from tacit.experiments.run_folder import write_json
from tacit.experiments.scoring import HELP, MOST

SHOWN_PROBLEMS = 300
"""Most problems listed on the page; results.jsonl has all."""


def write_report(out_dir: Path, mapped: Callable[[], Any] | None = None) -> Figures:
    """Write summary.json, report.html and plots/*.png of the run in ``out_dir``, and return the summary. Where the bank
    is at hand, ``mapped`` gives its map, which is kept as map.json.

    Raises:
        DataError: there are no results, they are damaged, or the report cannot be written.
    """
    rows = read_rows(out_dir / "results.jsonl")
    settings = read_settings(out_dir / "run.json")
    seed = settings.get("seed")
    summary = summarise(
        rows,
        seed=seed if isinstance(seed, int) and seed >= 0 else 0,
        model=settings.get("model"),
        version=settings.get("version"),
        settings=settings,
    )
    if mapped:
        write_json(out_dir / MAP, mapped())
    pictures = [*draw_all(rows, seed=summary["seed"]), *drawn(out_dir / MAP)]
    page = render(
        "run.html.jinja",
        s=summary,
        labels=LABELS,
        pictures=pictures,
        problems=rows[:SHOWN_PROBLEMS],
        total=len(rows),
        testbed=str(summary.get("model")).partition(":")[0] == "testbed",
        unscored=summary["unscored"],
        asked=summary["problems"],
        help=HELP if (summary["unanswered"]["share"] or 0) > MOST else "",
    )
    publish(out_dir, ("summary.json", summary, 2), pictures, page)
    return summary


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a results.jsonl in stream order; a torn last line (a run was killed) is left out.

    Raises:
        DataError: the file is missing or unreadable, or a line other than the last is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"No results at {path}: {error.strerror or error}; give the folder of a run.") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(_row(line, path, number))
        except DataError:
            if number < len(lines):  # what follows the last line break was not finished
                raise
    places = [row["position"] for row in rows if "position" in row]
    if len(set(places)) < len(places):
        raise DataError(f"{path} has a problem twice; the results of this run are damaged.")
    return sorted(rows, key=lambda row: int(row.get("position") or 0))


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number} is not JSON; the results of this run are damaged.") from error
    if not isinstance(row, dict) or not isinstance(row.get("zero_shot"), dict):
        raise DataError(f"{path}, line {number} is not a result row of a run.")
    return row


def read_settings(path: Path) -> dict[str, Any]:
    """The run's settings from run.json, or {} if there is none. DataError if it is not a JSON object."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as the settings of a run: {error}.") from error
    if not isinstance(settings, dict):
        raise DataError(f"{path} cannot be read as the settings of a run: not a JSON object.")
    return settings
