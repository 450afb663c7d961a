"""The tables of a comparison's page: accuracy, gains, harm, the course of the stream, memories, cost.

Builds on comparison_grid and on what comparison_metrics found; comparison_page lays them out. Accuracies and gains are
in percent and points with 95 % intervals, and every count says of how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tacit.experiments.report.cells import Figures, marks, short
from tacit.experiments.report.grid import (
    MISSING,
    Line,
    Rows,
    Table,
    between,
    count,
    gained,
    of,
    percent,
    span,
)


def tables(rows: Rows) -> list[Table]:
    """All tables of the page, the main one first; those without data are left out."""
    found = [
        _accuracy(rows),
        _gains(rows),
        *_against(rows),
        _samples(rows),
        _harm(rows),
        _online(rows),
        _transfer(rows),
        _router(rows),
        _labels(rows),
        _margins(rows),
        _costs(rows),
        _seeds(rows),
    ]
    return [table for table in found if table]


def _scored(row: Figures) -> bool:
    return "accuracy" in row


def _accuracy(rows: Rows) -> Table | None:
    def make(row: Figures) -> list[str]:
        return [
            f"{percent(row['accuracy'])} {between(row['low'], row['high'])}",
            f"{percent(row['greedy'])} {between(row['greedy_low'], row['greedy_high'])}",
        ]

    def remark(held: Sequence[Figures]) -> str:
        failed = sum(row["failed"] for row in held)
        return f"failed on {failed} of {sum(row['n'] for row in held)}" if failed else ""

    counts = "; ".join(
        f"{rows.name(stream)}: {held[0]['n']} answers to {held[0]['problems']} problems under {held[0]['seeds']} seeds"
        for stream in rows.streams
        if (held := [row for row in rows.all if (row["data"], row["order"]) == stream])
    )
    return rows.table(
        "Accuracy",
        f"Percent right, with 95 % bootstrap intervals over problems. Sampled: one answer at the sampling temperature; "
        f"greedy: the answer at temperature 0. {counts}. A problem on which a method failed is wrong. Highest of the "
        "methods without labels in bold.",
        ["sampled", "greedy"],
        make,
        _scored,
        best=lambda row: [row["accuracy"], row["greedy"]],
        remark=remark,
    )


def _gains(rows: Rows) -> Table | None:
    return rows.table(
        "Gain over zero-shot",
        "In points, paired: on the same problems, with the same seeds.",
        ["sampled", "greedy"],
        lambda row: [gained(row, "gain"), gained(row, "greedy_gain")],
        lambda row: "gain" in row and row["method"] != "zero-shot",
    )


def _against(rows: Rows) -> list[Table]:
    """elm's gain over each rival; and, folded, that of the other ELM methods."""
    parts: dict[bool, list[tuple[str, Sequence[Line]]]] = {False: [], True: []}
    for method in rows.methods:
        held = rows.of(method)
        lines = []
        for rival in dict.fromkeys(name for row in held if row for name in row["against"]):
            found = [row["against"].get(rival) if row else None for row in held]
            cells = [cell for one in found for cell in (_gain_cells(one) if one else [MISSING] * 3)]
            lines.append(Line(rival, cells, marks=marks(rows.methods[rival])))
        if lines:
            parts[method != "elm"].append(("" if method == "elm" else f"{method}, over", lines))
    note = (
        "Gain over each other method, in points, paired. Vote: the vote over its samples against the vote over the "
        "other's. majority has nothing but a vote, over more samples, so that column is the fair one for it."
    )
    groups = [(rows.name(stream), 3) for stream in rows.streams]
    heads = ["over", *["sampled", "greedy", "vote"] * len(rows.streams)]
    titles = {False: "elm against the others", True: "Other memory methods against the others"}
    return [Table(titles[fold], note, groups, heads, held, fold) for fold, held in parts.items() if held]


def _gain_cells(one: Figures) -> list[str]:
    return [gained(one, "gain", "low"), gained(one, "greedy_gain"), gained(one, "majority_gain")]


def _samples(rows: Rows) -> Table | None:
    def make(row: Figures) -> list[str]:
        vote = f"{percent(row['majority'])} {between(row['majority_low'], row['majority_high'])}"
        return [str(row["samples"]), percent(row["accuracy"]), vote, percent(row["pass_at_k"])]

    return rows.table(
        "Out of k samples",
        "avg@k: the mean over k samples, which estimates pass@1; maj@k: their vote; pass@k: at least one is right. "
        "What lifts avg@k and leaves maj@k and pass@k has sharpened what the model could do.",
        ["k", "avg@k", "maj@k", "pass@k"],
        make,
        _scored,
        folded=True,
    )


def _greedy(row: Figures) -> str:
    return f"{row['greedy_learned']} / {row['greedy_corrupted']}"


def _harm(rows: Rows) -> Table | None:
    def make(row: Figures) -> list[str]:
        ratio = MISSING if row["harm"] is None else f"{row['harm']:.2f}"
        return [*(str(row[name]) for name in ("learned", "sharpened", "corrupted")), ratio, _greedy(row)]

    return rows.table(
        "Help and harm",
        "Problems, against zero-shot, by the vote over the samples: learned (wrong to right), sharpened (right, and a "
        "larger share of right samples), corrupted (right to wrong). c / l: corrupted per learned. Greedy: wrong to "
        "right / right to wrong.",
        ["learned", "sharpened", "corrupted", "c / l", "greedy"],
        make,
        lambda row: "learned" in row and row["method"] != "zero-shot",
    )


def _online(rows: Rows) -> Table | None:
    return rows.table(
        "Accuracy by fifths of the stream",
        "Sampled, in percent, of the problems of each fifth alone: what was known by then shows in the later ones.",
        ["1st", "2nd", "3rd", "4th", "5th"],
        lambda row: [percent(value) for value in row["online"]["windowed"]],
        lambda row: row["online"],
        folded=True,
    )


def _transfer(rows: Rows) -> Table | None:
    targets = list(dict.fromkeys(target for row in rows.all for target in row["transfer_gain"] or ()))
    counts = [value["n"] for row in rows.all for value in (row["transfer_gain"] or {}).values()]
    asked = [row["replay_n"] for row in rows.all if row["replay"] is not None]

    def make(row: Figures) -> list[str]:
        gains = [(row["transfer_gain"] or {}).get(target) for target in targets]
        return [gained(row, "replay"), *(gained(gain, "gain", "low") if gain else MISSING for gain in gains)]

    sizes = [f"{span(asked)} asked again"] if asked else []
    sizes += [f"{span(counts)} fresh ones per data set"] if counts else []
    return rows.table(
        "Forgetting and transfer",
        "After the stream, everything frozen, sampled, in points. Again: change on problems of the stream since they "
        "were first asked (below 0: forgotten). On X: gain over zero-shot on fresh problems of X. Methods that use "
        f"labels are asked no fresh problems. Problems: {', '.join(sizes)}.",
        ["again", *(f"on {short(target)}" for target in targets)],
        make,
        lambda row: (row["replay"] is not None or row["transfer_gain"]) and row["method"] != "zero-shot",
    )


def _router(rows: Rows) -> Table | None:
    def cell(row: Figures, make: Callable[[Mapping[str, int]], str]) -> str:
        return " · ".join(make(row["router"][kind]) for kind in ("greedy", "sampled"))

    return rows.table(
        "Router",
        "Where a memory was recalled, greedy answers · samples. First what routing made of zero-shot's answers: wrong "
        "to right, right to wrong. Then what was there to be had: where only the memory's answer was right, how often "
        "it was taken; where only zero-shot's was, how often it was lost.",
        ["problems", "wrong → right", "right → wrong", "taken", "lost"],
        lambda row: [
            str(row["router"]["problems"]),
            cell(row, lambda one: str(one["wrong_right"])),
            cell(row, lambda one: str(one["right_wrong"])),
            cell(row, lambda one: of(one["gained"], one["could_gain"])),
            cell(row, lambda one: of(one["lost"], one["could_lose"])),
        ],
        lambda row: row["router"],
    )


def _labels(rows: Rows) -> Table | None:
    def make(row: Figures) -> list[str]:
        found, labels = row["retrieval"], row["labels"]
        return [
            of(found["same_family"], found["known"]) if found else MISSING,
            of(labels["right"], labels["n"]) if labels else MISSING,
            of(labels["kept_right"], labels["kept"]) if labels else MISSING,
        ]

    return rows.table(
        "Retrieval and labels",
        "Same family: of what was recalled, how much came from a problem of the same kind. Labels: of the answers that "
        "a method taught itself, how many are right; kept: of those that its gates let pass.",
        ["same family", "labels right", "kept right"],
        make,
        lambda row: row["retrieval"] or row["labels"],
    )


def _margins(rows: Rows) -> Table | None:
    """Votes of zero-shot and labels of elm by margin: bins down."""
    held = [(name, key, rows.of(name)) for name, key in (("zero-shot", "votes"), ("elm", "labels"))]
    known = [(name, key, found) for name, key, found in held if any(row and row.get(key) for row in found)]
    if not known:
        return None
    bins = next(row[key]["by_margin"] for _, key, found in known for row in found if row and row.get(key))
    lines = []
    for at, one in enumerate(bins):
        cells = []
        for stream in range(len(rows.streams)):
            for _, key, found in known:
                row = found[stream]
                value = row[key]["by_margin"][at] if row and row.get(key) else {"right": 0, "n": 0}
                cells.append(of(value["right"], value["n"]))
        lines.append(Line(f"{one['low']:g} to {one['high']:g}", cells))
    heads = [f"{'votes of' if key == 'votes' else 'labels of'} {name}" for name, key, _ in known]
    return Table(
        "How far a vote can be trusted",
        "Right votes by margin, the lead over the runner-up as a share of the votes; each bin holds its upper end. "
        "Labels whose vote was too weak to be learned from are not among elm's.",
        [(rows.name(stream), len(heads)) for stream in rows.streams],
        ["margin", *heads * len(rows.streams)],
        [("", lines)],
        folded=True,
    )


def _costs(rows: Rows) -> Table | None:
    def make(row: Figures) -> list[str]:
        return [
            count(row["tokens_answer_per_problem"]),
            count(row["tokens_learn_per_problem"]),
            f"{row['seconds'] / max(1, row['n']):.2f}",
            count(row["trainable"]),
            count(row["gradient_steps"]),
            f"{row['peak_memory'] / 2**30:.2f}",
        ]

    return rows.table(
        "Cost",
        "Tokens generated per problem, to answer and to learn (offline training included), and seconds per problem. "
        "Trained: parameters trained at once, at most. Steps: gradient steps in all. GiB: peak memory of the process, "
        "the model included.",
        ["answering", "learning", "seconds", "trained", "steps", "GiB"],
        make,
    )


def _seeds(rows: Rows) -> Table | None:
    seeds = list(dict.fromkeys(one["seed"] for row in rows.all for one in row["by_seed"]))

    def make(row: Figures) -> list[str]:
        held = {one["seed"]: one for one in row["by_seed"]}
        return [
            f"{percent(held[seed]['accuracy'])} / {percent(held[seed]['greedy'])}" if seed in held else MISSING
            for seed in seeds
        ]

    return rows.table(
        "Seed by seed",
        "Percent right, sampled / greedy.",
        [f"seed {seed}" for seed in seeds],
        make,
        lambda row: row["by_seed"],
        folded=True,
    )
