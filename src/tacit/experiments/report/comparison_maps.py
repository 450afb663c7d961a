"""More pictures of a comparison: where learning carries over, what is forgotten, and which memories were of use.

Builds on comparison_plots (looks, the order of methods), comparison_figures and drawing. ``draw_all`` draws everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from tacit.experiments.report import drawing
from tacit.experiments.report.cells import KINDS, Result, Stream, short, where
from tacit.experiments.report.comparison_figures import BLOCKS, memories, similarities
from tacit.experiments.report.comparison_plots import WIDTH, accuracy, marked, narrow_axis, prefix, streams_of, tokens
from tacit.experiments.report.drawing import SIZE, figure, legend, means, png, scatter
from tacit.experiments.report.figures import Figures
from tacit.experiments.report.page import Picture

DIVERGING = LinearSegmentedColormap.from_list("worse-better", ["#b34700", "#ffffff", "#005a8f"])
"""Vermilion for worse, blue for better: told apart by colour-blind readers."""

LETTER = 0.075
"""Inches that a letter takes."""

FEW = 5
"""A mean of fewer is not drawn on its own."""

Cell = tuple[float | None, bool]
"""A value, and whether its interval excludes 0."""

NOTHING: Cell = (None, False)


def draw_all(rows: Sequence[Figures], streams: Mapping[Stream, Sequence[Result]]) -> list[Picture]:
    """Every picture that these cells have the data for."""
    held = streams_of(rows)
    pictures: list[Picture | None] = [accuracy(rows, *stream) for stream in held]
    pictures += [prefix(rows, streams, *stream) for stream in held]
    pictures += [tokens(rows, *stream) for stream in held]
    pictures += [transfer(rows), replay(rows), similarity(rows, streams), quality(rows, streams)]
    return [picture for picture in pictures if picture]


# -- heat maps --------------------------------------------------------------------------------------------------


def transfer(rows: Sequence[Figures]) -> Picture | None:
    """Gain on fresh problems, method by (learned on, asked on)."""
    held = [row for row in rows if row["transfer_gain"] and row["method"] != "zero-shot"]
    if not held:
        return None
    targets = list(dict.fromkeys(target for row in held for target in row["transfer_gain"]))

    def line(row: Figures) -> list[Cell]:
        gains = [row["transfer_gain"].get(target) for target in targets]
        return [(gain["gain"], gain["low"] > 0 or gain["high"] < 0) if gain else NOTHING for gain in gains]

    cells, names = _across(held, line, len(targets))
    heads = [f"on {short(target)}" for target in targets]
    asked = next(iter(held[0]["transfer_gain"].values()))["n"]
    return Picture(
        "transfer",
        "Transfer",
        "What each method gained over zero-shot, in points of sampled accuracy, on fresh problems of one data "
        "set after a stream of another or the same one, everything frozen. Bold: the 95 % interval excludes 0. "
        f"Each figure is over {asked} problems or so; methods that use labels of the stream are not asked.",
        f"Heat map of {len(cells)} methods, {len(names)} streams and {len(targets)} data sets; the tables have all.",
        _heat(cells, [f"after {name}" for name in names], heads, "gain over zero-shot in points"),
    )


def replay(rows: Sequence[Figures]) -> Picture | None:
    """Change on problems of the stream asked again at its end, method by place in the stream."""
    held = [row for row in rows if row["replay_blocks"] and row["method"] != "zero-shot"]
    if not held:
        return None
    cells, names = _across(held, lambda row: [(block["change"], False) for block in row["replay_blocks"]], BLOCKS)
    counts = [block["n"] for row in held for block in row["replay_blocks"]]
    heads = ["first", *(str(block) for block in range(2, BLOCKS)), "last"]
    return Picture(
        "replay",
        "Asked again",
        "Problems of each quarter of a stream asked again at its end, everything frozen: the change of sampled "
        "accuracy, in points, since they were first asked. Below 0: forgotten. The first was learned longest ago. "
        f"Each cell is the mean of {min(counts)} to {max(counts)} problems; the table has intervals over all parts.",
        f"Heat map of {len(cells)} methods by quarters of the stream; the table of transfer and forgetting sums it up.",
        _heat(cells, names, heads, "change in points"),
    )


def _across(
    rows: Sequence[Figures], line: Callable[[Figures], list[Cell]], width: int
) -> tuple[dict[str, list[Cell]], list[str]]:
    """Methods down, by kind, ``width`` cells of every stream across; and the names of the streams."""
    streams = list(dict.fromkeys((row["data"], row["order"]) for row in rows))
    cells: dict[str, list[Cell]] = {}
    for row in sorted(rows, key=lambda row: list(KINDS).index(row["kind"])):
        start = streams.index((row["data"], row["order"])) * width
        cells.setdefault(marked(row), [NOTHING] * (width * len(streams)))[start : start + width] = line(row)
    return cells, [where(short(data), order) for data, order in streams]


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
            ax.axvline(at * len(heads) - 0.5, color=drawing.GREY, linewidth=0.8)
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
    colours = (drawing.BLUE, drawing.VERMILION, drawing.GREEN, drawing.PURPLE)
    looks = cycle(zip(colours, "os^v", ("-", "--", "-.", ":"), strict=True))
    rng = np.random.default_rng(0)
    for (data, found), (colour, marker, dash) in zip(pairs[name].items(), looks, strict=False):
        look = {"color": colour, "marker": marker}
        dots = {**look, "alpha": 0.16, "markersize": 3.5}
        scatter(ax, found, rng, dots, {**look, "linestyle": dash, "label": f"{data}, n = {len(found)}"})
    _gain_axis(ax, "with the memory minus without, in points")
    ax.set_xlabel("similarity of the recalled memory (cosine of the keys)", fontsize=SIZE)
    legend(ax, 2, SIZE)
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
    """What was known of a memory when it was learned, against its label's being right and its later gain."""
    held: dict[str, list[Figures]] = {}
    for (label, _, _), results in streams.items():
        held.setdefault(label, []).extend(one for one in memories(results) if one["margin"] is not None)
    name = _shown(rows, held)
    if name is None:
        return None
    colours = (drawing.BLUE, drawing.VERMILION)
    made = figure(WIDTH, 5.4)
    axes = made.subplots(2, 2, sharex="col", sharey="row")
    for column, (signal, text) in enumerate(
        (("margin", "lead of the vote, share of the rollouts"), ("reward", "reward at the last step"))
    ):
        for ax, outcome, color, marker in zip(axes[:, column], ("right", "gain"), colours, "os", strict=True):
            known = [(one[signal], float(one[outcome])) for one in held[name] if one[outcome] is not None]
            if known:
                _values(ax, np.array(known), {"color": color, "marker": marker}, shares=outcome == "right")
            ax.annotate(f"n = {len(known)}", (0.97, 0.04), xycoords="axes fraction", ha="right", fontsize=SIZE)
        axes[1, column].set_xlabel(text, fontsize=SIZE)
    for ax in axes[0]:
        narrow_axis(ax)
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
    means(ax, parts, {**look, "linestyle": "-"}, shares=shares)


def _gain_axis(ax: Axes, label: str) -> None:
    narrow_axis(ax)
    ax.axhline(0, color=drawing.GREY, linewidth=1, zorder=1)
    ax.yaxis.set_major_formatter(lambda value, _: _signed(value))
    if label:
        ax.set_ylabel(label, fontsize=SIZE)
