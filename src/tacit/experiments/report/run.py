"""The report of a run folder: summary.json, report.html and plots/*.png from results.jsonl and run.json.

Builds on metrics, plots and jinja2. ``tacit run`` calls it at the end and ``tacit report DIR`` again at any time; it
needs no model and no bank, so a finished run can be reported on any machine, and a running one while it runs (a torn
last line is left out). Files appear whole or not at all. The page is one file: pictures inlined, no scripts from
elsewhere, all text escaped, because problems and answers come from models and strangers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from tacit.errors import DataError
from tacit.experiments.report.metrics import Row, summarise
from tacit.experiments.report.plots import STYLES, draw_all

CONTROL_LABELS = {"random": "random memory (control)", "verified": "verifier alone (control)"}

ORDER = (
    "zero_shot",
    "icl",
    "random",
    "memory",
    "verified",
    "routed",
    "zero_shot_majority",
    "majority",
    "routed_majority",
)
"""Arms in the order of the table: answers first, then votes."""

SHOWN_PROBLEMS = 300
"""Most problems listed on the page; results.jsonl has all."""

SHOWN_TEXT = 1200
"""Most characters of a problem or answer shown on the page."""

CAPTIONS = {
    "prefix_accuracy": (
        "Accuracy over the stream",
        "Share of right answers among all problems so far, one answer sampled at T = 1. Bands: pointwise 95 % "
        "bootstrap intervals over problems.",
    ),
    "accuracy_tokens": (
        "Accuracy against cost",
        "The same accuracies against the tokens each arm has generated. Tacit is charged with everything it spent, "
        "answers and learning; the baselines with their own answers alone. Votes are one answer per problem.",
    ),
    "rewards": (
        "Learning of the memories",
        "Mean reward of the rollouts at each learning step: how many match the problem's own majority answer (no "
        "labels are used). Thin lines are single memories.",
    ),
    "families": ("By family of problems", "Accuracy of one sampled answer, ordered by gain."),
    "similarity": (
        "Similarity and gain",
        "Each dot is a problem: how much the recalled memory changed the share of right answers, against how similar "
        "the problem it was learned on is. Dots are spread a little vertically.",
    ),
}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a results.jsonl in stream order; a torn last line (a run was killed) is left out.

    Raises:
        DataError: the file is missing or unreadable, or a line other than the last is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"No results at {path}: {error.strerror or error}; give the folder of a run.") from error
    # What follows the last line break was not finished; split leaves it (or b"") at the end.
    complete, torn = lines[:-1], lines[-1]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(complete, start=1):
        if line.strip():
            rows.append(_row(line, path, number))
    if torn.strip():
        with contextlib.suppress(DataError):
            rows.append(_row(torn, path, len(lines)))
    return sorted(rows, key=lambda row: int(row.get("position") or 0))


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
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
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as the settings of a run: {error}.") from error
    if not isinstance(settings, dict):
        raise DataError(f"{path} cannot be read as the settings of a run: not a JSON object.")
    return settings


def write_report(out_dir: Path) -> dict[str, Any]:
    """Write summary.json, report.html and plots/*.png of the run in ``out_dir``, and return the summary.

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
    pictures = draw_all(rows, seed=summary["seed"])
    try:
        (out_dir / "plots").mkdir(exist_ok=True)
        for name, png in pictures.items():
            write_atomically(out_dir / "plots" / f"{name}.png", png)
        page = render(summary, rows, pictures)
        write_atomically(out_dir / "report.html", page.encode("utf-8", errors="replace"))
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(out_dir / "summary.json", text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"The report cannot be written to {out_dir}: {error.strerror or error}.") from error
    return summary


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: a reader, or a crash, sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private, but a report is to be shown
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def templates() -> jinja2.Environment:
    """The pages' templates: what is put into them is escaped, and what is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tacit.experiments.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(summary: Mapping[str, Any], rows: Sequence[Row], pictures: Mapping[str, bytes]) -> str:
    """report.html as text."""
    environment = templates()
    environment.filters |= {
        "percent": _percent,
        "share": _share,
        "points": _points,
        "clip": _clip,
        "count": _count,
    }
    shown = [
        {
            "title": CAPTIONS[name][0],
            "caption": CAPTIONS[name][1],
            "data": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        }
        for name, png in pictures.items()
    ]
    return environment.get_template("run.html.jinja").render(
        s=summary,
        labels={arm: style["label"] for arm, style in STYLES.items()} | CONTROL_LABELS,
        order=[arm for arm in ORDER if arm in summary["arms"]],
        pictures=shown,
        problems=[_entry(row) for row in rows[:SHOWN_PROBLEMS]],
        total=len(rows),
        testbed=str(summary.get("model") or "") == "testbed",
    )


def _entry(row: Row) -> dict[str, Any]:
    """One problem of the page's list, with what happened to it in one word; absent fields are None."""
    keys = ("answer", "correct", "greedy_answer", "greedy_correct", "memory_id", "similarity", "route", "why")
    zero_shot, memory, routed = (
        {key: cell.get(key) for key in keys} if cell else None
        for cell in (row["zero_shot"], row.get("memory"), row.get("routed") or row["zero_shot"])
    )
    learned = row.get("learned")
    return {
        **{key: row.get(key) for key in ("id", "position", "family", "problem", "gold")},
        "zero_shot": zero_shot,
        "memory": memory,
        "routed": routed,
        "learned": {key: learned.get(key) for key in ("memory_id", "state", "reason")} if learned else None,
        "verdict": _verdict(row["zero_shot"].get("correct"), (routed or {}).get("correct")),
    }


def _verdict(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "unknown"
    if before == after:
        return "same"
    return "better" if after > before else "worse"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    """A difference of shares in percentage points, always signed."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def _count(value: float | None) -> str:
    """Digits in groups of three, with narrow spaces that do not break."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _clip(text: object) -> str:
    string = "–" if text is None else str(text)
    return string if len(string) <= SHOWN_TEXT else string[:SHOWN_TEXT] + " …"
