"""The map of a run's bank, drawn: its active memories in the plane, once coloured by kind, once by what they did.

Builds on drawing; reads what bank/tending/map.py found, which the run wrote at its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten
from typing import Any

from tacit.errors import DataError
from tacit.experiments.report import drawing
from tacit.experiments.report.drawing import SIZE, figure, png
from tacit.experiments.report.page import Picture, percent

MAP = "map.json"
"""Its name in the folder of a run."""

LOOKS = list(zip((drawing.BLUE, drawing.VERMILION, drawing.GREEN, drawing.PURPLE, drawing.SKY), "os^vD", strict=True))
REST = (drawing.GREY, "x")
BENEFITS = dict(zip(("helped", "hurt", "level", "not recalled"), [*LOOKS[:3], REST], strict=True))
FEWEST, LETTERS = 3, 34
"""Memories that make a map; letters of a kind's problem in its legend."""


def drawn(file: Path) -> list[Picture]:
    """The picture; none where there is no map, or one of too few memories.

    Raises:
        DataError: the file is damaged.
    """
    try:
        held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"places": []}
        return [_picture(held)] if len(held["places"]) >= FEWEST else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{file} is damaged; delete it, or run the same command again to have it made anew") from None


def _picture(held: dict[str, Any]) -> Picture:
    places = held["places"]
    numbers = range(1 + max(place["kind"] for place in places))
    kinds = [[place for place in places if place["kind"] == number] for number in numbers]
    names = [shorten(kind[0]["problem"], LETTERS, placeholder=" …") for kind in kinds]
    named = list(zip(names, kinds, LOOKS, strict=False))
    if rest := [place for kind in kinds[len(LOOKS) :] for place in kind]:
        named.append((f"{len(kinds) - len(LOOKS)} other kinds", rest, REST))
    judged = [(name, [one for one in places if one["benefit"] == name], look) for name, look in BENEFITS.items()]
    made = figure(5.0, 8.6)
    for ax, title, groups in zip(made.subplots(2, 1), ("by kind", "by what they did"), (named, judged), strict=True):
        for name, some, (colour, marker) in groups:
            x, y = ([place[axis] for place in some] for axis in "xy")
            ax.plot(x, y, marker, color=colour, markersize=5, alpha=0.7, label=f"{len(some)}: {name}")
        ax.set(xlim=(-108, 108), ylim=(-108, 108), xticks=[], yticks=[], aspect="equal")
        ax.set_title(title, fontsize=SIZE)
        legend = ax.legend(frameon=False, fontsize=SIZE, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)
        for text in legend.get_texts():
            text.set_parse_math(False)  # problems have dollars of their own
    return Picture(
        "map",
        "Map of the bank",
        f"The {len(places)} most used of {held['active']} active memories at the run's end. Near: similar keys; the "
        f"plane shows {percent(held['shown'])} % of their differences. A kind is named by its best memory's problem.",
        f"Two scatter charts of {len(places)} memories of {len(kinds)} kinds: by kind, and by what they did.",
        png(made),
    )
