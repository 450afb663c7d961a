"""The pictures of a run, as PNG bytes: accuracy over the stream, over cost, rewards, families, similarity.

Builds on metrics and matplotlib's Agg canvas, without pyplot's global state: safe in threads and without a display.
Colours are Okabe and Ito's, told apart by colour-blind readers, and every line also has its own dash pattern. A
picture whose data a run does not have is left out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tacit.experiments.report.bootstrap import Floats, prefix_accuracy, prefix_band
from tacit.experiments.report.metrics import Row, arm_tokens, column, has_gold

STYLES: dict[str, dict[str, Any]] = {
    "zero_shot": {"label": "zero-shot", "color": "#5f6368", "linestyle": "-"},
    "memory": {"label": "memory", "color": "#E69F00", "linestyle": "--"},
    "routed": {"label": "routed (Tacit)", "color": "#0072B2", "linestyle": "-", "linewidth": 2.4},
    "icl": {"label": "ICL, one raw trace", "color": "#009E73", "linestyle": "-."},
    "majority": {"label": "majority vote, equal compute", "color": "#CC79A7", "linestyle": ":"},
    "zero_shot_majority": {"label": "vote of zero-shot samples", "color": "#8a8d91", "linestyle": (0, (1, 1))},
    "routed_majority": {"label": "vote of routed samples", "color": "#56B4E9", "linestyle": (0, (6, 2))},
}
"""How each arm is named and drawn, in this order, in every picture and table."""

FIRST = 10
"""Prefixes shorter than this are not drawn: their accuracy says nothing and would stretch the axis."""

SHOWN_CURVES = 120
"""At most so many single reward curves are drawn; the mean is over all."""


def draw_all(rows: Sequence[Row], *, seed: int = 0) -> dict[str, bytes]:
    """PNG bytes by name (``prefix_accuracy``, ``accuracy_tokens``, ``rewards``, ``families``, ``similarity``)."""
    marked = [row for row in rows if has_gold(row)]
    pictures: dict[str, Callable[[Axes], bool]] = {
        "prefix_accuracy": lambda ax: draw_prefix(ax, marked, seed=seed),
        "accuracy_tokens": lambda ax: draw_tokens(ax, marked),
        "rewards": lambda ax: draw_rewards(ax, rows),
        "families": lambda ax: draw_families(ax, marked),
        "similarity": lambda ax: draw_similarity(ax, marked),
    }
    done = {}
    for name, draw in pictures.items():
        figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        if draw(ax):
            ax.spines[["top", "right"]].set_visible(False)
            buffer = io.BytesIO()
            # Without the version stamp the same rows give the same bytes.
            figure.savefig(buffer, format="png", metadata={"Software": None})
            done[name] = buffer.getvalue()
    return done


def draw_prefix(ax: Axes, rows: Sequence[Row], *, seed: int) -> bool:
    """Accuracy of all problems so far, with pointwise 95 % bands; False if the run is too short."""
    if len(rows) < 2:
        return False
    first = min(FIRST, len(rows) // 2)
    x = np.arange(1, len(rows) + 1)[first:]
    for arm in ("zero_shot", "icl", "routed", "memory"):
        values = column(rows, arm)
        if np.isnan(values).any():
            continue
        low, high = prefix_band(values, seed=seed)
        # The memory arm is nearly the routed one: two bands on top of each other would hide both.
        if arm != "memory":
            ax.fill_between(x, low[first:], high[first:], color=STYLES[arm]["color"], alpha=0.15, linewidth=0)
        ax.plot(x, prefix_accuracy(values)[first:], **STYLES[arm])
    _percent_axis(ax)
    ax.set_xlabel("problems seen")
    ax.set_ylabel("accuracy of one sampled answer so far")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(ax)
    return True


def draw_tokens(ax: Axes, rows: Sequence[Row]) -> bool:
    """Accuracy so far against the tokens generated so far, each arm at its own cost; dots mark the end."""
    if len(rows) < 2:
        return False
    first = min(FIRST, len(rows) // 2)
    for arm in ("zero_shot", "icl", "zero_shot_majority", "majority", "routed", "routed_majority"):
        source, key = (arm, "correct") if not arm.endswith("_majority") else (arm[:-9], "majority_correct")
        values = column(rows, source, key)
        cost = np.cumsum(arm_tokens(rows, source))
        if np.isnan(values).any() or cost[first] <= 0:
            continue
        accuracy = prefix_accuracy(values)
        ax.plot(cost[first:], accuracy[first:], **STYLES[arm])
        ax.plot(cost[-1], accuracy[-1], "o", color=STYLES[arm]["color"], markersize=6, zorder=3)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda _value, _position: ""))
    _percent_axis(ax)
    ax.set_xlabel("tokens generated so far (logarithmic)")
    ax.set_ylabel("accuracy so far")
    _legend(ax)
    return True


def draw_rewards(ax: Axes, rows: Sequence[Row]) -> bool:
    """Mean reward of each memory's rollouts by learning step: thin lines single memories, thick ones the means."""
    groups: dict[str, list[Floats]] = {"admitted": [], "rejected": []}
    for row in rows:
        record = row.get("learned") or {}
        if record.get("rewards"):
            kind = "admitted" if record.get("state") == "active" else "rejected"
            groups[kind].append(np.asarray(record["rewards"], dtype=np.float64))
    curves = sum(len(group) for group in groups.values())
    if not curves:
        return False
    looks = {"admitted": ("#0072B2", "-"), "rejected": ("#D55E00", "--")}
    for kind, group in groups.items():
        color, dash = looks[kind]
        for curve in group[: max(1, SHOWN_CURVES * len(group) // curves)]:
            ax.plot(np.arange(1, len(curve) + 1), curve, color=color, alpha=0.13, linewidth=0.8)
    for kind, group in groups.items():
        if not group:
            continue
        color, dash = looks[kind]
        # Curves may differ in length: the mean at a step is over the memories that reached it.
        table = np.full((len(group), max(len(curve) for curve in group)), np.nan)
        for i, curve in enumerate(group):
            table[i, : len(curve)] = curve
        mean = np.nanmean(table, axis=0)
        ax.plot(
            np.arange(1, len(mean) + 1),
            mean,
            color=color,
            linestyle=dash,
            linewidth=2.6,
            marker="o",
            markersize=4,
            label=f"{kind}: mean of {len(group)}",
        )
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("learning step")
    ax.set_ylabel("share of rollouts that match the label")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _grid(ax)
    _legend(ax)
    return True


def draw_families(ax: Axes, rows: Sequence[Row]) -> bool:
    """Sampled accuracy by family, zero-shot against routed, ordered by gain; False where families are unknown."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("family"):
            members.setdefault(str(row["family"]), []).append(row)
    if not members:
        return False
    stats = [
        (family, len(group), float(np.nanmean(column(group, "zero_shot"))), float(np.nanmean(column(group, "routed"))))
        for family, group in members.items()
    ]
    stats.sort(key=lambda entry: (entry[3] - entry[2], entry[0]))
    stats = stats[-24:]  # more would be unreadable; those shown gained most, the table of the report has all
    y = np.arange(len(stats))
    height = 0.38
    for shift, arm, index in ((height / 2, "routed", 3), (-height / 2, "zero_shot", 2)):
        style = STYLES[arm]
        widths = [float(entry[index]) for entry in stats]
        bars = ax.barh(y + shift, widths, height, color=style["color"], label=style["label"])
        ax.bar_label(bars, labels=[f"{100 * width:.0f}" for width in widths], padding=2, fontsize=7)
    ax.set_yticks(y, [f"{family}  ({n})" for family, n, _, _ in stats], fontsize=8 if len(stats) < 16 else 6)
    ax.set_xlim(0, 1.06)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    ax.set_xlabel("accuracy of one sampled answer (in brackets: problems)")
    ax.grid(axis="x", alpha=0.25)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return True


def draw_similarity(ax: Axes, rows: Sequence[Row]) -> bool:
    """Gain of the memory's answers over zero-shot against the recall's similarity, with the mean per bin."""
    pairs = [
        (float(row["memory"]["similarity"]), float(row["memory"]["correct"]) - float(row["zero_shot"]["correct"]))
        for row in rows
        if row.get("memory") and row["memory"].get("similarity") is not None
    ]
    if len(pairs) < 2:
        return False
    table = np.array(sorted(pairs))
    # Gains are multiples of 1 / samples: a little fixed scatter shows how many points lie on one another.
    shake = np.random.default_rng(0).uniform(-0.02, 0.02, len(table))
    ax.plot(table[:, 0], table[:, 1] + shake, "o", color="#0072B2", alpha=0.3, markersize=4, markeredgewidth=0)
    bins = np.array_split(table, min(8, max(1, len(table) // 10)))
    centres = [float(part[:, 0].mean()) for part in bins]
    means = [float(part[:, 1].mean()) for part in bins]
    errors = [1.96 * float(part[:, 1].std()) / np.sqrt(len(part)) for part in bins]
    ax.errorbar(
        centres,
        means,
        yerr=errors,
        color="#D55E00",
        marker="s",
        linewidth=1.8,
        capsize=3,
        label="mean of equal-sized bins, 95 %",
    )
    ax.axhline(0, color="#5f6368", linewidth=1)
    ax.set_xlabel("similarity of the recalled memory's key (cosine)")
    ax.set_ylabel("accuracy with memory minus zero-shot")
    ax.set_ylim(-1.08, 1.08)
    _grid(ax)
    _legend(ax)
    return True


def _percent_axis(ax: Axes) -> None:
    """Percent on the y axis, with head room for the legend and no more of the scale than the data needs."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(0.0, low - 0.02), min(1.02, high + 0.02))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    _grid(ax)


def _grid(ax: Axes) -> None:
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)


def _legend(ax: Axes) -> None:
    """Above the plot, so that it never covers a line."""
    handles, _ = ax.get_legend_handles_labels()
    if handles:
        columns = min(3 if len(handles) in (3, 5, 6) else 4, len(handles))
        ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns)


def _short(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
