"""The pictures and the page of a comparison: complete, readable at any width; and what becomes of odd folders."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from browser import examined, look
from conftest import Tacit
from tacit.errors import DataError
from tacit.experiments.report import comparison as comparison_report
from tacit.experiments.report import comparison_maps, comparison_plots, drawing
from tacit.experiments.report.cells import Result, grouped
from tacit.experiments.report.comparison_figures import table_row
from test_comparison_report import ELM, MEMORIES, ZERO, arm, cell, lesson, probe, row, write

Row = dict[str, Any]
METHODS = (
    "zero-shot majority icl icl-reflect reasoning-bank lag instance-full instance-lora ttrl-full ttrl-lora ttrl-soft "
    "grpo-full grpo-lora grpo-soft sequential-full sequential-lora elm elm-unrouted elm-vote elm-verified "
    "elm-plus elm-random elm-random-reward elm-format-reward elm-oracle truth"
).split()


def many(length: int = 40) -> list[Result]:
    """As many methods and data sets as a full comparison has; what they score is made up, for the layout alone."""
    cells = []
    for number, label in enumerate(METHODS):
        for data in ("testbed:A", "testbed:B"):
            rng = np.random.default_rng([number, ord(data[-1])])
            skill = 0.2 + 0.7 * rng.random()

            def marks(rng: Any = rng, skill: float = skill) -> str:
                return "".join("r" if rng.random() < skill else "w" for _ in range(8))

            rows = []
            for at in range(length):
                right, kept = bool(rng.random() < 0.7), bool(at % 3)
                taught = lesson(f"m-{at}", right, kept=kept, margin=at % 7 / 8, reward=at % 9 / 8)
                one = row(str(at), marks(), family="xy"[at % 2], tokens_answer=10.0 ** (1 + skill), lesson=taught)
                if label.startswith("elm") and at > 9:
                    notes = {"memory": f"m-{at - 9}", "source": str(at - 9), "similarity": float(rng.random())}
                    one |= {"notes": notes, "arms": {"zero_shot": arm(marks()), "memory": arm(marks())}}
                if label == "lag" and at % 8 == 0:
                    one |= {**arm("w"), "failed": "TacitError: too long"}
                rows.append(one)
            probes = [probe("replay", str(at), marks()) for at in range(0, length, 2)]
            if label != "truth":
                probes += [probe("transfer", f"p{at}", marks(), f"testbed:{to}") for at in range(9) for to in "AB"]
            labels = label in ("truth", "elm-oracle") or label.startswith("grpo")
            more: Row = {"status": "failed", "error": "OutOfMemory: <b>no</b>"} if label == "ttrl-full" else {}
            more["tokens_prepare"] = 999 if label.startswith(("ttrl", "grpo")) else 0
            cells.append(cell(label, rows, probes, data=data, uses_labels=labels, **more))
    return cells


def transfer_json() -> Row:
    known = {"mean": 0.1, "low": 0.0, "high": 0.2, "n": 4}
    sets = {"source": "testbed:A", "target": "testbed:B", "floor": 0.5, "memories": 3, "recalled": 4, "problems": 9}
    sets |= dict.fromkeys(("zero_shot", "memory", "routed", "verifier", "routed_greedy"), known)
    matrix = {"families": ["add", "mul"], "gain": [[0.5, -0.1], [None, 0.2]], "memories": [3, 2]}
    return {**matrix, "own": known, "other": {**known, "mean": None}, "sets": [sets]}


def texts(made: Figure) -> list[tuple[str, Bbox]]:
    """All that is written in a drawn figure, and where."""
    found = [text for ax in made.axes for text in [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]]
    for ax in made.axes:
        found += ax.get_legend().get_texts() if ax.get_legend() else []
        for axis in (ax.xaxis, ax.yaxis):
            ticks = axis._update_ticks()  # those that are drawn: others lie beyond the ends of the axis
            found += [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]
    shown = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown]  # an annotation's holds its thread too


def clashes(made: Figure) -> list[str]:
    """Texts that lie on one another by more than a pixel, or reach over the figure's edge."""
    held, edge = texts(made), made.bbox
    bad = [
        f"{one} / {other}"
        for at, (one, a) in enumerate(held)
        for other, b in held[at + 1 :]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    return bad + [
        f"{one} leaves the picture"
        for one, a in held
        if a.x0 < edge.x0 - 1 or a.y0 < edge.y0 - 1 or a.x1 > edge.x1 + 1 or a.y1 > edge.y1 + 1
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, list[str]]]]:
    """A full comparison's report, and for each picture how many texts it has and which of them clash."""
    out = tmp_path_factory.mktemp("full")
    seen: list[tuple[int, list[str]]] = []
    png = drawing.png

    def spied(made: Figure) -> bytes:
        data = png(made)
        seen.append((len(texts(made)), clashes(made)))
        return data

    write(out, many())
    (out / "transfer.json").write_text(json.dumps(transfer_json()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_plots, "png", spied)
        patch.setattr(comparison_maps, "png", spied)
        comparison_report.rewrite(out)
    return out, seen


@pytest.fixture(scope="module")
def full(drawn: tuple[Path, list[tuple[int, list[str]]]]) -> Path:
    return drawn[0]


PICTURES = [
    *(f"{name}-{data}" for name in ("accuracy", "prefix", "tokens") for data in "ab"),
    *("transfer", "replay", "similarity", "memory-quality"),
]


def test_everything_is_written_and_the_page_stands_alone(full: Path) -> None:
    assert sorted(file.stem for file in (full / "plots").iterdir()) == sorted(PICTURES)
    for file in (full / "plots").iterdir():
        data = file.read_bytes()
        assert data.startswith(b"\x89PNG") and struct.unpack(">I", data[16:20])[0] >= 750
    assert {file.name for file in full.iterdir()} == {*("cells", "plots", "table.json", "report.html", "transfer.json")}
    page = (full / "report.html").read_text()
    assert "<script" not in page and "http" not in re.sub(r'base64,[^"]+', "", page)
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert "no evidence about models of useful size" in page
    assert "OutOfMemory: &lt;b&gt;no&lt;/b&gt;" in page
    table = json.loads((full / "table.json").read_text())
    assert len(table["rows"]) == 2 * len(METHODS) and table["failed"] == ["ttrl-full", "ttrl-full"]


def test_no_text_in_a_picture_lies_on_another(drawn: tuple[Path, list[tuple[int, list[str]]]]) -> None:
    _, seen = drawn
    assert len(seen) == len(PICTURES) and min(count for count, _ in seen) > 10
    assert [bad for _, bad in seen if bad] == []


def test_long_names_and_many_streams_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def spied(made: Figure) -> bytes:
        data = drawing.png(made)
        seen.append(clashes(made))
        return data

    monkeypatch.setattr(comparison_maps, "png", spied)
    sources = {"testbed:A": "hub:someone/math-500-with-more", "testbed:B": "data/aime24.jsonl"}
    cells = []
    for one in many(24):
        for order in ("shuffled", "blocked", "reversed"):
            if one.record["label"] in ("zero-shot", "icl", "elm-random-reward"):
                probes = [{**asked, "data": sources[asked["data"]]} for asked in one.probes]
                record = {**one.record, "data": sources[one.record["data"]], "order": order}
                cells.append(Result(record, one.rows, probes))
    streams = grouped(cells)
    rows = [{**table_row(key, streams), "kind": "text"} for key in streams]
    assert comparison_maps.transfer(rows) and comparison_maps.replay(rows)
    assert seen == [[], []]


def test_texts_that_clash_are_seen() -> None:
    made = drawing.figure(3, 3)
    ax = made.add_subplot()
    ax.text(0.5, 0.5, "one text")
    ax.text(0.55, 0.5, "on another")
    ax.text(0.9, 0.2, "and one that leaves the picture").set_in_layout(False)
    drawing.png(made)
    assert [bad.split(" ")[0] for bad in clashes(made)] == ["one", "and"]


def test_the_page_says_what_the_table_says(full: Path) -> None:
    page = re.sub(r'base64,[^"]+', "", (full / "report.html").read_text())
    rows = json.loads((full / "table.json").read_text())["rows"]
    elm = next(one for one in rows if one["method"] == "elm")
    accuracy = f"{100 * elm['accuracy']:.1f} [{100 * elm['low']:.1f}, {100 * elm['high']:.1f}]"
    assert f'<td class="first">{accuracy}</td>' in page
    assert "failed on 10 of 80" in page
    assert all(f'<th scope="row">{label} †' in page for label in ("truth", "elm-oracle", "grpo-soft"))
    assert '<th scope="row">elm-plus</th>' in page and '<th scope="row">ttrl-soft ‡</th>' in page
    for title in ("Help and harm", "Router", "Cost", "Study: from data set"):
        assert title in page
    ratio = next(f"{one['harm']:.2f}" for one in rows if one["method"] == "elm-plus" and one["harm"] is not None)
    assert f"<td>{ratio}</td>" in page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(full: Path, tmp_path: Path, width: int, dark: bool) -> None:
    found = look(full / "report.html", tmp_path, width=width, dark=dark)
    assert (found["width"], found["dark"]) == (width, dark)
    assert found["console"] == [] and found["images"] == len(PICTURES)
    assert found["broken"] == found["silent"] == 0
    assert found["overflow"] <= 0, "the page itself scrolls sideways"
    assert found["contrast"] >= 4.5, found["faintest"]
    assert found["dangling"] == found["twice"] == []
    assert found["unreachable"] == 0, "what scrolls must take the keyboard and have a name"
    assert found["narrowest"] > 60, "method names are squeezed"
    assert examined(full / "report.html", width=width, dark=dark) == []


def test_the_browser_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><body style="color:#999;background:#fff">pale<div style="width:2000px">wide</div>'
        '<img src="missing.png"><a href="#nowhere">x</a><p id="a"></p><p id="a"></p>'
        '<div style="overflow-x:auto;width:50px"><div style="width:300px">.</div></div><script>nothing()</script>'
    )
    found = look(page, tmp_path, width=390)
    assert len(found["console"]) == 1 and "nothing is not defined" in found["console"][0]
    assert found["broken"] == found["silent"] == found["unreachable"] == 1
    assert found["overflow"] > 1000 and found["contrast"] < 4.5
    assert found["dangling"] == ["nowhere"] and found["twice"] == ["a"]
    assert {one.partition(":")[0] for one in examined(page, width=390)} >= {
        "color-contrast",
        "image-alt",
        "html-has-lang",
    }


def test_a_report_is_written_again_the_same(tmp_path: Path, cli: Tacit) -> None:
    shown = [one for one in many(24) if one.record["label"] in ("zero-shot", "elm", "truth")]
    write(tmp_path, [one for one in shown if one.record["data"] == "testbed:A"])
    code, out, _ = cli("report", tmp_path)
    assert code == 0 and "| elm | testbed:A |" in out and str(tmp_path / "report.html") in out
    files = [tmp_path / "table.json", tmp_path / "report.html", *(tmp_path / "plots").iterdir()]
    assert len(files) == 2 + 7
    before = {file: file.read_bytes() for file in files}
    table = json.loads((tmp_path / "table.json").read_text())
    table["rows"].reverse()  # the order of methods is that of the table that is there
    (tmp_path / "table.json").write_text(json.dumps(table))
    assert [one["method"] for one in comparison_report.rewrite(tmp_path)["rows"]] == ["truth", "elm", "zero-shot"]
    (tmp_path / "table.json").unlink()
    comparison_report.rewrite(tmp_path)
    assert {file: file.read_bytes() for file in files} == before


def test_an_interrupted_comparison_has_a_report(tmp_path: Path) -> None:
    """No table yet, no zero-shot to be measured against, one stream only."""
    write(tmp_path, [MEMORIES, cell("icl", [row("a", "rw")])])
    table = comparison_report.rewrite(tmp_path)
    assert [one["method"] for one in table["rows"]] == ["icl", "elm"]
    assert "gain" not in table["rows"][1] and table["rows"][1]["accuracy"] == pytest.approx(3 / 6)
    assert "| elm | testbed:A | 50.0 of 6 |" in comparison_report.as_text(table)
    assert "Gain over zero-shot" not in (tmp_path / "report.html").read_text()


def test_data_without_gold_answers_has_a_report(tmp_path: Path) -> None:
    nothing: Mapping[str, Any] = {"correct": None, "greedy_correct": None, "majority_correct": None, "rights": None}
    write(tmp_path, [cell(name, [{**row("a", "rw"), **nothing}]) for name in ("zero-shot", "elm")])
    table = comparison_report.rewrite(tmp_path)
    assert all("accuracy" not in one and one["scored"] == 0 and one["n"] == 1 for one in table["rows"])
    assert "no gold answers" in comparison_report.as_text(table)
    assert "without a reference answer" in (tmp_path / "report.html").read_text()


def test_names_of_methods_are_escaped(tmp_path: Path) -> None:
    write(tmp_path, [ZERO, cell("<script>alert(1)</script>", ELM.rows)])
    comparison_report.rewrite(tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_folders_that_are_damaged_give_one_clear_sentence(tmp_path: Path, cli: Tacit) -> None:
    with pytest.raises(DataError, match="no finished cells"):
        comparison_report.rewrite(tmp_path)
    write(tmp_path, [ZERO])
    (tmp_path / "transfer.json").write_text('{"memories": []}')
    with pytest.raises(DataError, match=r"transfer\.json is damaged"):
        comparison_report.rewrite(tmp_path)
    next(tmp_path.rglob("rows.jsonl")).write_text("{")
    code, _, err = cli("report", tmp_path)
    assert code == 2 and "is damaged; delete that folder" in err and "Traceback" not in err
