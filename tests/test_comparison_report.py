"""The report of a comparison: figures against hand-worked cells, labels that never touch, a page that opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.experiments.report import comparison as comparison_report
from tacit.experiments.report import plot_labels
from tacit.experiments.report.cells import Result, grouped, kind, short
from tacit.experiments.report.comparison_figures import memories, similarities, table_row
from tacit.experiments.report.comparison_plots import LINES, highlighted
from tacit.experiments.report.figures import intervals

Row = dict[str, Any]


def arm(rights: str, greedy: bool | None = None) -> Row:
    """Marks as scoring makes them: "rrw" is three samples, two of them right, whose vote is right."""
    marks = [mark == "r" for mark in rights]
    answers = ["7" if mark else str(100 + at) for at, mark in enumerate(marks)]
    vote = sum(marks) * 2 > len(marks)
    return {
        "answer": "7" if vote else answers[0],
        "correct": sum(marks) / len(marks),
        "greedy_answer": "7",
        "greedy_correct": vote if greedy is None else greedy,
        "answers": answers,
        "rights": marks,
        "majority_correct": vote,
    }


def row(name: str, rights: str, greedy: bool | None = None, **more: Any) -> Row:
    """A row as compare writes it."""
    usual = {"position": 0, "family": None, "failed": None, "notes": {}, "arms": {}, "lesson": None}
    return {"id": name, **usual, **arm(rights, greedy), "tokens_answer": 10.0, "tokens_learn": 0.0, **more}


def cell(label: str, rows: Sequence[Row], probes: Sequence[Row] = (), **more: Any) -> Result:
    """A finished cell; positions are those of the list."""
    record = {
        "label": label,
        "method": label,
        "data": "testbed:A",
        "order": "shuffled",
        "seed": 0,
        "uses_labels": False,
        "status": "done",
        "error": None,
        "tokens": 100,
        "seconds": 9.0,
        "peak_memory": 2**30,
        "settings": {"method": label, "model": "testbed", "limit": len(rows), "learn": {"lr": 0.02}},
        **more,
    }
    return Result(record, [{**one, "position": at} for at, one in enumerate(rows)], list(probes))


def write(out: Path, cells: Sequence[Result]) -> None:
    """Cells as compare leaves them."""
    for number, one in enumerate(cells):
        folder = out / "cells" / f"m{number}" / "data" / f"{one.record['order']}-{one.seed}"
        folder.mkdir(parents=True)
        for name, lines in (("rows.jsonl", one.rows), ("probes.jsonl", one.probes)):
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "cell.json").write_text(json.dumps(one.record))


def figures(*cells: Result) -> dict[str, Row]:
    """The rows of the table by method, of cells of one stream."""
    streams = grouped(cells)
    return {key[0]: table_row(key, streams) for key in streams}


ZERO = cell("zero-shot", [row("a", "rrw"), row("b", "rww"), row("c", "www"), row("d", "rrr")])
ELM = cell("elm", [row("a", "rrr"), row("b", "rrw"), row("c", "www", True), row("d", "rww", False)])


def test_accuracy_gain_and_harm_by_hand() -> None:
    found = figures(ZERO, ELM)["elm"]
    assert found["accuracy"] == pytest.approx((3 + 2 + 0 + 1) / 12) and found["greedy"] == 0.75
    assert found["majority"] == 0.5 and found["pass_at_k"] == 0.75 and found["samples"] == 3
    assert found["gain"] == pytest.approx((1 + 1 + 0 - 2) / 12) and found["greedy_gain"] == pytest.approx(1 / 4)
    assert (found["learned"], found["sharpened"], found["corrupted"], found["harm"]) == (1, 1, 1, 1.0)
    assert (found["greedy_learned"], found["greedy_corrupted"]) == (2, 1)
    for name in ("greedy", "majority", "gain", "greedy_gain"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert (found["n"], found["scored"], found["problems"], found["seeds"], found["failed"]) == (4, 4, 4, 1, 0)
    zero = figures(ZERO, ELM)["zero-shot"]
    assert zero["gain"] == zero["gain_low"] == zero["gain_high"] == 0 and zero["harm"] is None


def test_failed_and_silent_problems_are_wrong(tmp_path: Path) -> None:
    failed = row("c", "w", failed="TacitError: no")
    silent = {**row("b", "r"), "answers": [], "rights": [], "correct": None, "greedy_correct": False}
    write(tmp_path, [cell("zero-shot", [row("a", "r"), silent, failed, row("d", "r")])])
    found = comparison_report.rewrite(tmp_path)["rows"][0]
    assert (found["n"], found["scored"], found["failed"], found["accuracy"]) == (4, 4, 1, 0.5)


def test_seeds_are_pooled_and_told_one_by_one() -> None:
    zero = [cell("zero-shot", [row("a", "rw"), row("b", "rw")], seed=seed) for seed in (0, 1)]
    mine = [cell("elm", [row("a", rights), row("b", "rw")], seed=seed) for seed, rights in ((0, "rr"), (1, "ww"))]
    found = figures(*zero, *mine)["elm"]
    assert found["by_seed"] == [
        {"seed": 0, "n": 2, "accuracy": 0.75, "greedy": 0.5, "gain": 0.25, "greedy_gain": 0.5},
        {"seed": 1, "n": 2, "accuracy": 0.25, "greedy": 0.0, "gain": -0.25, "greedy_gain": 0.0},
    ]
    assert (found["gain"], found["n"], found["problems"], found["seeds"]) == (0.0, 4, 2, 2)


def test_against_each_rival_that_ran_on_the_same_stream() -> None:
    icl = cell("icl", [row("a", "rrr"), row("b", "www"), row("c", "www"), row("d", "rww")])
    other = cell("lag", [row("z", "rrr")])
    elsewhere = cell("ttrl-full", [row("a", "rrr")], data="testbed:B")
    found = figures(ZERO, ELM, icl, other, elsewhere, cell("elm-vote", ELM.rows))
    assert list(found["elm"]["against"]) == ["zero-shot", "icl"]
    assert found["elm"]["against"]["icl"]["gain"] == pytest.approx(2 / 12)
    assert found["elm"]["against"]["icl"]["majority_gain"] == pytest.approx(1 / 4)
    assert found["elm"]["against"]["zero-shot"]["gain"] == pytest.approx(found["elm"]["gain"])
    assert found["elm"]["against"]["zero-shot"]["low"] == pytest.approx(found["elm"]["gain_low"])
    assert found["elm-vote"]["against"] == found["elm"]["against"]
    assert found["icl"]["against"] == {}


def test_the_course_of_the_stream_by_fifths() -> None:
    first = [row(str(at), "r" if at >= 6 else "w") for at in range(10)]
    second = [row(str(at), "r") for at in range(10)]
    found = figures(cell("zero-shot", first, seed=0), cell("zero-shot", second, seed=1))["zero-shot"]["online"]
    assert found["ends"] == [2, 4, 6, 8, 10]
    assert found["windowed"] == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert found["prefix"] == pytest.approx([0.5, 0.5, 0.5, 5 / 8, 7 / 10])
    assert figures(cell("zero-shot", first[:4]))["zero-shot"]["online"] is None


def routed(name: str, zero: str, memory: str, taken: str, **more: Any) -> Row:
    notes = {"memory": f"m-{more.get('source')}", "source": more.pop("source", None), "similarity": 0.5}
    return row(name, taken, arms={"zero_shot": arm(zero), "memory": arm(memory)}, notes=notes, **more)


def lesson(memory: str, label: bool, *, kept: bool, margin: float, reward: float) -> Row:
    known = {"memory": memory, "share": 0.5, "margin": margin, "rewards": [0.1, reward]}
    return {"label": "7", "label_correct": label, "kept": kept, "why": "", **known}


MEMORIES = cell(
    "elm",
    [
        row("a", "w", family="x", lesson=lesson("m-a", True, kept=True, margin=0.5, reward=0.75)),
        row("b", "r", family="y", lesson=lesson("m-b", False, kept=False, margin=0.1, reward=0.25)),
        routed("c", "w", "r", "r", family="x", source="a"),
        routed("d", "r", "w", "w", family="y", source="a"),
        routed("e", "r", "r", "r", family="x", source="a"),
        routed("f", "w", "r", "w", family="x", source="elsewhere"),
    ],
)


def test_router_retrieval_and_labels_by_hand() -> None:
    zero = cell("zero-shot", [row(name, "w") for name in "abcdef"])
    found = figures(zero, MEMORIES)["elm"]
    counts = {"right_right": 1, "right_wrong": 1, "wrong_right": 1, "wrong_wrong": 1}
    counts |= {"could_gain": 2, "gained": 1, "could_lose": 1, "lost": 1}
    assert found["router"] == {"problems": 4, "greedy": counts, "sampled": counts}
    assert found["retrieval"] == {"recalled": 4, "known": 3, "same_family": 2, "precision": 2 / 3}
    labels = found["labels"]
    assert (labels["n"], labels["right"], labels["kept"], labels["kept_right"]) == (2, 1, 1, 1)
    assert [(one["n"], one["right"]) for one in labels["by_margin"]] == [(1, 0), (0, 0), (1, 1), (0, 0), (0, 0)]
    assert figures(zero)["zero-shot"]["router"] is None and figures(zero)["zero-shot"]["labels"] is None


def test_what_became_of_each_memory() -> None:
    first, second = memories([MEMORIES])
    assert (first["margin"], first["reward"], first["right"], first["kept"]) == (0.5, 0.75, True, True)
    assert (first["recalls"], first["gain"]) == (3, pytest.approx((1 - 1 + 0) / 3))
    assert (second["recalls"], second["gain"], second["right"]) == (0, None, False)
    assert similarities([MEMORIES]) == [(0.5, 1.0), (0.5, -1.0), (0.5, 0.0), (0.5, 1.0)]


def test_several_sources_count_one_by_one() -> None:
    rows = [row("a", "r", family="x"), row("b", "r", family="y"), row("c", "r", family="x")]
    rows[2]["notes"] = {"sources": ["a", "b"]}
    found = figures(cell("icl", rows))["icl"]["retrieval"]
    assert (found["recalled"], found["known"], found["same_family"]) == (2, 2, 1)


def test_votes_of_zero_shot_by_margin() -> None:
    found = figures(cell("zero-shot", [row("a", "rrrr"), row("b", "rrrw"), row("c", "wwwr")]))["zero-shot"]["votes"]
    # The margins are 1, 1/2 and 0: in the third row four different answers have one vote each.
    assert (found["n"], found["right"]) == (3, 2)
    assert [one["n"] for one in found["by_margin"]] == [1, 0, 1, 0, 1]


def probe(what: str, name: str, rights: str, data: str = "testbed:A") -> Row:
    return {"kind": what, "data": data, "learned": 4, **row(name, rights)}


def test_forgetting_and_transfer_by_hand() -> None:
    fresh = [probe("transfer", "p", "rw"), probe("transfer", "q", "ww"), probe("transfer", "r", "rr", "testbed:B")]
    same = zip("pqr", "AAB", strict=True)
    zero = cell("zero-shot", ZERO.rows, [probe("transfer", name, "rw", f"testbed:{data}") for name, data in same])
    again = [probe("replay", "a", "rrw"), probe("replay", "d", "rrr")]
    found = figures(zero, cell("elm", ELM.rows, [*again, *fresh]))["elm"]
    assert found["replay"] == pytest.approx((-1 / 3 + 2 / 3) / 2) and found["replay_n"] == 2
    assert [one["n"] for one in found["replay_blocks"]] == [1, 0, 0, 1]
    assert found["replay_blocks"][0]["change"] == pytest.approx(-1 / 3) and found["replay_blocks"][1]["change"] is None
    assert found["transfer"] == {"testbed:A": 0.25, "testbed:B": 1.0}
    gain = found["transfer_gain"]["testbed:A"]
    assert (gain["gain"], gain["n"], gain["accuracy"]) == (-0.25, 2, 0.25) and gain["low"] == -0.5 and gain["high"] == 0
    assert found["transfer_gain"]["testbed:B"]["gain"] == 0.5
    nothing = figures(ZERO)["zero-shot"]
    assert nothing["replay"] is nothing["transfer"] is nothing["transfer_gain"] is None


def test_costs_are_of_the_stream_and_what_failed_is_charged_with_all() -> None:
    rows = [row("a", "r", tokens_learn=5.0, seconds=1.5), row("b", "r", tokens_learn=5.0, seconds=1.5)]
    done = cell("elm", rows, tokens=1000, tokens_prepare=7, seconds_prepare=2.0, trainable=20, gradient_steps=3)
    found = figures(done)["elm"]
    assert (found["tokens"], found["tokens_answer"], found["tokens_learn"], found["tokens_prepare"]) == (37, 20, 10, 7)
    assert found["tokens_per_problem"] == 18.5 and found["tokens_learn_per_problem"] == 8.5
    assert (found["seconds"], found["trainable"], found["gradient_steps"]) == (5.0, 20, 3)
    failed = cell("elm", rows, tokens=1000, seconds=60.0, status="failed")
    assert figures(failed)["elm"]["tokens"] == 1000 and figures(failed)["elm"]["seconds"] == 60.0


# -- intervals --------------------------------------------------------------------------------------------------

shares = st.lists(st.integers(0, 8).map(lambda part: part / 8), min_size=1, max_size=30)


@given(shares, st.integers(-3, 3))
@settings(max_examples=25, deadline=None)
def test_intervals_hold_their_mean_and_move_with_it(values: list[float], shift: int) -> None:
    ids = [str(at) for at in range(len(values))]
    mean, low, high = intervals(ids, {"x": np.array(values)})["x"]
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9 and mean == pytest.approx(np.mean(values))
    moved = intervals(ids, {"x": np.array(values) + shift})["x"]
    assert moved == pytest.approx((mean + shift, low + shift, high + shift))


@given(shares)
@settings(max_examples=15, deadline=None)
def test_the_same_problems_under_more_seeds_are_no_more_problems(values: list[float]) -> None:
    ids = [str(at) for at in range(len(values))]
    once = intervals(ids, {"x": np.array(values)})["x"]
    assert intervals(ids * 3, {"x": np.array(values * 3)})["x"] == pytest.approx(once)


def test_more_problems_are_more_certain() -> None:
    values = [0.0, 1.0] * 8
    ids = [str(at) for at in range(48)]
    wide = intervals(ids[:16], {"x": np.array(values)})["x"]
    narrow = intervals(ids, {"x": np.array(values * 3)})["x"]
    assert narrow[2] - narrow[1] < 0.75 * (wide[2] - wide[1])


# -- labels in pictures -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-50, 450), min_size=1, max_size=20), st.floats(5, 20))
@settings(max_examples=100, deadline=None)
def test_labels_in_a_column_do_not_touch_and_keep_their_order(wanted: list[float], height: float) -> None:
    found = plot_labels.spread(wanted, height, 0, 400)
    order = np.argsort(wanted, kind="stable")
    placed = np.array(found)[order]
    assert (np.diff(placed) >= height - 1e-6).all()
    assert placed[0] >= height / 2 - 1e-6 and placed[-1] <= 400 - height / 2 + 1e-6


def test_labels_with_room_stay_where_they_want_to_be() -> None:
    assert plot_labels.spread([300.0, 20.0, 100.0], 10, 0, 400) == [300.0, 20.0, 100.0]
    assert plot_labels.spread([50.0, 50.0], 10, 0, 400) == [45.0, 55.0]


@given(st.lists(st.tuples(st.integers(20, 580), st.integers(20, 380)), min_size=1, max_size=28), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_labels_beside_dots_cover_neither_labels_nor_the_edge(points: list[tuple[int, int]], seed: int) -> None:
    dots = np.array(points, dtype=np.float64)
    sizes = np.column_stack([np.random.default_rng(seed).uniform(20, 120, len(dots)), np.full(len(dots), 12.0)])
    low = plot_labels.beside(dots, sizes, (600.0, 400.0), radius=6.0)
    high = low + sizes
    assert (low >= 0).all() and (high <= (600, 400)).all()
    for at in range(len(dots)):
        apart = ((low[at] >= high) | (high[at] <= low)).any(axis=1)
        assert apart[np.arange(len(dots)) != at].all()


def test_at_most_seven_lines_are_drawn_in_full() -> None:
    names = ["zero-shot", "majority", "icl", "lag", "ttrl-full", "grpo-full", "elm", "elm-vote", "elm-random", "truth"]
    rows = [{"method": name, "kind": kind(name), "accuracy": at / 10} for at, name in enumerate(names)]
    wanted = ["zero-shot", "majority", "lag", "grpo-full", "elm", "elm-vote", "elm-random"]
    assert list(highlighted(rows)) == wanted and list(highlighted(rows).values()) == list(LINES)
    few = [{"method": name, "kind": "memories", "accuracy": 0.5} for name in ("elm", "k1", "k4", "k8")]
    assert set(highlighted(few)) == {"elm", "k1", "k4", "k8"}
    dashes = [str(line["linestyle"]) + line["color"] for line in highlighted(few).values()]
    assert len(set(dashes)) == 4


def test_names() -> None:
    assert [short(data) for data in ("testbed:A", "hub:some/math-500", "data/aime24.jsonl", "testbed")] == [
        *("A", "math-500", "aime24", "testbed")
    ]
    assert [kind(name) for name in ("elm-plus", "elm-random-reward", "truth", "grpo-soft", "lag", "mine")] == [
        *("memories", "controls", "bounds", "trained", "text", "other")
    ]
