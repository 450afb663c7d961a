"""Live progress of a run: the running accuracies side by side, memories by state, tokens, time left.

Builds on rich. On a terminal the figures are redrawn in place; elsewhere a plain line appears every ten seconds. All of
it goes to stderr. ``Progress`` is a context manager, so that the cursor comes back whatever ends the run, and is called
with each finished row.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tacit.cli.common import console, percent

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

ARMS = {"zero_shot": "zero-shot", "memory": "memory", "routed": "routed"}
RECENT = 50
"""Problems in the moving accuracy."""

PAUSE = 10.0
"""Seconds between lines where there is no terminal."""


class Tally:
    """Running figures of the rows so far: means per arm, sampled and greedy, over all and over the last ``RECENT``."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._recent: dict[str, deque[float]] = {arm: deque(maxlen=RECENT) for arm in ARMS}
        self.states: Counter[str] = Counter()
        self.tokens = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row; where no memory was recalled, the memory arm has zero-shot's marks."""
        for arm in ARMS:
            cell = row.get(arm) or row["zero_shot"]
            for key in ("correct", "greedy_correct"):
                if cell.get(key) is not None:
                    self._sums[arm, key] += cell[key]
                    self._counts[arm, key] += 1
            if cell.get("correct") is not None:
                self._recent[arm].append(float(cell["correct"]))
        learned = row.get("learned")
        if learned and learned.get("memory_id"):
            self.states[str(learned.get("state"))] += 1
        self.tokens += int(row.get("tokens") or 0)

    def mean(self, arm: str, key: str = "correct") -> float | None:
        """Share of right answers so far, None before the first mark."""
        count = self._counts[arm, key]
        return self._sums[arm, key] / count if count else None

    def recent(self, arm: str) -> float | None:
        """Share of right samples among the last ``RECENT`` problems."""
        values = self._recent[arm]
        return sum(values) / len(values) if values else None

    def memories(self) -> str:
        """How many memories in which states, in words."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return f"{self.states.total()} memories{f' ({states})' if states else ''}"


class Progress:
    """Shows a run as it goes. Call it with each final row, how many are done, and of how many.

    Args:
        title: of the run.
        total: problems in all, 0 if that is not known yet.
        earlier: how many rows an interrupted part of the run has left; they come first and at once.
        window: how many rows become final together.
    """

    def __init__(self, title: str, total: int, *, earlier: int = 0, window: int = 1) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._earlier = earlier
        self._window = window
        self._tally = Tally()
        self._start = time.monotonic()
        self._work_start = self._start
        self._last_line = self._start
        self._told = 0  # problems done when the last line was written
        self._console = console()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            # A refresh thread of its own: time goes on while a problem takes long.
            self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._done > self._told:
            self._console.print(self.line(), soft_wrap=True)

    def __call__(self, row: Mapping[str, Any], done: int, total: int) -> None:
        """A row is final."""
        if done == self._earlier:
            self._work_start = time.monotonic()  # what comes now takes its time
        self._done, self._total = done, total
        self._tally.add(row)
        now = time.monotonic()
        whole = done % self._window == 0 or done == total
        if self._live is None and whole and now - self._last_line >= PAUSE:
            self._last_line, self._told = now, done
            self._console.print(self.line(), soft_wrap=True)

    def line(self) -> str:
        """Everything in one plain line."""
        figures = ", ".join(f"{name} {percent(self._tally.mean(arm))}" for arm, name in ARMS.items())
        return (
            f"{self._done} of {self._total} problems; {figures}; {self._tally.memories()}; "
            f"{self._tally.tokens:,} tokens; {self._time()}"
        )

    def render(self) -> Group:
        """The block that is redrawn on a terminal."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=max(1, self._total), completed=self._done, width=30),
            f"{self._done} / {self._total}",
            Text(self._time(), style="dim"),
        )
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("right answers")
        for arm, name in ARMS.items():
            table.add_column(name, justify="right", style="bold cyan" if arm == "routed" else None)
        tally = self._tally
        table.add_row("sampled at T = 1", *(percent(tally.mean(arm)) for arm in ARMS))
        table.add_row(f"the last {RECENT} problems", *(percent(tally.recent(arm)) for arm in ARMS))
        table.add_row("greedy", *(percent(tally.mean(arm, "greedy_correct")) for arm in ARMS))
        return Group(head, table, Text(f"{tally.memories()}; {tally.tokens:,} tokens", style="dim"))

    def _time(self) -> str:
        elapsed = time.monotonic() - self._start
        new = self._done - self._earlier
        if self._done >= self._total > 0:
            return _clock(elapsed)
        if new <= 0:
            return f"{_clock(elapsed)}, starting"
        # The rows of a window come one by one, but the time went into all of them.
        worked = min(-(-new // self._window) * self._window, self._total - self._earlier)
        each = (time.monotonic() - self._work_start) / worked
        return f"{_clock(elapsed)}, about {_clock(each * (self._total - self._earlier - worked))} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
