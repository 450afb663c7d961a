"""The tables of the studies (``tacit study``): in their own Markdown, and on the page of a comparison beside them.

Builds on page's tables; reads transfer.json, signal.json and keys.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tacit.errors import DataError
from tacit.experiments.report.page import Line, Table, measured, percent, points
from tacit.experiments.run_folder import write_atomically, write_json


def publish_study(out: Path, name: str, title: str, result: Mapping[str, Any]) -> None:
    """Write ``name.json`` and ``name.md`` in a folder, made if missing."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", result)
    tables = [table.markdown() for table in STUDIES[name](result)]
    write_atomically(out / f"{name}.md", "\n".join([f"# {title}\n", *tables]))


def studies(out: Path) -> list[Table]:
    """The tables of the studies whose results lie in this folder.

    Raises:
        DataError: one is damaged.
    """
    found: list[Table] = []
    for name, make in STUDIES.items():
        file = out / f"{name}.json"
        try:
            found += make(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DataError(f"{file} is damaged; delete it or run tacit study again") from None
    return found


def _transfer(result: Mapping[str, Any]) -> list[Table]:
    families = result["families"]
    matrix = [
        Line(f"{name} ({made})", [points(value) for value in gains])
        for name, gains, made in zip(families, result["gain"], result["memories"], strict=True)
    ]
    sets = [
        Line(
            f"{row['source']} → {row['target']}, floor {row['floor']:g}",
            [
                str(row["memories"]),
                f"{row['recalled']} of {row['problems']}",
                percent(row["zero_shot"]["mean"]),
                *(measured(row[name]) for name in ("memory", "routed", "verifier", "routed_greedy")),
            ],
        )
        for row in result["sets"]
    ]
    return [
        Table(
            "Study: from family to family",
            "Gain over zero-shot in points, sampled, unrouted, whatever the similarity: memories of the family on the "
            f"left (how many) on problems of the family above. Own family {measured(result['own'])}, another one "
            f"{measured(result['other'])}.",
            ["learned on", *families],
            [("", matrix)],
            folded=True,
        ),
        Table(
            "Study: from data set to data set",
            "Zero-shot accuracy in percent and gain over it in points on fresh problems; sampled, but for the last "
            "column. Verifier alone: it chooses between two answers without memory; what routing gains no more than "
            "that is not the memories' doing.",
            [
                *("learned on → asked on", "memories", "recalled", "zero-shot"),
                *("memory", "routed", "verifier alone", "routed, greedy"),
            ],
            [("", sets)],
        ),
    ]


def _signal(result: Mapping[str, Any]) -> list[Table]:
    settings, run = result["settings"], result["settings"]["run"]
    names = ("pass", "vote", "lead", "greedy", "answered")
    lines = [
        Line(
            f"{'* ' if cell['signal'] else ''}{cell['data']}",
            [str(cell["n"]), *(measured(cell[name], points if name == "lead" else percent) for name in names)],
        )
        for cell in result["cells"]
    ]
    named = [f"--task {task} --data {address}" for task, address in result["streams"].items()]
    ways = {
        f"{cell['samples']} samples of up to {cell['max_tokens']} tokens at T = {cell['temperature']:g}"
        for cell in result["cells"]
    }
    return [
        Table(
            f"Study: where {run['model']} has signal",
            f"Per cell {settings['problems']} problems of {' or '.join(sorted(ways))}, seed {run['seed']}; in "
            "percent, with 95 % intervals over problems. * "
            f"marks pass@1 from {percent(settings['low'])} to {percent(settings['high'])} with a vote at least "
            f"{percent(settings['lead'])} above it. A level is left out where an easier one is surely below. "
            + (f"Streams of these: {'; '.join(named)}" if named else "There is none."),
            ["data", "problems", "pass@1", "vote", "vote over pass@1", "greedy", "with an answer"],
            [("", lines)],
        )
    ]


def _keys(result: Mapping[str, Any]) -> list[Table]:
    def shares(row: Mapping[str, Any]) -> list[str]:
        names = ("recalled", "own", "refused", "refused_unlike")
        return [f"{row['floor']:.2f}", *(percent(row[name]) for name in names)]

    rows = result["keys"]
    lines = [
        Line(
            row["key"],
            ["{:.2f} to {:.2f}".format(*row["apart"]), percent(row["nearest"]), *shares(row), *shares(row["fitted"])],
        )
        for row in rows
    ]
    counts = rows[0]["n"] if rows else [0, 0, 0]
    return [
        Table(
            f"Study: which key finds memories of the right kind on {result['settings']['run']['model']}",
            f"{result['problems']} problems of {len(result['families'])} families and {result['unlike']} of other "
            f"sources, {counts[0]} recalls of like problems, {counts[1]} of other kinds, {counts[2]} of unlike ones. "
            "Apart: 5 to 95 % of the similarities between problems of different kinds. Own kind: share of recalls (of "
            "the nearest, whatever the similarity, in the second column). Refused: nothing is recalled. First at the "
            "floor of the settings, then at the one that refuses 80 % of the problems of other kinds. In percent.",
            [
                *("key", "apart", "nearest of own kind"),
                *("floor", "recalled", "own kind", "other kinds refused", "unlike refused") * 2,
            ],
            [("", lines)],
        )
    ]


STUDIES = {"transfer": _transfer, "signal": _signal, "keys": _keys}
"""By the name of their files."""
