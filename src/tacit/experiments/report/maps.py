"""More pictures of a comparison: where learning carries over, what is forgotten, and which memories were of use.

Builds on comparison_plots (looks, the order of methods) and comparison_memories. ``draw_all`` draws everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from tacit.experiments.report import comparison_plots as plots
from tacit.experiments.report.cells import KINDS, Figures, Result, Stream, short
from tacit.experiments.report.comparison_metrics import BLOCKS
from tacit.experiments.report.comparison_plots import SIZE, WIDTH, Picture, figure, png
from tacit.experiments.report.memories import memories, similarities

DIVERGING = LinearSegmentedColormap.from_list("worse-better", ["#b34700", "#ffffff", "#005a8f"])
"""Vermilion for worse, blue for better: told apart by colour-blind readers."""

LETTER = 0.075
"""Inches that a letter takes."""

FEW = 5
"""A mean of fewer is not drawn on its own."""

Cell = tuple[float | None, bool]
"""A value, and whether its interval excludes 0."""


def draw_all(table: Mapping[str, Any], streams: Mapping[Stream, Sequence[Result]]) -> list[Picture]:
    """Every picture that these cells have the data for."""
    rows = table["rows"]
    held = plots.streams_of(rows)
    pictures: list[Picture | None] = [plots.accuracy(rows, *stream) for stream in held]
    pictures += [plots.prefix(rows, streams, *stream) for stream in held]
    pictures += [plots.tokens(rows, *stream) for stream in held]
    pictures += [transfer(rows), replay(rows), similarity(rows, streams), quality(rows, streams)]
    return [picture for picture in pictures if picture]


# -- heat maps --------------------------------------------------------------------------------------------------


def transfer(rows: Sequence[Figures]) -> Picture | None:
    """Gain on fresh problems, method by (learned on, asked on)."""
    held = [row for row in rows if row["transfer_gain"] and row["method"] != "zero-shot"]
    if not held:
        return None
    streams = list(dict.fromkeys((row["data"], row["order"]) for row in held))
    targets = list(dict.fromkeys(target for row in held for target in row["transfer_gain"]))
    cells: dict[str, list[Cell]] = {}
    for row in _in_order(held):
        line = cells.setdefault(plots.marked(row), [(None, False)] * (len(streams) * len(targets)))
        for target, gain in row["transfer_gain"].items():
            place = streams.index((row["data"], row["order"])) * len(targets) + targets.index(target)
            line[place] = (gain["gain"], gain["low"] > 0 or gain["high"] < 0)
    names = [f"after {plots.where(short(data), order)}" for data, order in streams]
    heads = [f"on {short(target)}" for target in targets]
    shown = _heat(cells, names, heads, "gain over zero-shot in points")
    asked = next(iter(held[0]["transfer_gain"].values()))["n"]
    return Picture(
        "transfer",
        "Transfer",
        "What each method gained over zero-shot, in points of sampled accuracy, on fresh problems of one data "
        "set after a stream of another or the same one, everything frozen. Bold: the 95 % interval excludes 0. "
        f"Each figure is over {asked} problems or so; methods that use labels of the stream are not asked.",
        f"Heat map of {len(cells)} methods, {len(streams)} streams and {len(targets)} data sets; the tables have all.",
        shown,
    )


def replay(rows: Sequence[Figures]) -> Picture | None:
    """Change on problems of the stream asked again at its end, method by place in the stream."""
    held = [row for row in rows if row["replay_blocks"] and row["method"] != "zero-shot"]
    if not held:
        return None
    places = {pair: at for at, pair in enumerate(dict.fromkeys((row["data"], row["order"]) for row in held))}
    cells: dict[str, list[Cell]] = {}
    for row in _in_order(held):
        line = cells.setdefault(plots.marked(row), [(None, False)] * (BLOCKS * len(places)))
        for block, value in enumerate(row["replay_blocks"]):
            line[BLOCKS * places[row["data"], row["order"]] + block] = (value["change"], False)
    counts = [value["n"] for row in held for value in row["replay_blocks"]]
    names = [plots.where(short(data), order) for data, order in places]
    heads = ["first", *(str(block) for block in range(2, BLOCKS)), "last"]
    shown = _heat(cells, names, heads, "change in points")
    return Picture(
        "replay",
        "Asked again",
        "Problems of each quarter of a stream asked again at its end, everything frozen: the change of sampled "
        "accuracy, in points, since they were first asked. Below 0: forgotten. The first was learned longest ago. "
        f"Each cell is the mean of {min(counts)} to {max(counts)} problems; the table has intervals over all parts.",
        f"Heat map of {len(cells)} methods by quarters of the stream; the table of transfer and forgetting sums it up.",
        shown,
    )


def _in_order(rows: Sequence[Figures]) -> list[Figures]:
    return sorted(rows, key=lambda row: list(KINDS).index(row["kind"]))


def _heat(cells: Mapping[str, Sequence[Cell]], names: Sequence[str], heads: Sequence[str], what: str) -> bytes:
    """A heat map with its numbers; under each of ``names`` as many columns as there are ``heads``."""
    values = np.array([[np.nan if value is None else value for value, _ in line] for line in cells.values()])
    top = max(0.05, float(np.nanmax(np.abs(values), initial=0.0)))
    # Columns wide enough that neither heads nor the names over them touch.
    letters = max([len(head) + 2 for head in heads] + [(len(name) + 3) / len(heads) for name in names])
    columns = len(names) * len(heads)
    made = figure(max(WIDTH, 2.0 + max(0.48, LETTER * letters) * columns), 1.5 + 0.26 * len(cells))
    ax = made.add_subplot()
    image = ax.imshow(values, cmap=DIVERGING, vmin=-top, vmax=top, aspect="auto")
    for y, line in enumerate(cells.values()):
        for x, (value, sure) in enumerate(line):
            text = "–" if value is None else _signed(value)
            dark = value is not None and abs(value) > 0.6 * top
            weight = "bold" if sure else "normal"
            ax.text(x, y, text, ha="center", va="center", fontsize=SIZE, fontweight=weight, color="w" if dark else "k")
    ax.set_xticks(range(columns), [*heads] * len(names), fontsize=SIZE)
    ax.set_yticks(range(len(cells)), list(cells), fontsize=SIZE)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for at, name in enumerate(names):
        middle = (at + 0.5) * len(heads) - 0.5
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
        ax.annotate(name, (middle, 1), (0, 2.1 * SIZE), fontsize=SIZE, fontweight="bold", **above)
        if at:
            ax.axvline(at * len(heads) - 0.5, color="#5f6368", linewidth=0.8)
    ax.spines[:].set_visible(False)
    bar = made.colorbar(image, ax=ax, location="bottom", fraction=0.05, aspect=40, pad=0.02)
    bar.ax.xaxis.set_major_formatter(lambda value, _: _signed(value))
    bar.ax.tick_params(labelsize=SIZE)
    bar.set_label(what, fontsize=SIZE)
    return png(made)


def _signed(value: float) -> str:
    """In whole points, with a sign, but for 0."""
    points = round(100 * value)
    return f"{points:+d}".replace("-", "−") if points else "0"


# -- memories ---------------------------------------------------------------------------------------------------


def _shown(rows: Sequence[Figures], held: Mapping[str, Any]) -> str | None:
    """Whose memories are drawn: elm's, or else those of the first method that has any."""
    names = [row["method"] for row in rows if held.get(row["method"])]
    return "elm" if "elm" in names else next(iter(names), None)


def similarity(rows: Sequence[Figures], streams: Mapping[Stream, Sequence[Result]]) -> Picture | None:
    """Gain with the recalled memory against how similar its problem is."""
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (label, data, _), results in streams.items():
        if found := similarities(results):
            pairs.setdefault(label, {}).setdefault(data, []).extend(found)
    name = _shown(rows, pairs)
    if name is None:
        return None
    made = figure(WIDTH, 3.9)
    ax = made.add_subplot()
    looks = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", "-."), ("#CC79A7", "v", ":"))
    rng = np.random.default_rng(0)
    for (data, found), (colour, marker, dash) in zip(pairs[name].items(), cycle(looks), strict=False):
        table = np.array(sorted(found))
        # Gains are multiples of 1 / samples: a little scatter shows how many dots lie on one another.
        shaken = table[:, 1] + rng.uniform(-0.02, 0.02, len(table))
        ax.plot(table[:, 0], shaken, marker, color=colour, alpha=0.16, markersize=3.5, markeredgewidth=0)
        _binned(ax, table, {"color": colour, "marker": marker, "linestyle": dash, "label": f"{data}, n = {len(table)}"})
    _gain_axis(ax, "with the memory minus without, in points")
    ax.set_xlabel("similarity of the recalled memory (cosine of the keys)", fontsize=SIZE)
    ax.legend(frameon=False, fontsize=SIZE, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return Picture(
        "similarity",
        f"Similarity and gain, {name}",
        "Each faint dot is a problem for which a memory was recalled: how much the share of right samples changed with "
        "it, before routing. Large marks: means of bins with equally many problems, with 95 % intervals. A floor under "
        "the similarity is worth having where the means on the left are below 0.",
        f"Scatter chart with binned means of the gain against similarity for {name}.",
        png(made),
    )


def quality(rows: Sequence[Figures], streams: Mapping[Stream, Sequence[Result]]) -> Picture | None:
    """What was known of a memory when it was learned, against whether its label was right and what it gained later."""
    held: dict[str, list[Figures]] = {}
    for (label, _, _), results in streams.items():
        held.setdefault(label, []).extend(one for one in memories(results) if one["margin"] is not None)
    name = _shown(rows, held)
    if name is None:
        return None
    made = figure(WIDTH, 5.4)
    axes = made.subplots(2, 2, sharex="col", sharey="row")
    for column, (signal, text) in enumerate(
        (("margin", "lead of the vote, share of the rollouts"), ("reward", "reward at the last step"))
    ):
        for line, (outcome, color, marker) in enumerate((("right", "#0072B2", "o"), ("gain", "#D55E00", "s"))):
            ax = axes[line, column]
            known = [(one[signal], float(one[outcome])) for one in held[name] if one[outcome] is not None]
            if known:
                _values(ax, np.array(known), {"color": color, "marker": marker}, shares=outcome == "right")
            ax.annotate(f"n = {len(known)}", (0.97, 0.04), xycoords="axes fraction", ha="right", fontsize=SIZE)
        axes[1, column].set_xlabel(text, fontsize=SIZE)
    for ax in axes[0]:
        plots.percent_axis(ax)
        ax.set_ylim(-0.04, 1.04)
    for ax in axes[1]:
        _gain_axis(ax, "")
    axes[0, 0].set_ylabel("labels that are right", fontsize=SIZE)
    axes[1, 0].set_ylabel("gain where recalled, in points", fontsize=SIZE)
    kept = sum(one["kept"] for one in held[name])
    return Picture(
        "memory-quality",
        f"What foretells a good memory, {name}",
        f"Of {len(held[name])} memories that were trained ({kept} were kept): means with 95 % intervals by two things "
        "known without labels. Above: how often the label that it learned from is right. Below: what it changed on the "
        "later problems that it was recalled for, before routing; only kept memories are recalled.",
        f"Four small charts for {name}: share of right labels and later gain, by lead of the vote and last reward.",
        png(made),
    )


def _values(ax: Axes, table: Any, look: dict[str, Any], *, shares: bool) -> None:
    """Means at each value of x (votes and rewards are eighths), neighbours together where there are few."""
    parts: list[Any] = []
    for value in np.unique(table[:, 0]):
        part = table[table[:, 0] == value]
        parts = [*parts[:-1], np.vstack([parts[-1], part])] if parts and len(parts[-1]) < FEW else [*parts, part]
    if len(parts) > 1 and len(parts[-1]) < FEW:
        parts[-2:] = [np.vstack(parts[-2:])]
    if len(parts) > 12:
        parts = np.array_split(table[np.argsort(table[:, 0], kind="stable")], 8)
    _means(ax, parts, {**look, "linestyle": "-"}, shares=shares)


def _binned(ax: Axes, table: Any, look: dict[str, Any]) -> None:
    _means(ax, np.array_split(table, min(8, max(1, len(table) // 10))), look, shares=False)


def _means(ax: Axes, parts: Sequence[Any], look: dict[str, Any], *, shares: bool) -> None:
    """Means of parts [n, 2] with 95 % intervals: Wilson's for shares of yes and no, else 1.96 standard errors."""
    x, y = (np.array([part[:, at].mean() for part in parts]) for at in (0, 1))
    n = np.array([len(part) for part in parts])
    if shares:
        z = 1.96
        centre = (y + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(y * (1 - y) / n + z**2 / (4 * n**2))
        errors = np.maximum(0, [y - (centre - half), centre + half - y])
    else:
        spread = np.array([part[:, 1].std(ddof=1) if len(part) > 1 else 0.0 for part in parts])
        errors = np.tile(1.96 * spread / np.sqrt(n), (2, 1))
    ax.errorbar(x, y, yerr=errors, linewidth=1.6, capsize=2.5, markersize=5.5, zorder=3, **look)


def _gain_axis(ax: Axes, label: str) -> None:
    plots.percent_axis(ax)
    ax.axhline(0, color="#5f6368", linewidth=1, zorder=1)
    ax.yaxis.set_major_formatter(lambda value, _: _signed(value))
    if label:
        ax.set_ylabel(label, fontsize=SIZE)
