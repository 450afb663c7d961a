"""The report of a run folder: what is written, that it is whole, self-contained, escaped, and survives odd folders."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import examined, look
from tacit.errors import DataError
from tacit.experiments import run_folder
from tacit.experiments.report import page
from tacit.experiments.report import run as report
from test_comparison_report import ZERO, write
from test_metrics_rows import synthetic_rows

PICTURES = ("prefix_accuracy", "accuracy_tokens", "rewards", "families", "similarity")


def write_run(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    if settings:
        (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


class _Page(HTMLParser):
    """Collects tags and checks that they nest."""

    VOID = ("meta", "img", "br", "input", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_a_run_folder_gets_summary_page_and_plots(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", synthetic_rows(40), model="testbed", seed=7, version="0.1.0", window=9)
    summary = report.write_report(run)
    assert json.loads((run / "summary.json").read_text()) == summary
    assert (summary["model"], summary["seed"], summary["version"]) == ("testbed", 7, "0.1.0")
    names = {path.name for path in run.rglob("*") if path.is_file()}
    plots = {f"{name}.png" for name in PICTURES}
    assert names == {"results.jsonl", "run.json", "summary.json", "report.html"} | plots  # and no temporary file
    for name in plots:
        data = (run / "plots" / name).read_bytes()
        assert data.startswith(b"\x89PNG") and struct.unpack(">II", data[16:24]) == (750, 600)
    shown = _Page((run / "report.html").read_text())
    assert shown.tags.count("img") == len(plots) and shown.tags.count("details") == 40
    assert all(link.startswith("data:") for link in shown.links)
    assert "script" not in shown.tags
    assert "no evidence about models of useful size" in (run / "report.html").read_text().replace("\n", " ")


def test_the_page_shows_the_figures_of_the_summary(tmp_path: Path) -> None:
    run = write_run(tmp_path, synthetic_rows(40), model="some/model", seed=1)
    summary = report.write_report(run)
    shown = re.sub(r"data:image[^\"]+", "", (run / "report.html").read_text())
    assert f"<b>{100 * summary['gain']['mean']:+.1f}</b>" in shown
    arm = summary["arms"]["majority"]
    cells = f"{100 * arm['accuracy']:.1f}</td><td>{100 * arm['low']:.1f} – {100 * arm['high']:.1f}"
    assert f'<th scope="row">vote at equal compute</th><td>{cells}</td>' in shown
    assert "Testbed." not in shown


@pytest.mark.parametrize(
    ("task", "said"),
    [("choice", "choice"), ('toml:{"instruction": "Say yes or no."}', "FILE.toml (&#39;Say yes or no.&#39;)")],
)
def test_the_head_of_the_page_names_the_task(tmp_path: Path, task: str, said: str) -> None:
    report.write_report(write_run(tmp_path, synthetic_rows(3), model="some/model", task=task))
    page = (tmp_path / "report.html").read_text()
    assert f"task {said}" in page.partition("<title>")[2].partition("</title>")[0]
    assert f"task {said}" in page.partition("<h1>")[2].partition("<h2>")[0]


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_the_page_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    run = write_run(tmp_path / "run", synthetic_rows(40), model="testbed", seed=7, version="0.1.0", window=9)
    report.write_report(run)
    found = look(run / "report.html", tmp_path, width=width, dark=dark)
    assert found["console"] == [] and found["images"] == len(PICTURES)
    assert found["broken"] == found["silent"] == found["unreachable"] == 0
    assert found["overflow"] <= 0, "the page itself scrolls sideways"
    assert found["contrast"] >= 4.5, found["faintest"]
    assert found["dangling"] == found["twice"] == []
    assert examined(run / "report.html", width=width, dark=dark) == []


def test_text_from_models_and_data_is_escaped_and_cut(tmp_path: Path) -> None:
    rows = synthetic_rows(3)
    rows[0]["problem"] = "<script>alert(1)</script>" + "x" * 10_000
    rows[1]["zero_shot"]["answer"] = "<img src=x onerror=alert(1)>"
    rows[2]["routed"]["why"] = "</details></body> \ud800"
    run = write_run(tmp_path, rows, model="<b>&")
    report.write_report(run)
    text = (run / "report.html").read_text()
    assert "<script" not in text and "onerror=alert(1)>" not in text.replace("&gt;", "") and "</body> " not in text
    assert "x" * (page.SHOWN_TEXT + 1) not in text
    _Page(text)


def test_the_list_of_problems_is_capped(tmp_path: Path) -> None:
    run = write_run(tmp_path, synthetic_rows(report.SHOWN_PROBLEMS + 5))
    report.write_report(run)
    text = (run / "report.html").read_text()
    assert text.count("<details") == report.SHOWN_PROBLEMS
    assert f"The first {report.SHOWN_PROBLEMS} of {report.SHOWN_PROBLEMS + 5}" in text


@pytest.mark.parametrize("torn", ['{"id": "x", "zero_sh', '{"id": "x"}', "\u00e9", '"'])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: str) -> None:
    rows = synthetic_rows(4)
    run = write_run(tmp_path, rows)
    with (run / "results.jsonl").open("ab") as file:
        file.write(torn.encode()[:-1] or b"\xff")
    assert report.write_report(run)["problems"] == 4


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_the_smallest_runs_have_a_report(tmp_path: Path, n: int) -> None:
    run = write_run(tmp_path, synthetic_rows(n))
    assert report.write_report(run)["problems"] == n
    _Page((run / "report.html").read_text())


def test_a_run_without_gold_and_baselines_has_a_report(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = synthetic_rows(12)
    for row in rows:
        row["icl"] = row["random"] = row["majority"] = row["verified"] = row["gold"] = row["family"] = None
        for arm in ("zero_shot", "memory", "routed"):
            if row[arm]:
                row[arm] |= {"correct": None, "greedy_correct": None, "majority_correct": None, "rights": None}
        if row["learned"]:
            row["learned"]["label_correct"] = None
    summary = report.write_report(write_run(tmp_path, rows))
    assert (summary["scored"], summary["unscored"]) == (0, 12)
    assert summary["gain"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert "no accuracy to report" in (tmp_path / "report.html").read_text()


def test_reports_are_reproducible(tmp_path: Path) -> None:
    rows = synthetic_rows(15)
    one, two = (write_run(tmp_path / name, rows, model="testbed", seed=3) for name in "ab")
    report.write_report(one)
    report.write_report(two)
    for name in ("summary.json", "report.html", "plots/prefix_accuracy.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_report_needs_no_model_and_no_bank(tmp_path: Path) -> None:
    write_run(tmp_path / "run", synthetic_rows(12))
    write(tmp_path / "comparison", [ZERO])
    script = (
        "import sys; from pathlib import Path; from tacit.cli.main import report\n"
        f"for name in ('run', 'comparison'): report(Path({str(tmp_path)!r}) / name)\n"
        "print([one for one in ('torch', 'tacit.model', 'tacit.bank', 'tacit.methods') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_folders_that_are_no_runs_give_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No results at"):
        report.write_report(tmp_path)
    run = write_run(tmp_path / "a", synthetic_rows(2))
    lines = (run / "results.jsonl").read_text()
    (run / "results.jsonl").write_text("not json\n" + lines)
    with pytest.raises(DataError, match=r"line 1 is not JSON"):
        report.write_report(run)
    (run / "results.jsonl").write_text('{"answer": 4}\n' + lines)
    with pytest.raises(DataError, match=r"line 1 is not a result row"):
        report.write_report(run)
    (run / "results.jsonl").write_text(lines)
    (run / "run.json").write_text("[]")
    with pytest.raises(DataError, match="settings"):
        report.write_report(run)
    assert not (run / "summary.json").exists()


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path, synthetic_rows(2))
    report.write_report(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        report.write_report(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
