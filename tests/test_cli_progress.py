"""Live progress: its figures are those of the summary, and it says them in one plain line without a terminal; and what
fits into a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tacit.bank import open_bank
from tacit.cli import run as cli_progress
from tacit.cli.common import show_summary
from tacit.cli.run import Progress, Tally
from tacit.experiments.report.run_figures import LABELS, summarise
from test_cli import COMMAND, memory
from test_metrics_rows import synthetic_rows


def test_running_figures_are_those_of_the_summary() -> None:
    rows = synthetic_rows(70)
    tally = Tally()
    assert tally.mean("routed") is None and tally.recent("routed") is None
    for row in rows:
        tally.add(row)
    summary = summarise(rows, resamples=10)
    for arm in ("zero_shot", "memory", "routed"):
        assert tally.mean(arm) == pytest.approx(summary["arms"][arm]["accuracy"])
        assert tally.mean(arm, "greedy_correct") == pytest.approx(summary["arms"][arm]["greedy"])
    last = summarise(rows[-cli_progress.RECENT :], resamples=10)
    assert tally.recent("zero_shot") == pytest.approx(last["arms"]["zero_shot"]["accuracy"])
    assert tally.tokens == summary["tokens"]
    assert dict(tally.states) == summary["memories_by_state"]


def test_one_memory_is_one_memory() -> None:
    tally = Tally()
    row = {**synthetic_rows(1)[0], "learned": {"memory_id": "m", "state": "active"}}
    tally.add(row)
    assert tally.memories() == "1 memory (1 active)"
    tally.add(row)
    assert tally.memories() == "2 memories (2 active)"


def test_the_table_of_a_run_is_no_wider_than_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = synthetic_rows(60)
    summary = summarise(rows, resamples=10)
    for arm in LABELS:
        summary["arms"][arm] = {**summary["arms"]["routed"], "tokens": 123_456_789, "high": 1.0, "accuracy": 1.0}
    summary["gain_over_vote"] = summary["votes_over_vote"] = summary["gain"]
    show_summary(summary)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(tuple(LABELS.values())) for line in lines) >= len(LABELS)
    assert max(map(len, lines)) <= 80


def test_rows_without_gold_give_no_figures_and_no_error() -> None:
    row = synthetic_rows(1)[0]
    for arm in ("zero_shot", "routed"):
        row[arm] |= {"correct": None, "greedy_correct": None}
    tally = Tally()
    tally.add(row)
    assert tally.mean("routed") is None and tally.tokens == row["tokens"]


def test_without_a_terminal_there_are_plain_lines_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: clock[0])
    with Progress("a run", 12) as progress:
        for done, row in enumerate(synthetic_rows(12), start=1):
            clock[0] += 4.0
            progress(row, done, 12)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and "\x1b" not in err
    assert [line.split(" problems")[0] for line in lines] == ["3 of 12", "6 of 12", "9 of 12", "12 of 12"]
    assert "about 0:36 left" in lines[0] and "zero-shot" in lines[0] and "memories" in lines[0]


def test_a_continued_run_counts_only_its_own_problems_in_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: clock[0])
    rows = synthetic_rows(52)
    progress = Progress("a run", 60, earlier=50)
    clock[0] = 30.0  # loading the model
    for done in range(1, 51):
        progress(rows[done - 1], done, 60)
    assert "starting" in progress.line()
    for done in (51, 52):
        clock[0] += 10.0
        progress(rows[done - 1], done, 60)
    assert "0:50, about 1:20 left" in progress.line()


def test_time_left_counts_whole_windows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: clock[0])
    rows = synthetic_rows(24)
    with Progress("a run", 24) as progress:
        clock[0] = 20.0
        progress(rows[0], 10, 24)
        assert progress.line().endswith("0:20, starting")  # the first window compiles and loads: it foretells nothing
        for place in range(1, 24):
            clock[0] = {10: 29.0, 16: 60.0}.get(place, clock[0])
            progress(rows[place], 10 if place < 10 else 16 if place < 16 else 24, 24)
            if place == 10:
                assert "0:29, about 0:12 left" in progress.line()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" problems")[0] for line in lines] == ["10 of 24", "24 of 24"]


def test_the_terminal_block_renders_and_an_error_leaves_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(
        cli_progress, "console", lambda: Console(file=screen, force_terminal=True, width=100, color_system=None)
    )
    with pytest.raises(RuntimeError), Progress("a run", 5) as progress:
        progress(synthetic_rows(1)[0], 1, 5)
        screen.write(progress.line())
        raise RuntimeError
    text = screen.getvalue()
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # hidden, then shown again
    plain = io.StringIO()
    Console(file=plain, width=100).print(progress.render())
    assert "1 / 5" in plain.getvalue() and "routed" in plain.getvalue()


def on_a_terminal(columns: int, *arguments: str) -> list[str]:
    """Lines that a command shows on a terminal of that width, without what makes them bold."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    command = [*COMMAND, *arguments]
    subprocess.run(command, stdout=theirs, stdin=theirs, env=environment | {"TERM": "xterm"}, check=True, timeout=120)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\x1b[1m" in shown
    return re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_lists_on_a_terminal_keep_ids_and_figures_in_one_line_each(tmp_path: Path, columns: int) -> None:
    bank = str(tmp_path / "bank.db")
    with open_bank(bank) as opened:
        opened.add(
            memory(1, id="1" * 24, problem="how many words has a long question? " * 9, provenance={"label": "42"})
        )
    plain = on_a_terminal(columns, "memories", "list", "--bank", bank)
    assert max(map(len, plain)) <= columns and len(plain) == 3
    assert plain[1].startswith("1" * 24) and "active" in plain[1] and "how many" in plain[1]
    assert ("created" in plain[0]) == (columns == 200)
    title, kind, *_ = plain = on_a_terminal(columns, "bank", "stats", bank)
    assert max(map(len, plain)) <= columns and len(plain) == 4
    assert re.match("kind +memories .*uses .*hurt .*would go +problem", title) and "…" not in title
    assert re.match("1{12} +1 ", kind) and "how many" in kind and ("age" in title) == (columns > 80)
