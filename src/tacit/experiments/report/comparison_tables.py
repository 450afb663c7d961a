"""The tables of a comparison's page: accuracy, gains, harm, the course of the stream, memories, cost.

Builds on page's tables and on what comparison_figures found. Methods down, streams across. Accuracies and gains are in
percent and points with 95 % intervals, and every count says of how many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tacit.experiments.report.cells import KINDS, marks, short, where
from tacit.experiments.report.figures import Figures
from tacit.experiments.report.page import MISSING, Line, Table, between, count, of, percent, points

Columns = Mapping[str, Callable[[Figures], str]]
"""What a column is called, and its cell of a row."""


class Rows:
    """The rows of table.json, by method and stream."""

    def __init__(self, rows: Sequence[Figures]) -> None:
        self.all = list(rows)
        self.streams = list(dict.fromkeys((row["data"], row["order"]) for row in rows))
        self.names = [where(*stream) for stream in self.streams]
        self.methods = {row["method"]: row for row in rows}
        self._by = {(row["method"], row["data"], row["order"]): row for row in rows}

    def of(self, method: str) -> list[Figures | None]:
        """The rows of a method, stream by stream."""
        return [self._by.get((method, *stream)) for stream in self.streams]

    def table(
        self,
        title: str,
        note: str,
        columns: Columns,
        keep: Callable[[Figures], Any] = lambda row: True,
        best: Callable[[Figures], Sequence[float]] | None = None,
        remark: Callable[[Sequence[Figures]], str] = lambda rows: "",
        folded: bool = False,
    ) -> Table | None:
        """Methods down, by kind; per stream the columns' cells of a row; None if no row is kept."""
        parts = []
        tops = self._tops(best, len(columns)) if best else {}
        for kind, heading in KINDS.items():
            lines = []
            for method, first in self.methods.items():
                rows = [row if row is not None and keep(row) else None for row in self.of(method)]
                if first["kind"] == kind and any(rows):
                    cells = [make(row) if row else MISSING for row in rows for make in columns.values()]
                    top = tops.get(method, frozenset())
                    lines.append(Line(method, cells, top, marks(first), remark([row for row in rows if row])))
            if lines:
                parts.append((heading, lines))
        return self.across(title, note, "method", list(columns), parts, folded) if parts else None

    def across(
        self,
        title: str,
        note: str,
        head: str,
        heads: Sequence[str],
        parts: Sequence[tuple[str, Sequence[Line]]],
        folded: bool = False,
    ) -> Table:
        """A table with the same columns for every stream."""
        groups = [(name, len(heads)) for name in self.names]
        return Table(title, note, [head, *[*heads] * len(groups)], parts, groups, folded)

    def _tops(self, best: Callable[[Figures], Sequence[float]], width: int) -> dict[str, frozenset[int]]:
        """Per method those of the first columns in which it is highest of those that use no labels."""
        found: dict[str, set[int]] = {}
        for at in range(len(self.streams)):
            held = {method: self.of(method)[at] for method, row in self.methods.items() if not row["uses_labels"]}
            values = {method: best(row) for method, row in held.items() if row and "accuracy" in row}
            for column, several in enumerate(zip(*values.values(), strict=True)):
                for method, own in values.items():
                    if own[column] == max(several):
                        found.setdefault(method, set()).add(at * width + column)
        return {method: frozenset(columns) for method, columns in found.items()}


def tables(rows: Rows) -> list[Table]:
    """All tables of the page, the main one first; those without data are left out."""
    found = [
        _accuracy(rows),
        rows.table(
            "Gain over zero-shot",
            "In points, paired: on the same problems, with the same seeds.",
            {"sampled": lambda row: bounded(row, "gain"), "greedy": lambda row: bounded(row, "greedy_gain")},
            lambda row: "gain" in row and row["method"] != "zero-shot",
        ),
        *_against(rows),
        rows.table(
            "Out of k samples",
            "avg@k: the mean over k samples, which estimates pass@1; maj@k: their vote; pass@k: at least one is right. "
            "What lifts avg@k and leaves maj@k and pass@k has sharpened what the model could do.",
            {
                "k": lambda row: str(row["samples"]),
                "avg@k": lambda row: percent(row["accuracy"]),
                "maj@k": lambda row: bounded(row, "majority", percent),
                "pass@k": lambda row: percent(row["pass_at_k"]),
            },
            lambda row: "accuracy" in row,
            folded=True,
        ),
        rows.table(
            "Help and harm",
            "Problems, against zero-shot, by the vote over the samples: learned (wrong to right), sharpened (right, "
            "and a larger share of right samples), corrupted (right to wrong). c / l: corrupted per learned. Greedy: "
            "wrong to right / right to wrong.",
            {
                "learned": lambda row: str(row["learned"]),
                "sharpened": lambda row: str(row["sharpened"]),
                "corrupted": lambda row: str(row["corrupted"]),
                "c / l": lambda row: MISSING if row["harm"] is None else f"{row['harm']:.2f}",
                "greedy": lambda row: f"{row['greedy_learned']} / {row['greedy_corrupted']}",
            },
            lambda row: "learned" in row and row["method"] != "zero-shot",
        ),
        rows.table(
            "Accuracy by fifths of the stream",
            "Sampled, in percent, of the problems of each fifth alone: what was known by then shows in the later ones.",
            {head: partial(_fifth, at) for at, head in enumerate(("1st", "2nd", "3rd", "4th", "5th"))},
            lambda row: row["online"],
            folded=True,
        ),
        _transfer(rows),
        rows.table(
            "Router",
            "Where a memory was recalled, greedy answers · samples. First what routing made of zero-shot's answers: "
            "wrong to right, right to wrong. Then what was there to be had: where only the memory's answer was right, "
            "how often it was taken; where only zero-shot's was, how often it was lost.",
            {
                "problems": lambda row: str(row["router"]["problems"]),
                "wrong → right": lambda row: _both(row, lambda one: str(one["wrong_right"])),
                "right → wrong": lambda row: _both(row, lambda one: str(one["right_wrong"])),
                "taken": lambda row: _both(row, lambda one: of(one["gained"], one["could_gain"])),
                "lost": lambda row: _both(row, lambda one: of(one["lost"], one["could_lose"])),
            },
            lambda row: row["router"],
        ),
        rows.table(
            "Retrieval and labels",
            "Same family: of what was recalled, how much came from a problem of the same kind. Labels: of the answers "
            "that a method taught itself, how many are right; kept: of those that its gates let pass.",
            {
                "same family": lambda row: _part(row["retrieval"], "same_family", "known"),
                "labels right": lambda row: _part(row["labels"], "right", "n"),
                "kept right": lambda row: _part(row["labels"], "kept_right", "kept"),
            },
            lambda row: row["retrieval"] or row["labels"],
        ),
        _margins(rows),
        rows.table(
            "Cost",
            "Tokens generated per problem, to answer and to learn (offline training included), and seconds per "
            "problem. Trained: parameters trained at once, at most. Steps: gradient steps in all. GiB: peak memory of "
            "the process, the model included.",
            {
                "answering": lambda row: count(row["tokens_answer_per_problem"]),
                "learning": lambda row: count(row["tokens_learn_per_problem"]),
                "seconds": lambda row: f"{row['seconds'] / max(1, row['n']):.2f}",
                "trained": lambda row: count(row["trainable"]),
                "steps": lambda row: count(row["gradient_steps"]),
                "GiB": lambda row: f"{row['peak_memory'] / 2**30:.2f}",
            },
        ),
        rows.table(
            "Seed by seed",
            "Percent right, sampled / greedy.",
            {
                f"seed {seed}": partial(_seed, seed)
                for seed in dict.fromkeys(one["seed"] for row in rows.all for one in row["by_seed"])
            },
            lambda row: row["by_seed"],
            folded=True,
        ),
    ]
    return [table for table in found if table]


# -- cells ------------------------------------------------------------------------------------------------------


def bounded(
    row: Mapping[str, Any] | None, name: str, shown: Callable[[float | None], str] = points, *, bare: bool = False
) -> str:
    """A value with its interval, whose ends are named after it, or, where they stand ``bare``, "low" and "high"."""
    if not row or row.get(name) is None:
        return MISSING
    start = "" if bare else f"{name}_"
    return f"{shown(row[name])} {between(row[f'{start}low'], row[f'{start}high'], shown)}"


def _both(row: Figures, make: Callable[[Mapping[str, int]], str]) -> str:
    return " · ".join(make(row["router"][kind]) for kind in ("greedy", "sampled"))


def _part(held: Mapping[str, int] | None, part: str, whole: str) -> str:
    return of(held[part], held[whole]) if held else MISSING


def _fifth(at: int, row: Figures) -> str:
    return percent(row["online"]["windowed"][at])


def _carried(target: str, row: Figures) -> str:
    return bounded((row["transfer_gain"] or {}).get(target), "gain", bare=True)


def _seed(seed: int, row: Figures) -> str:
    found = [f"{percent(one['accuracy'])} / {percent(one['greedy'])}" for one in row["by_seed"] if one["seed"] == seed]
    return found[0] if found else MISSING


# -- tables with more to say ------------------------------------------------------------------------------------


def _accuracy(rows: Rows) -> Table | None:
    def remark(held: Sequence[Figures]) -> str:
        failed = sum(row["failed"] for row in held)
        return f"failed on {failed} of {sum(row['n'] for row in held)}" if failed else ""

    first = [next(row for row in rows.all if (row["data"], row["order"]) == stream) for stream in rows.streams]
    counts = "; ".join(
        f"{name}: {row['n']} answers to {row['problems']} problems under {row['seeds']} seeds"
        for name, row in zip(rows.names, first, strict=True)
    )
    return rows.table(
        "Accuracy",
        f"Percent right, with 95 % bootstrap intervals over problems. Sampled: one answer at the sampling temperature; "
        f"greedy: the answer at temperature 0. {counts}. A problem on which a method failed is wrong. Those marked § "
        "give one answer, chosen from many by vote or likelihood: it stands in both columns and is no sample; compare "
        "it with others of its kind. No answer: percent of the sampled responses in which none was found. Highest of "
        "the methods without labels in bold.",
        {
            "sampled": lambda row: bounded(row, "accuracy", percent, bare=True),
            "greedy": lambda row: bounded(row, "greedy", percent),
            "no answer": lambda row: percent(row["unanswered"]["share"]),
        },
        lambda row: "accuracy" in row,
        best=lambda row: [row["accuracy"], row["greedy"]],
        remark=remark,
    )


def _against(rows: Rows) -> list[Table]:
    """elm's gain over each rival; and, folded, that of the other ELM methods."""
    parts: dict[bool, list[tuple[str, Sequence[Line]]]] = {False: [], True: []}
    for method in rows.methods:
        held = [row["against"] if row else {} for row in rows.of(method)]
        lines = []
        for rival in dict.fromkeys(name for one in held for name in one):
            found = [one.get(rival) for one in held]
            cells = [
                bounded(one, gain, bare=gain == "gain")
                for one in found
                for gain in ("gain", "greedy_gain", "majority_gain")
            ]
            lines.append(Line(rival, cells, marks=marks(rows.methods[rival])))
        if lines:
            parts[method != "elm"].append(("" if method == "elm" else f"{method}, over", lines))
    note = (
        "Gain over each other method, in points, paired. Vote: the vote over its samples against the vote over the "
        "other's. majority has nothing but a vote, over more samples, so that column is the fair one for it."
    )
    titles = {False: "elm against the others", True: "Other memory methods against the others"}
    heads = ("sampled", "greedy", "vote")
    return [rows.across(titles[fold], note, "over", heads, held, fold) for fold, held in parts.items() if held]


def _transfer(rows: Rows) -> Table | None:
    targets = list(dict.fromkeys(target for row in rows.all for target in row["transfer_gain"] or ()))
    fresh = [value["n"] for row in rows.all for value in (row["transfer_gain"] or {}).values()]
    again = [row["replay_n"] for row in rows.all if row["replay"] is not None]
    sizes = [
        f"{min(counts)} {'' if min(counts) == max(counts) else f'to {max(counts)} '}{what}"
        for counts, what in ((again, "asked again"), (fresh, "fresh ones per data set"))
        if counts
    ]
    return rows.table(
        "Forgetting and transfer",
        "After the stream, everything frozen, sampled, in points. Again: change on problems of the stream since they "
        "were first asked (below 0: forgotten). On X: gain over zero-shot on fresh problems of X. Methods that use "
        f"labels are asked no fresh problems. Problems: {', '.join(sizes)}.",
        {
            "again": lambda row: bounded(row, "replay"),
            **{f"on {short(target)}": partial(_carried, target) for target in targets},
        },
        lambda row: (row["replay"] is not None or row["transfer_gain"]) and row["method"] != "zero-shot",
    )


def _margins(rows: Rows) -> Table | None:
    """Votes of zero-shot and labels of elm by margin: bins down."""
    known: dict[str, list[Figures | None]] = {}
    for method, key in (("zero-shot", "votes"), ("elm", "labels")):
        found = [row[key] if row else None for row in rows.of(method)]
        if any(found):
            known[f"{key} of {method}"] = found
    bins = next((one["by_margin"] for found in known.values() for one in found if one), ())
    across = [found[stream] for stream in range(len(rows.streams)) for found in known.values()]
    lines = [
        Line(
            f"{each['low']:g} to {each['high']:g}",
            [of(one["by_margin"][at]["right"], one["by_margin"][at]["n"]) if one else MISSING for one in across],
        )
        for at, each in enumerate(bins)
    ]
    note = (
        "Right votes by margin, the lead over the runner-up as a share of the votes; each bin holds its upper end. "
        "Labels whose vote was too weak to be learned from are not among elm's."
    )
    title = "How far a vote can be trusted"
    return rows.across(title, note, "margin", list(known), [("", lines)], folded=True) if lines else None
