"""The report of a comparison: table.json, report.html and plots/*.png, and the table for the eye.

Builds on cells, comparison_figures, comparison_tables, comparison_maps (pictures), study_tables and page. It is
written at the end of ``tacit compare`` and again at any time by ``tacit report DIR``, from the cells alone: no model,
no data. Seeds are pooled: n counts every problem of every seed, those on which a method failed included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tacit import __version__
from tacit.experiments.report.cells import KINDS, ORDERS, Cell, Result, Stream, find, grouped, kind, where
from tacit.experiments.report.comparison_figures import table_row
from tacit.experiments.report.comparison_maps import draw_all
from tacit.experiments.report.comparison_tables import Rows, tables
from tacit.experiments.report.figures import Figures
from tacit.experiments.report.page import MISSING, Picture, markdown_rows, percent, publish, render
from tacit.experiments.report.study_tables import studies


def write_comparison(out: Path, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make ``out/table.json``, ``report.html`` and ``plots/*.png`` from the cells of ``records``; returns the table.

    Rows have, accuracies and their differences in 0..1, intervals as ``X_low`` and ``X_high`` (``low`` and ``high``
    for the first value beside them):

    - ``method, data, order, kind``; ``n`` problems of all seeds, ``scored`` those with a gold answer, ``problems``
      distinct ones, ``seeds``, ``failed`` (counted as wrong), ``uses_labels``, ``offline``;
    - ``accuracy, low, high``: of one sampled answer (pass@1, estimated as avg@k with k = ``samples``), or of the only
      answer (``single``), which was chosen from many and is no sample; ``greedy``; ``majority`` (maj@k);
      ``pass_at_k``; ``by_seed``; ``online``: prefix and windowed accuracy by fifths;
    - ``unanswered``: responses in all, how many have no answer, and their share;
    - ``gain``, ``greedy_gain`` over zero-shot; ``against``: of ELM's rows over each rival;
    - ``learned, sharpened, corrupted`` by the vote, ``greedy_learned, greedy_corrupted``; ``harm`` is corrupted per
      learned, None if nothing was learned;
    - ``router, retrieval, labels, votes``: None where a method has no such thing;
    - ``replay``: change on earlier problems asked again at the end (below 0: forgetting), ``replay_blocks``;
      ``transfer``: accuracy on fresh problems by data source, ``transfer_gain`` over zero-shot; None without probes;
    - ``trainable, gradient_steps, seconds, peak_memory`` and ``tokens`` = ``tokens_answer`` + ``tokens_learn`` +
      ``tokens_prepare``; probes cost nothing here.
    """
    cells = [(Cell(one["label"], one["data"], one["order"], one["seed"]), one) for one in records]
    return _write(out, [Result.load(record, cell.folder(out)) for cell, record in cells])


def rewrite(out: Path) -> Figures:
    """The same from all finished cells that lie in ``out``, in the order of the table that is there.

    Raises:
        DataError: there are no cells, or damaged ones.
    """
    try:
        held = json.loads((out / "table.json").read_text(encoding="utf-8"))["rows"]
        known = [(row["method"], row["data"], row["order"]) for row in held]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = []  # interrupted before it was written
    methods, streams = list(dict.fromkeys(key[0] for key in known)), list(dict.fromkeys(key[1:] for key in known))

    def rank(result: Result) -> tuple[int, int, str, int, str, int]:
        record = result.record
        label, stream = record["label"], (record["data"], record["order"])
        return (
            methods.index(label) if label in methods else len(methods),
            list(KINDS).index(kind(str(record["method"]))),
            label,
            streams.index(stream) if stream in streams else len(streams),
            record["data"],
            ORDERS.index(record["order"]),
        )

    return _write(out, sorted(find(out), key=rank))


def _write(out: Path, results: Sequence[Result]) -> Figures:
    streams = grouped(results)
    rows = [table_row(key, streams) for key in streams]
    table = {"rows": rows, "failed": [one.record["label"] for one in results if one.record["status"] == "failed"]}
    pictures = draw_all(rows, streams)
    publish(out, ("table.json", table, 1), pictures, _page(out, rows, streams, pictures))
    return table


def _page(
    out: Path, rows: Sequence[Figures], streams: Mapping[Stream, Sequence[Result]], pictures: Sequence[Picture]
) -> str:
    """report.html: what was compared, found and spent, and how it was set."""
    results = [result for held in streams.values() for result in held]
    shared, other = _settings(results)
    models = list(dict.fromkeys(result.record["settings"].get("model") for result in results))
    held = Rows(rows)
    found = tables(held)
    return render(
        "comparison.html.jinja",
        models=", ".join(map(str, models)),
        tasks=list(dict.fromkeys(task for one in results if (task := one.record["settings"].get("task")))),
        streams=held.names,
        seeds=sorted({result.seed for result in results}),
        methods=len(held.methods),
        testbed=any(str(model).partition(":")[0] == "testbed" for model in models),
        verified=any(_verified(result) for result in results),
        labelled=[method for method, row in held.methods.items() if row["uses_labels"]],
        offline=[method for method, row in held.methods.items() if row["offline"]],
        single=[method for method, row in held.methods.items() if row["single"]],
        unjudged=["elm-vote"] if "elm-vote" in held.methods else [],
        unscored=sum(row["n"] - row["scored"] for row in rows),
        asked=sum(row["n"] for row in rows),
        failed=[
            f"{one['label']} on {one['data']}, {one['order']}, seed {one['seed']}: {one['error']}"
            for one in (result.record for result in results)
            if one["status"] == "failed"
        ],
        main=found[:1],
        tables=[*found[1:], *studies(out)],
        pictures=pictures,
        shared=shared,
        other=other,
        version=__version__,
    )


def _verified(result: Result) -> bool:
    """Whether a reward model routed: the testbed has one of its own."""
    held = result.record["settings"]
    return bool(held.get("reward_model")) or held.get("model") == "testbed"


def _settings(results: Sequence[Result]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(setting, value) that all methods share, and (label, what it has otherwise)."""
    flat: dict[str, dict[str, str]] = {}
    for result in results:
        flat.setdefault(result.record["label"], {}).update(_flat(result.record["settings"]))
    usual: dict[str, str] = {}
    for name in dict.fromkeys(name for held in flat.values() for name in held):
        values = [held.get(name, MISSING) for held in flat.values()]
        usual[name] = max(dict.fromkeys(values), key=values.count)
    other = []
    for label, held in flat.items():
        own = [(name, held.get(name, MISSING)) for name in usual]
        if changed := [f"{name} {value}" for name, value in own if value != usual[name]]:
            other.append((label, ", ".join(changed)))
    return [(name, value) for name, value in usual.items() if value != MISSING], other


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif name != "method":
            found[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def as_text(table: Mapping[str, Any]) -> str:
    """The table for a terminal or a Markdown page; accuracies in percent, sampled / greedy."""
    heads = ["method", "data", "sampled", "greedy", "no answer", "gain sampled", "gain greedy"]
    heads += ["learned / sharpened / corrupted", "replay", "trained", "tokens", "seconds"]
    lines = []
    for row in table["rows"]:
        said = " (labels)" * row["uses_labels"] + " (one answer)" * row["single"]
        cells = [row["method"] + said, where(row["data"], row["order"])]
        silent = percent(row["unanswered"]["share"])
        if "accuracy" not in row:
            lines.append([*cells, "no gold answers", "", silent, *[""] * (len(heads) - 5)])
            continue
        failed = f", {row['failed']} failed" if row["failed"] else ""
        gains = [
            f"{100 * row[key]:+.1f} [{100 * row[key + '_low']:.1f}, {100 * row[key + '_high']:.1f}]"
            if key in row  # zero-shot may be missing from an interrupted comparison
            else ""
            for key in ("gain", "greedy_gain")
        ]
        cells += [f"{100 * row['accuracy']:.1f} of {row['n']}{failed}", f"{100 * row['greedy']:.1f}", silent, *gains]
        cells.append(f"{row['learned']} / {row['sharpened']} / {row['corrupted']}" if "learned" in row else "")
        cells.append("" if row["replay"] is None else f"{100 * row['replay']:+.1f}")
        lines.append([*cells, f"{row['trainable']:,}", f"{row['tokens']:,}", f"{row['seconds']:.0f}"])
    return markdown_rows(heads, lines)
