"""From the cells of a comparison to the figures of its table, a row at a time; and what became of its memories.

Builds on cells, figures, and on answers for the margin of a vote. Seeds are pooled and also told one by one. A problem
on which a method failed is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tacit.experiments.report import figures
from tacit.experiments.report.cells import Result, Stream, kind
from tacit.experiments.report.figures import Figures, Floats, Interval, Row
from tacit.experiments.scoring import asked, counted
from tacit.tasks.maths import MATHS

PARTS = 5
"""Parts of the stream whose accuracy is told."""
BLOCKS = 4
"""Parts of the stream whose problems, asked again at its end, are told apart."""
RIVALS = ("frozen", "text", "trained")
"""Kinds of methods that ELM's rows are compared with, where they ran on the same streams."""
COUNTS = ("learned", "sharpened", "corrupted", "greedy_learned", "greedy_corrupted")
MARKS = ("correct", "greedy_correct", "majority_correct", "any_correct")
GAINS = ("gain", "greedy_gain", "majority_gain")
"""Differences of the first marks."""

Keyed = dict[tuple[int, str], Floats]
"""Marks by (seed, problem id), each in the order of MARKS."""


def table_row(key: Stream, streams: Mapping[Stream, Sequence[Result]]) -> Figures:
    """The figures of one row; what each is called and means is said in comparison.write_comparison."""
    label, data, order = key
    results = streams[key]
    base = streams.get(("zero-shot", data, order), ())
    records = [result.record for result in results]
    method = str(records[0]["method"])
    found = [one for result in results for one in result.rows]
    marked = [one for one in found if one["correct"] is not None]
    rivals = {
        other[0]: held
        for other, held in streams.items()
        if other[1:] == (data, order) and kind(str(held[0].record["method"])) in RIVALS and method.startswith("elm")
    }
    samples = max((len(one["answers"]) for one in found), default=0)
    return {
        "method": label,
        "data": data,
        "order": order,
        "n": len(found),
        "scored": len(marked),
        "problems": len({one["id"] for one in found}),
        "seeds": len(results),
        "failed": sum(one["failed"] is not None for one in found),
        "unanswered": counted(map(asked, found)),
        "samples": samples,
        "single": samples == 1 < records[0]["settings"].get("sampling", {}).get("samples", 1),
        **_accuracy(results, base),
        "against": _against(results, rivals),
        "online": _online(results),
        "router": _router(marked),
        "retrieval": _retrieval(results),
        "labels": _labels(found),
        "votes": _votes(marked) if label == "zero-shot" else None,
        **_forgetting(results),
        **_transfer(results, base),
        **_costs(results),
        "trainable": max(record.get("trainable", 0) for record in records),
        "gradient_steps": sum(record.get("gradient_steps", 0) for record in records),
        "peak_memory": max(record["peak_memory"] for record in records),
        "uses_labels": records[0]["uses_labels"],
        "offline": any(record.get("tokens_prepare") for record in records),
        "kind": kind(method),
    }


# -- marks and what they differ by ------------------------------------------------------------------------------


def _marks(results: Iterable[Result]) -> Keyed:
    return {(result.seed, row["id"]): _values(row) for result in results for row in result.rows if _is_marked(row)}


def _is_marked(row: Row) -> bool:
    return row["correct"] is not None


def _values(row: Row) -> Floats:
    return np.array([*(float(row[name]) for name in MARKS[:3]), float(any(row["rights"]))])


def _differences(mine: Keyed, other: Keyed) -> tuple[list[str], Floats]:
    """The ids of the problems that both have, and how their marks differ, float64 [n, marks]."""
    shared = [key for key in mine if key in other]
    table = np.array([mine[key] - other[key] for key in shared]).reshape(-1, len(MARKS))
    return [name for _, name in shared], table


def _gains(differences: Floats, count: int = 2) -> dict[str, Floats]:
    return dict(zip(GAINS[:count], differences.T, strict=False))


def _named(held: Mapping[str, Interval], *names: str, bare: str = "") -> Figures:
    """Values with their bounds; those of ``bare`` are called "low" and "high" and not after it."""
    found: Figures = {}
    for name in names:
        start = "" if name == bare else f"{name}_"
        found |= dict(zip((name, f"{start}low", f"{start}high"), held[name], strict=True))
    return found


def _accuracy(results: Sequence[Result], base: Sequence[Result]) -> Figures:
    """Accuracies, gains over zero-shot and harm; nothing where no problem has a gold answer."""
    mine, zero = _marks(results), _marks(base)
    if not mine:
        return {"by_seed": []}
    columns = dict(zip(("accuracy", "greedy", "majority", "any"), np.array(list(mine.values())).T, strict=True))
    ids, differences = _differences(mine, zero)
    paired = len(ids) == len(mine)
    if paired:
        columns |= _gains(differences)
    held = figures.intervals([name for _, name in mine], columns)
    found = {
        **_named(held, "accuracy", "greedy", "majority", bare="accuracy"),
        "pass_at_k": held["any"][0],
        "by_seed": [_of_seed(seed, mine, zero) for seed in dict.fromkeys(seed for seed, _ in mine)],
    }
    if not paired:
        return found
    before = {(result.seed, row["id"]): row for result in base for row in result.rows}
    changed = figures.changes(
        (before[result.seed, row["id"]], row) for result in results for row in result.rows if _is_marked(row)
    )
    return {
        **found,
        **_named(held, *GAINS[:2]),
        **{name: changed[name] for name in COUNTS},
        "harm": changed["corrupted"] / changed["learned"] if changed["learned"] else None,
    }


def _of_seed(seed: int, mine: Keyed, zero: Keyed) -> Figures:
    own = {key: values for key, values in mine.items() if key[0] == seed}
    found = {"seed": seed, "n": len(own), **_means(own)}
    ids, differences = _differences(own, zero)
    if len(ids) == len(own):
        found |= {name: float(gain) for name, gain in zip(GAINS[:2], differences.mean(axis=0), strict=False)}
    return found


def _means(own: Keyed) -> Figures:
    sampled, greedy, *_ = np.array(list(own.values())).T
    return {"accuracy": float(sampled.mean()), "greedy": float(greedy.mean())}


def _against(results: Sequence[Result], rivals: Mapping[str, Sequence[Result]]) -> Figures:
    """ELM's gain over each rival on the problems that both were asked: sampled, greedy, and vote against vote."""
    mine = _marks(results)
    # Rivals asked the same problems, which is nearly always all of them, share one resampling.
    alike: dict[tuple[str, ...], dict[str, dict[str, Floats]]] = {}
    for name, other in rivals.items():
        ids, differences = _differences(mine, _marks(other))
        if ids:
            alike.setdefault(tuple(ids), {})[name] = _gains(differences, 3)
    found = {}
    for shared, held in alike.items():
        columns = {f"{name}/{gain}": values for name in held for gain, values in held[name].items()}
        drawn = figures.intervals(shared, columns)
        for name in held:
            gained = {gain: drawn[f"{name}/{gain}"] for gain in GAINS}
            found[name] = {"n": len(shared), **_named(gained, *GAINS, bare="gain")}
    return {name: found[name] for name in rivals if name in found}


def curve(results: Sequence[Result], mark: str = "correct") -> Floats:
    """Mark at each place of the stream, the mean over seeds; float64 [n], cut to the shortest stream."""
    marks = [[float(row[mark]) for row in result.rows if row[mark] is not None] for result in results]
    shortest = min(map(len, marks), default=0)
    means: Floats = np.array([held[:shortest] for held in marks or [[]]], dtype=np.float64).mean(axis=0)
    return means


def _online(results: Sequence[Result]) -> Figures | None:
    """Accuracy as the stream goes on, at the ends of ``PARTS`` equal parts: of all problems so far (``prefix``) and
    of those of the part (``windowed``). None for a stream shorter than that."""
    found: Figures = {}
    for start, mark in (("", "correct"), ("greedy_", "greedy_correct")):
        values = curve(results, mark)
        if len(values) < PARTS:
            return None
        parts = np.array_split(values, PARTS)
        found["ends"] = np.cumsum([len(part) for part in parts]).tolist()
        found[f"{start}prefix"] = [float(figures.prefix_accuracy(values)[end - 1]) for end in found["ends"]]
        found[f"{start}windowed"] = [float(part.mean()) for part in parts]
    return found


# -- probes and costs -------------------------------------------------------------------------------------------


def _forgetting(results: Sequence[Result]) -> Figures:
    """Change on problems of the stream asked again at its end, against when they were first asked; below 0: forgotten.

    ``replay`` (sampled) and ``replay_greedy`` with intervals, ``replay_n``, and ``replay_blocks`` by place in the
    stream, the earliest first.
    """
    again = {key: values for held in _probed(results, "replay").values() for key, values in held.items()}
    ids, differences = _differences(again, _marks(results))
    if not ids:
        return {"replay": None, "replay_n": 0, "replay_blocks": None}
    places = {
        (result.seed, row["id"]): row["position"] * BLOCKS // len(result.rows)
        for result in results
        for row in result.rows
    }
    blocks: list[list[float]] = [[] for _ in range(BLOCKS)]
    for key, (sampled, *_) in zip(again, differences, strict=True):
        blocks[places[key]].append(float(sampled))
    drawn = figures.intervals(ids, dict(zip(("replay", "replay_greedy"), differences.T, strict=False)))
    return {
        **_named(drawn, "replay", "replay_greedy"),
        "replay_n": len(ids),
        "replay_blocks": [{"n": len(held), "change": float(np.mean(held)) if held else None} for held in blocks],
    }


def _transfer(results: Sequence[Result], base: Sequence[Result]) -> Figures:
    """Fresh problems at the end, by data source: accuracy (``transfer``) and what zero-shot got on the same ones
    (``transfer_gain``, paired, with intervals)."""
    zero = _probed(base, "transfer")
    accuracy, gained = {}, {}
    for data, held in _probed(results, "transfer").items():
        means = _means(held)
        accuracy[data] = means["accuracy"]
        ids, differences = _differences(held, zero.get(data, {}))
        if len(ids) == len(held):
            drawn = figures.intervals(ids, _gains(differences))
            gained[data] = {"n": len(held), **means, **_named(drawn, *GAINS[:2], bare="gain")}
    return {"transfer": accuracy or None, "transfer_gain": gained or None}


def _probed(results: Sequence[Result], what: str) -> dict[str, Keyed]:
    found: dict[str, Keyed] = {}
    for result in results:
        for probe in result.probes:
            if probe["kind"] == what and _is_marked(probe):
                found.setdefault(probe["data"], {})[result.seed, probe["id"]] = _values(probe)
    return found


def _costs(results: Sequence[Result]) -> Figures:
    """Tokens and seconds of the stream and of what came before it; probes are no part of them.

    A failed cell is charged with all it spent.
    """
    totals = dict.fromkeys(("tokens_answer", "tokens_learn", "tokens_prepare", "tokens"), 0.0)
    seconds = 0.0
    for result in results:
        record = result.record
        spent = {name: sum(row.get(name, 0.0) for row in result.rows) for name in ("tokens_answer", "tokens_learn")}
        spent["tokens_prepare"] = record.get("tokens_prepare", 0)
        done = record["status"] == "done"
        for name, count in spent.items():
            totals[name] += count
        totals["tokens"] += sum(spent.values()) if done else record["tokens"]
        streamed = sum(row.get("seconds", 0.0) for row in result.rows) + record.get("seconds_prepare", 0.0)
        seconds += streamed if done else record["seconds"]
    problems = max(1, sum(len(result.rows) for result in results))
    return {
        **{name: round(count) for name, count in totals.items()},
        "tokens_per_problem": totals["tokens"] / problems,
        "tokens_answer_per_problem": totals["tokens_answer"] / problems,
        "tokens_learn_per_problem": (totals["tokens_learn"] + totals["tokens_prepare"]) / problems,
        "seconds": seconds,
    }


# -- memories ---------------------------------------------------------------------------------------------------


def _router(marked: Iterable[Row]) -> Figures | None:
    """The router's 2 x 2; None for a method that never had a memory's answer to choose."""
    choices = [
        (row["arms"]["zero_shot"], row["arms"]["memory"], row)
        for row in marked
        if "zero_shot" in row["arms"] and "memory" in row["arms"]
    ]
    return {"problems": len(choices), **figures.router_table(choices)} if choices else None


def _retrieval(results: Sequence[Result]) -> Figures | None:
    """How often what was recalled came from a problem of the same family; a row may name several sources."""
    recalls = []
    for result in results:
        family_of = {row["id"]: row["family"] for row in result.rows}
        for row in result.rows:
            sources = row["notes"].get("sources") or [row["notes"].get("source")]
            recalls += [(row["family"], family_of.get(source)) for source in sources if source]
    return figures.recall_precision(recalls) if recalls else None


def _labels(rows: Iterable[Row]) -> Figures | None:
    """How often what was learned was right: in all, by margin of the vote, of what was kept. None without labels."""
    found, kept = figures.label_accuracy(
        (row["lesson"].get("label_correct"), row["lesson"].get("margin"), row["lesson"]["kept"])
        for row in rows
        if row["lesson"]
    )
    return {**found, "kept": kept["n"], "kept_right": kept["right"]} if found["n"] else None


def _votes(rows: Iterable[Row]) -> Figures:
    """How often the vote over the samples is right, by its margin: ``{n, right, by_margin}``."""
    marked = ((row["majority_correct"], MATHS.vote(row["answers"]).margin, False) for row in rows)
    return figures.label_accuracy(marked)[0]


def _memory_gain(row: Row) -> float | None:
    """Accuracy with the recalled memory minus without, before routing; None where none was recalled."""
    arms = row["arms"]
    if not _is_marked(row) or "memory" not in arms:
        return None
    return float(arms["memory"]["correct"] - arms["zero_shot"]["correct"])


def similarities(results: Sequence[Result]) -> list[tuple[float, float]]:
    """(similarity of the recalled memory, accuracy with it minus without), one per problem it was recalled for."""
    return [
        (float(row["notes"]["similarity"]), gain)
        for result in results
        for row in result.rows
        if row["notes"].get("similarity") is not None and (gain := _memory_gain(row)) is not None
    ]


def memories(results: Sequence[Result]) -> list[Figures]:
    """What was known of each lesson when it was learned, and what came of it.

    ``{share, margin, reward, right, kept, recalls, gain}``: ``reward`` of the last step; ``gain`` the mean change of
    accuracy on the problems it was recalled for, None if it never was.
    """
    found = []
    for result in results:
        gains: dict[str, list[float]] = defaultdict(list)
        for row in result.rows:
            if row["notes"].get("memory") and (gain := _memory_gain(row)) is not None:
                gains[row["notes"]["memory"]].append(gain)
        for row in result.rows:
            lesson = row["lesson"]
            if not lesson or lesson.get("label_correct") is None or not lesson.get("rewards"):
                continue
            later = gains.get(lesson.get("memory") or "", [])
            found.append(
                {
                    "share": lesson.get("share"),
                    "margin": lesson.get("margin"),
                    "reward": float(lesson["rewards"][-1]),
                    "right": bool(lesson["label_correct"]),
                    "kept": bool(lesson["kept"]),
                    "recalls": len(later),
                    "gain": float(np.mean(later)) if later else None,
                }
            )
    return found
