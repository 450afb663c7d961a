"""From the cells of a comparison to the figures of one row of its table.

Builds on comparison_cells, comparison_memories and metrics; it reads marks, never gold answers. Seeds are pooled and
also told one by one. Every interval is a 95 % bootstrap interval over *problems*: a problem is drawn with all its
samples, with the answers of every method compared (so differences are paired), and with every seed under which it
occurs (a data file has the same problems under each seed, and thirty problems asked three times are still thirty). A
problem on which a method failed is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tacit.experiments.report import metrics
from tacit.experiments.report.bootstrap import Floats, bootstrap_means, prefix_accuracy
from tacit.experiments.report.cells import Figures, Result, Stream, kind
from tacit.experiments.report.memories import labels, retrieval, router, votes
from tacit.experiments.report.metrics import Row

Interval = tuple[float, float, float]

RESAMPLES = 2000
PARTS = 5
"""Parts of the stream whose accuracy is told."""
BLOCKS = 4
"""Parts of the stream whose problems, asked again at its end, are told apart."""
RIVALS = ("frozen", "text", "trained")
"""Kinds of methods that ELM's rows are compared with, where they ran on the same streams."""
COUNTS = ("learned", "sharpened", "corrupted", "greedy_learned", "greedy_corrupted")
MARKS = ("correct", "greedy_correct", "majority_correct", "any_correct")


def intervals(ids: Sequence[str], columns: Mapping[str, Floats]) -> dict[str, Interval]:
    """(mean, low, high) per column; values of one id are drawn together.

    Args:
        ids: problem of each value, at least one.
        columns: float64 [n] each, no NaN.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(ids))}
    table = np.zeros((len(places), len(columns) + 1))
    np.add.at(table, [places[name] for name in ids], np.column_stack([*columns.values(), np.ones(len(ids))]))
    drawn = bootstrap_means(table, seed=0, resamples=RESAMPLES)
    low, high = np.percentile(drawn[:, :-1] / drawn[:, -1:], [2.5, 97.5], axis=0)
    return {
        name: (float(values.mean()), float(low[at]), float(high[at]))
        for at, (name, values) in enumerate(columns.items())
    }


def _named(name: str, value: Interval, mean: str | None = None) -> Figures:
    return {mean or name: value[0], f"{name}_low": value[1], f"{name}_high": value[2]}


Keyed = dict[tuple[int, str], Floats]
"""Marks by (seed, problem id), each in the order of MARKS."""


def _marks(results: Iterable[Result]) -> Keyed:
    return {
        (result.seed, row["id"]): _values(row)
        for result in results
        for row in result.rows
        if row["correct"] is not None
    }


def _values(row: Row) -> Floats:
    return np.array([*(float(row[name]) for name in MARKS[:3]), float(any(row["rights"]))])


def _paired(mine: Keyed, other: Keyed) -> tuple[list[str], Floats, Floats]:
    """Ids and marks, float64 [n, marks] each, of what both have."""
    shared = [key for key in mine if key in other]
    return (
        [name for _, name in shared],
        np.array([mine[key] for key in shared]).reshape(-1, len(MARKS)),
        np.array([other[key] for key in shared]).reshape(-1, len(MARKS)),
    )


# -- one row ----------------------------------------------------------------------------------------------------


def row(key: Stream, streams: Mapping[Stream, Sequence[Result]]) -> Figures:
    """The figures of one row; what each is called and means is said in comparison_report.write_comparison."""
    label, data, order = key
    results = streams[key]
    base = streams.get(("zero-shot", data, order), ())
    records = [result.record for result in results]
    found = [one for result in results for one in result.rows]
    marked = [one for one in found if one["correct"] is not None]
    return {
        "method": label,
        "data": data,
        "order": order,
        "n": len(found),
        "scored": len(marked),
        "problems": len({one["id"] for one in found}),
        "seeds": len(results),
        "failed": sum(one["failed"] is not None for one in found),
        "samples": max((len(one["answers"]) for one in found), default=0),
        **_accuracy(results, base),
        "against": against(results, _rivals(streams, data, order)),
        "online": online(results),
        "router": router(found),
        "retrieval": retrieval(results),
        "labels": labels(found),
        "votes": votes(marked) if label == "zero-shot" else None,
        **forgetting(results),
        **transfer(results, base),
        **costs(results),
        "trainable": max(record.get("trainable", 0) for record in records),
        "gradient_steps": sum(record.get("gradient_steps", 0) for record in records),
        "peak_memory": max(record["peak_memory"] for record in records),
        "uses_labels": records[0]["uses_labels"],
        "offline": any(record.get("tokens_prepare") for record in records),
    }


def _accuracy(results: Sequence[Result], base: Sequence[Result]) -> Figures:
    """Accuracies, gains over zero-shot and harm; nothing where no problem has a gold answer."""
    mine, zero = _marks(results), _marks(base)
    if not mine:
        return {"by_seed": []}
    table = np.array(list(mine.values()))
    columns = dict(zip(MARKS, table.T, strict=True))
    ids, own, other = _paired(mine, zero)
    if len(ids) == len(mine):
        columns |= {"gain": own[:, 0] - other[:, 0], "greedy_gain": own[:, 1] - other[:, 1]}
    held = intervals([name for _, name in mine], columns)
    figures = {
        "accuracy": held["correct"][0],
        "low": held["correct"][1],
        "high": held["correct"][2],
        **_named("greedy", held["greedy_correct"]),
        **_named("majority", held["majority_correct"]),
        "pass_at_k": held["any_correct"][0],
        "by_seed": _by_seed(mine, zero),
    }
    if "gain" not in held:
        return figures
    before = {(result.seed, row["id"]): row for result in base for row in result.rows}
    pairs = [
        {"zero_shot": before[result.seed, row["id"]], "method": row}
        for result in results
        for row in result.rows
        if (result.seed, row["id"]) in mine
    ]
    changed = metrics.changes(pairs, "method")
    return {
        **figures,
        **_named("gain", held["gain"]),
        **_named("greedy_gain", held["greedy_gain"]),
        **{name: changed[name] for name in COUNTS},
        "harm": changed["corrupted"] / changed["learned"] if changed["learned"] else None,
    }


def _by_seed(mine: Keyed, zero: Keyed) -> list[Figures]:
    found = []
    for seed in dict.fromkeys(seed for seed, _ in mine):
        one = {key: values for key, values in mine.items() if key[0] == seed}
        own = np.array(list(one.values()))
        figures = {"seed": seed, "n": len(one), "accuracy": float(own[:, 0].mean()), "greedy": float(own[:, 1].mean())}
        if all(key in zero for key in one):
            gains = (own - np.array([zero[key] for key in one])).mean(axis=0)
            figures |= {"gain": float(gains[0]), "greedy_gain": float(gains[1])}
        found.append(figures)
    return found


def _rivals(streams: Mapping[Stream, Sequence[Result]], data: str, order: str) -> dict[str, Sequence[Result]]:
    return {
        key[0]: held
        for key, held in streams.items()
        if key[1:] == (data, order) and kind(str(held[0].record["method"])) in RIVALS
    }


def against(results: Sequence[Result], rivals: Mapping[str, Sequence[Result]]) -> Figures:
    """ELM's gain over each rival on the problems that both were asked: sampled, greedy, and vote against vote."""
    if not str(results[0].record["method"]).startswith("elm"):
        return {}
    mine = _marks(results)
    # Rivals asked the same problems, which is nearly always all of them, share one resampling.
    alike: dict[tuple[str, ...], dict[str, Floats]] = {}
    for name, other in rivals.items():
        ids, own, theirs = _paired(mine, _marks(other))
        if ids:
            alike.setdefault(tuple(ids), {})[name] = own - theirs
    found = {}
    for shared, held in alike.items():
        columns = {f"{name}/{at}": gains[:, at] for name, gains in held.items() for at in range(3)}
        drawn = intervals(shared, columns)
        for name in held:
            gain, greedy, majority = (drawn[f"{name}/{at}"] for at in range(3))
            found[name] = {
                "n": len(shared),
                "gain": gain[0],
                "low": gain[1],
                "high": gain[2],
                **_named("greedy_gain", greedy),
                **_named("majority_gain", majority),
            }
    return {name: found[name] for name in rivals if name in found}


def curve(results: Sequence[Result], mark: str = "correct") -> Floats:
    """Mark at each place of the stream, the mean over seeds; float64 [n], cut to the shortest stream."""
    marks = [[float(row[mark]) for row in result.rows if row[mark] is not None] for result in results]
    shortest = min(map(len, marks), default=0)
    if not shortest:
        return np.zeros(0)
    means: Floats = np.array([held[:shortest] for held in marks], dtype=np.float64).mean(axis=0)
    return means


def online(results: Sequence[Result]) -> Figures | None:
    """Accuracy as the stream goes on, at the ends of ``PARTS`` equal parts: of all problems so far (``prefix``) and
    of those of the part (``windowed``). None for a stream shorter than that."""
    sampled, greedy = curve(results), curve(results, "greedy_correct")
    if len(sampled) < PARTS:
        return None
    ends = np.cumsum([len(part) for part in np.array_split(sampled, PARTS)])
    figures: Figures = {"ends": [int(end) for end in ends]}
    for prefix, values in (("", sampled), ("greedy_", greedy)):
        so_far = prefix_accuracy(values)
        figures[f"{prefix}prefix"] = [float(so_far[end - 1]) for end in ends]
        figures[f"{prefix}windowed"] = [float(part.mean()) for part in np.array_split(values, PARTS)]
    return figures


# -- probes and costs -------------------------------------------------------------------------------------------


def forgetting(results: Sequence[Result]) -> Figures:
    """Change on problems of the stream asked again at its end, against when they were first asked; below 0: forgotten.

    ``replay`` (sampled) and ``replay_greedy`` with intervals, ``replay_n``, and ``replay_blocks`` by place in the
    stream, the earliest first.
    """
    ids: list[str] = []
    changes: list[tuple[float, float]] = []
    blocks: list[list[float]] = [[] for _ in range(BLOCKS)]
    for result in results:
        first = {row["id"]: row for row in result.rows}
        for probe in result.probes:
            if probe["kind"] == "replay" and probe["correct"] is not None:
                before = first[probe["id"]]
                ids.append(probe["id"])
                changes.append(
                    (
                        probe["correct"] - before["correct"],
                        float(probe["greedy_correct"]) - float(before["greedy_correct"]),
                    )
                )
                blocks[before["position"] * BLOCKS // len(result.rows)].append(changes[-1][0])
    if not ids:
        return {"replay": None, "replay_n": 0, "replay_blocks": None}
    held = intervals(ids, dict(zip(("replay", "replay_greedy"), np.array(changes).T, strict=True)))
    return {
        **_named("replay", held["replay"]),
        **_named("replay_greedy", held["replay_greedy"]),
        "replay_n": len(ids),
        "replay_blocks": [{"n": len(held), "change": float(np.mean(held)) if held else None} for held in blocks],
    }


def transfer(results: Sequence[Result], base: Sequence[Result]) -> Figures:
    """Fresh problems at the end, by data source: accuracy (``transfer``) and what zero-shot got on the same ones
    (``transfer_gain``, paired, with intervals)."""
    zero = {(data, *key): values for data, held in _probed(base).items() for key, values in held.items()}
    accuracy, gains = {}, {}
    for data, held in _probed(results).items():
        own = np.array(list(held.values()))
        accuracy[data] = float(own[:, 0].mean())
        if all((data, *key) in zero for key in held):
            difference = own - np.array([zero[data, *key] for key in held])
            found = intervals([name for _, name in held], {"gain": difference[:, 0], "greedy_gain": difference[:, 1]})
            gains[data] = {
                "n": len(held),
                "accuracy": accuracy[data],
                "greedy": float(own[:, 1].mean()),
                "gain": found["gain"][0],
                "low": found["gain"][1],
                "high": found["gain"][2],
                **_named("greedy_gain", found["greedy_gain"]),
            }
    return {"transfer": accuracy or None, "transfer_gain": gains or None}


def _probed(results: Sequence[Result]) -> dict[str, Keyed]:
    found: dict[str, Keyed] = {}
    for result in results:
        for probe in result.probes:
            if probe["kind"] == "transfer" and probe["correct"] is not None:
                found.setdefault(probe["data"], {})[result.seed, probe["id"]] = _values(probe)
    return found


def costs(results: Sequence[Result]) -> Figures:
    """Tokens and seconds of the stream and of what came before it; probes are no part of them.

    A failed cell is charged with all it spent.
    """
    totals = dict.fromkeys(("tokens_answer", "tokens_learn", "tokens_prepare", "tokens"), 0.0)
    seconds = 0.0
    for result in results:
        record = result.record
        spent = {
            "tokens_answer": sum(row.get("tokens_answer", 0.0) for row in result.rows),
            "tokens_learn": sum(row.get("tokens_learn", 0.0) for row in result.rows),
            "tokens_prepare": record.get("tokens_prepare", 0),
        }
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
