"""The pictures of a run: accuracy over the stream, over cost, rewards, families, similarity.

Builds on run_figures and drawing. Each arm is named and drawn the same in every picture. A picture whose data a run
does not have is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tacit.experiments.report import drawing
from tacit.experiments.report.drawing import FIRST, cost_axis, course, figure, frame, legend, percent_axis, png, scatter
from tacit.experiments.report.figures import Floats, Row, prefix_accuracy
from tacit.experiments.report.page import Picture
from tacit.experiments.report.run_figures import LABELS, arm_tokens, column, has_gold

STYLES: dict[str, dict[str, Any]] = {
    "zero_shot": {"color": drawing.GREY, "linestyle": "-"},
    "memory": {"color": drawing.ORANGE, "linestyle": "--"},
    "routed": {"color": drawing.BLUE, "linestyle": "-", "linewidth": 2.4},
    "icl": {"color": drawing.GREEN, "linestyle": "-."},
    "majority": {"color": drawing.PURPLE, "linestyle": ":"},
    "vote": {"color": drawing.PURPLE, "linestyle": "--"},
    "zero_shot_majority": {"color": "#8a8d91", "linestyle": (0, (1, 1))},
    "routed_majority": {"color": drawing.SKY, "linestyle": (0, (6, 2))},
}
for _arm, _style in STYLES.items():
    _style["label"] = LABELS[_arm]

SHOWN_CURVES = 120
"""At most so many single reward curves are drawn; the mean is over all."""


def draw_all(rows: Sequence[Row], *, seed: int = 0) -> list[Picture]:
    """Every picture that these rows have the data for."""
    marked = [row for row in rows if has_gold(row)]
    pictures: list[tuple[Callable[[Axes], bool], str, str, str]] = [
        (
            lambda ax: _prefix(ax, marked, seed),
            "prefix_accuracy",
            "Accuracy over the stream",
            "Share of right answers among all problems so far, one sampled answer. Bands: pointwise 95 % "
            "bootstrap intervals over problems.",
        ),
        (
            lambda ax: _tokens(ax, marked),
            "accuracy_tokens",
            "Accuracy against cost",
            "The same accuracies against the tokens each arm has generated. Tacit is charged with everything it spent, "
            "answers and learning; the baselines with their own answers alone. Votes are one answer per problem.",
        ),
        (
            lambda ax: _rewards(ax, rows),
            "rewards",
            "Learning of the memories",
            "Mean reward of the rollouts at each step that samples: how many match the label, which the model's own "
            "answers gave. Steps on the response behind that label come before. Thin lines are single memories.",
        ),
        (
            lambda ax: _families(ax, marked),
            "families",
            "By family of problems",
            "Accuracy of one sampled answer, ordered by gain.",
        ),
        (
            lambda ax: _similarity(ax, marked),
            "similarity",
            "Similarity and gain",
            "Each dot is a problem: how much the recalled memory changed the share of right answers, against how "
            "similar the problem it was learned on is. Dots are spread a little vertically.",
        ),
    ]
    drawn = []
    for draw, name, title, caption in pictures:
        made = figure(5.0, 4.0)  # two beside each other, and readable on a phone
        if draw(made.add_subplot()):
            drawn.append(Picture(name, title, caption, title, png(made)))
    return drawn


def _prefix(ax: Axes, rows: Sequence[Row], seed: int) -> bool:
    """Accuracy of all problems so far; False if the run is too short."""
    if len(rows) < 2:
        return False
    for arm in ("zero_shot", "icl", "vote", "routed", "memory"):
        values = column(rows, arm)
        if not np.isnan(values).any():
            # The memory arm is nearly the routed one: two bands on top of each other would hide both.
            course(ax, values, STYLES[arm], band=arm not in ("vote", "memory"), seed=seed)
    _shares(ax)
    ax.set_xlabel("problems seen")
    ax.set_ylabel("accuracy of one sampled answer so far")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return True


def _tokens(ax: Axes, rows: Sequence[Row]) -> bool:
    """Accuracy so far against the tokens generated so far, each arm at its own cost; dots mark the end."""
    if len(rows) < 2:
        return False
    first = min(FIRST, len(rows) // 2)
    for arm in ("zero_shot", "icl", "zero_shot_majority", "majority", "routed", "routed_majority"):
        values, cost = column(rows, arm), np.cumsum(arm_tokens(rows, arm))
        if np.isnan(values).any() or cost[first] <= 0:
            continue
        accuracy = prefix_accuracy(values)
        ax.plot(cost[first:], accuracy[first:], **STYLES[arm])
        ax.plot(cost[-1], accuracy[-1], "o", color=STYLES[arm]["color"], markersize=6, zorder=3)
    cost_axis(ax, _short)
    _shares(ax)
    ax.set_xlabel("tokens generated so far (logarithmic)")
    ax.set_ylabel("accuracy so far")
    return True


def _rewards(ax: Axes, rows: Sequence[Row]) -> bool:
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
    looks = {"admitted": (drawing.BLUE, "-"), "rejected": (drawing.VERMILION, "--")}
    for kind, group in groups.items():
        for curve in group[: max(1, SHOWN_CURVES * len(group) // curves)]:
            ax.plot(np.arange(1, len(curve) + 1), curve, color=looks[kind][0], alpha=0.13, linewidth=0.8)
    for kind, group in groups.items():
        if not group:
            continue
        color, dash = looks[kind]
        # Curves may differ in length: the mean at a step is over the memories that reached it.
        table = np.full((len(group), max(len(curve) for curve in group)), np.nan)
        for i, curve in enumerate(group):
            table[i, : len(curve)] = curve
        style: dict[str, Any] = {"color": color, "linestyle": dash, "linewidth": 2.6, "marker": "o", "markersize": 4}
        steps = np.arange(1, table.shape[1] + 1)
        ax.plot(steps, np.nanmean(table, axis=0), label=f"{kind}: mean of {len(group)}", **style)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("learning step")
    ax.set_ylabel("share of rollouts that match the label")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    frame(ax)
    legend(ax)
    return True


def _families(ax: Axes, rows: Sequence[Row]) -> bool:
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
    percent_axis(ax, "x")
    ax.set_xlabel("accuracy of one sampled answer (in brackets: problems)")
    legend(ax)
    return True


def _similarity(ax: Axes, rows: Sequence[Row]) -> bool:
    """Gain of the memory's answers over zero-shot against the recall's similarity, with the mean per bin."""
    pairs = [
        (float(row["memory"]["similarity"]), float(row["memory"]["correct"]) - float(row["zero_shot"]["correct"]))
        for row in rows
        if row.get("memory") and row["memory"].get("similarity") is not None
    ]
    if len(pairs) < 2:
        return False
    dots = {"color": drawing.BLUE, "marker": "o", "alpha": 0.3, "markersize": 4}
    look = {"color": drawing.VERMILION, "marker": "s", "label": "mean of equal-sized bins, 95 %"}
    scatter(ax, pairs, np.random.default_rng(0), dots, look)
    ax.axhline(0, color=drawing.GREY, linewidth=1)
    ax.set_xlabel("similarity of the recalled memory's key (cosine)")
    ax.set_ylabel("accuracy with memory minus zero-shot")
    ax.set_ylim(-1.08, 1.08)
    frame(ax)
    legend(ax)
    return True


def _shares(ax: Axes) -> None:
    """Percent on the y axis, no more of the scale than the data needs; and a legend."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(0.0, low - 0.02), min(1.02, high + 0.02))
    percent_axis(ax)
    legend(ax, 2)


def _short(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
