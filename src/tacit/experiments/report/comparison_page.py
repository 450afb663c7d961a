"""The page of a comparison: one self-contained file that says what was compared, found and spent, and how it was set.

Builds on comparison_tables, comparison_maps' pictures and report's templates. Tables of studies that lie in the same
folder (quality.json, transfer.json: ``tacit study``) are shown as well. No scripts, nothing from elsewhere; all text is
escaped, because names and errors come from anyone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tacit import __version__
from tacit.errors import DataError
from tacit.experiments.report.cells import Figures, Result, Stream
from tacit.experiments.report.comparison_plots import Picture
from tacit.experiments.report.grid import MISSING, Line, Rows, Table, between, points
from tacit.experiments.report.run import templates
from tacit.experiments.report.tables import tables


def render(
    out: Path, rows: Sequence[Figures], streams: Mapping[Stream, Sequence[Result]], pictures: Sequence[Picture]
) -> str:
    """report.html as text.

    Raises:
        DataError: a study in the folder is damaged.
    """
    results = [result for held in streams.values() for result in held]
    shared, other = settings(results)
    models = list(dict.fromkeys(result.record["settings"].get("model") for result in results))
    held = Rows(rows)
    found = tables(held)
    return (
        templates()
        .get_template("comparison.html.jinja")
        .render(
            models=", ".join(map(str, models)),
            streams=[held.name(stream) for stream in held.streams],
            seeds=sorted({result.seed for result in results}),
            methods=len(held.methods),
            testbed="testbed" in models,
            verified=any(_verified(result) for result in results),
            labelled=[method for method, row in held.methods.items() if row["uses_labels"]],
            offline=[method for method, row in held.methods.items() if row["offline"]],
            unjudged=[name for name in ("elm-vote", "elm-confident") if name in held.methods],
            unscored=sum(row["n"] - row["scored"] for row in rows),
            failed=[_failure(result) for result in results if result.record["status"] == "failed"],
            main=found[:1],
            tables=found[1:],
            studies=studies(out),
            pictures=[
                {
                    "title": picture.title,
                    "caption": picture.caption,
                    "alt": picture.alt,
                    "size": _size(picture.png),
                    "data": "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii"),
                }
                for picture in pictures
            ],
            shared=shared,
            other=other,
            version=__version__,
        )
    )


def _verified(result: Result) -> bool:
    """Whether a reward model routed: the testbed has one of its own."""
    held = result.record["settings"]
    return bool(held.get("reward_model")) or held.get("model") == "testbed"


def _failure(result: Result) -> str:
    record = result.record
    return f"{record['label']} on {record['data']}, {record['order']}, seed {record['seed']}: {record['error']}"


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, which a PNG says in its first bytes."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def settings(results: Sequence[Result]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(setting, value) that all methods share, and (label, what it has otherwise)."""
    flat: dict[str, dict[str, str]] = {}
    for result in results:
        flat.setdefault(result.record["label"], {}).update(_flat(result.record["settings"]))
    names = list(dict.fromkeys(name for held in flat.values() for name in held))
    usual: dict[str, str] = {}
    for name in names:
        values = [held.get(name, MISSING) for held in flat.values()]
        usual[name] = max(dict.fromkeys(values), key=values.count)
    other = []
    for label, held in flat.items():
        changed = [f"{name} {held.get(name, MISSING)}" for name in names if held.get(name, MISSING) != usual[name]]
        if changed:
            other.append((label, ", ".join(changed)))
    return [(name, value) for name, value in usual.items() if value != MISSING], other


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if name == "method":
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


# -- studies ----------------------------------------------------------------------------------------------------


def studies(out: Path) -> list[Table]:
    """Tables of ``tacit study quality`` and ``tacit study transfer``, if their results lie in this folder."""
    found: list[Table] = []
    for name, make in (("quality.json", _quality), ("transfer.json", _carried)):
        file = out / name
        if not file.exists():
            continue
        try:
            found += make(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{file} is damaged; delete it or run tacit study again") from None
    return found


def _quality(result: Mapping[str, Any]) -> list[Table]:
    known = [memory for memory in result["memories"] if memory["benefit"] is not None]
    signals = [
        Line(
            row["signal"] + (" (verifier)" if row["needs_verifier"] else ""),
            [_interval({**row, "mean": row["spearman"]}, _signed), _signed(row["auc"])[1:], str(row["n"])],
        )
        for row in result["signals"]
    ]
    rules = [
        Line(
            f"{row['name']}: {row['rule']} ({row['seeds']})",
            [
                f"{row['kept']} of {row['memories']}",
                _interval(row["benefit_kept"]),
                f"{row['harmful_kept']} of {row['harmful_kept'] + row['harmful_dropped']}",
                _interval(row["served"]),
                _interval(row["served_over_default"]),
            ],
        )
        for row in result["rules"]
    ]
    return [
        Table(
            "Study: what predicts a good memory",
            f"Signals known without labels against benefit, the change of accuracy on the held-out problems that a "
            f"memory would be recalled for; {len(known)} memories. Spearman: rank correlation with benefit. AUC: how "
            "often a helpful memory has more of the signal than another (0.5: chance).",
            (),
            ["signal", "Spearman", "AUC", "memories"],
            [("", signals)],
        ),
        Table(
            "Study: rules of admission",
            "Rules were chosen on the first seeds (choose) and are judged on the others (confirm). In points. "
            "Served: what held-out problems gain when each is answered with its nearest memory that is kept.",
            (),
            ["rule", "kept", "benefit of kept", "harmful kept", "served", "over default"],
            [("", rules)],
            folded=True,
        ),
    ]


def _carried(result: Mapping[str, Any]) -> list[Table]:
    families = result["families"]
    matrix = [
        Line(f"{name} ({made})", [points(value) for value in gains])
        for name, gains, made in zip(families, result["gain"], result["memories"], strict=True)
    ]
    sets = [
        Line(
            f"{row['source']} → {row['target']}, floor {row['floor']:g}",
            [
                f"{row['recalled']} of {row['problems']}",
                *(_interval(row[name]) for name in ("memory", "routed", "verifier", "routed_greedy")),
            ],
        )
        for row in result["sets"]
    ]
    return [
        Table(
            "Study: from family to family",
            "Gain over zero-shot in points, sampled, unrouted, whatever the similarity: memories of the family on the "
            f"left (how many) on problems of the family above. Own family {_interval(result['own'])}, another one "
            f"{_interval(result['other'])}.",
            (),
            ["learned on", *families],
            [("", matrix)],
            folded=True,
        ),
        Table(
            "Study: from data set to data set",
            "Gain over zero-shot in points on fresh problems; sampled, but for the last column. Verifier alone: it "
            "chooses between two answers without memory; what routing gains no more than that is not the memories' "
            "doing.",
            (),
            ["learned on → asked on", "recalled", "memory", "routed", "verifier alone", "routed, greedy"],
            [("", sets)],
        ),
    ]


def _signed(value: float | None) -> str:
    return MISSING * 2 if value is None else f"{value:+.2f}".replace("-", "−")


def _interval(value: Mapping[str, Any], shown: Callable[[float | None], str] = points) -> str:
    if value["mean"] is None or value["low"] is None:
        return MISSING
    return f"{shown(value['mean'])} {between(value['low'], value['high'], shown)}"
