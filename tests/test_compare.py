"""A comparison: cells, resume, failures that stay in the denominator, methods of one's own, and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from commands import cold, forked_cells, ran
from tacit.config import RunConfig
from tacit.errors import ConfigError, DataError
from tacit.experiments.compare import compare
from tacit.experiments.compare_config import CompareConfig, load
from tacit.experiments.report.comparison import write_comparison
from tacit.experiments.run import run
from tacit.experiments.scoring import Truths
from tacit.problem import Problem

SMALL = CompareConfig(
    data=("testbed:A",), methods=("zero-shot", "elm", "truth"), seeds=(3,), limit=6, window=3, jobs=2, probes=True
)

OWN = """
from tacit import register
from tacit.methods.base import Method, Reply
from tacit.errors import TacitError

@register("method", "always-7")
class AlwaysSeven(Method):
    def answer(self, problems):
        return [Reply(("7",), "7") for _ in problems]

@register("method", "fails-at-third")
class FailsAtThird(Method):
    def answer(self, problems):
        if any(problem.id == self.world.stream[2].id for problem in problems):
            raise TacitError("no third problem, please")
        return [Reply(("7",), "7") for _ in problems]

@register("method", "broken")
class Broken(Method):
    def answer(self, problems):
        raise ZeroDivisionError("oops")
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patched:
        forked_cells(patched)
        return out, write_comparison(out, compare(SMALL, out))


def test_the_table_has_every_method_and_truth_is_always_right(done: tuple[Path, dict[str, Any]]) -> None:
    out, table = done
    rows = {row["method"]: row for row in table["rows"]}
    assert list(rows) == ["zero-shot", "elm", "truth"]
    assert rows["truth"]["accuracy"] == rows["truth"]["greedy"] == 1.0 and rows["truth"]["uses_labels"]
    assert rows["zero-shot"]["gain"] == 0 and rows["zero-shot"]["learned"] == rows["zero-shot"]["corrupted"] == 0
    assert all(row["n"] == 6 and row["failed"] == 0 for row in rows.values())
    assert rows["elm"]["tokens"] > rows["zero-shot"]["tokens"] > rows["truth"]["tokens"] == 0
    assert rows["elm"]["trainable"] == 20 * 128 and rows["elm"]["gradient_steps"] > 0
    assert rows["elm"]["low"] <= rows["elm"]["accuracy"] <= rows["elm"]["high"]
    assert json.loads((out / "table.json").read_text()) == table


def test_page_and_pictures_lie_beside_the_table(done: tuple[Path, dict[str, Any]]) -> None:
    out, table = done
    assert "<h2" in (out / "report.html").read_text()
    assert {"accuracy-a", "prefix-a", "tokens-a", "transfer", "replay"} <= {
        file.stem for file in (out / "plots").iterdir()
    }
    elm = next(row for row in table["rows"] if row["method"] == "elm")
    record = json.loads(next(out.glob("cells/elm/*/*/cell.json")).read_text())
    assert elm["tokens"] == elm["tokens_answer"] + elm["tokens_learn"] and elm["tokens_learn"] > 0
    assert elm["tokens"] < record["tokens"] and elm["seconds"] < record["seconds"], "probes are no cost of a method"
    assert elm["labels"]["n"] == elm["n"] == 6 and elm["replay_n"] == 6 and elm["transfer_gain"]["testbed:A"]["n"] > 12
    assert elm["against"]["zero-shot"]["gain"] == pytest.approx(elm["gain"])


def test_what_is_finished_is_kept_and_what_is_not_is_done_again_the_same(
    done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    forked_cells(monkeypatch)
    out, _ = done
    cells = out / "cells"
    rows = {file: file.read_text() for file in cells.rglob("*.jsonl")}
    stamps = {file: file.stat().st_mtime_ns for file in cells.rglob("rows.jsonl") if "elm" not in str(file)}
    next(iter(cells.glob("elm/*/*/cell.json"))).unlink()  # as a kill before the end leaves it
    compare(SMALL, out)

    def marks(text: str) -> list[Any]:
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text.splitlines()]

    assert {file: marks(file.read_text()) for file in rows} == {file: marks(text) for file, text in rows.items()}
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in stamps.items())


def test_another_plan_in_the_same_folder_is_refused(done: tuple[Path, dict[str, Any]]) -> None:
    out, _ = done
    other = CompareConfig(data=("testbed:A",), methods=("zero-shot",), seeds=(3,), limit=4, window=3, probes=True)
    with pytest.raises(ConfigError, match="another limit"):
        compare(other, out)


def test_a_run_a_comparison_and_files_of_others_do_not_replace_each_others_reports(
    done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    small = RunConfig(limit=2, window=2, threads=1, bank=str(tmp_path / "bank.sqlite"))
    with pytest.raises(ConfigError, match=r"has a report.html but no run.json, so it is of something else"):
        run(replace(small, out=str(done[0])))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "report.html").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"has a report.html but no cells, so it is of something else; choose another"
    ):
        compare(SMALL, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text() == "mine"
    assert not (done[0] / "run.json").exists()


@pytest.mark.parametrize("change", [("compute 2 + 3", "compute 2 + 4"), ('"5"', '"6"')], ids=["problem", "answer"])
def test_cells_of_a_file_that_has_changed_are_refused(change: tuple[str, str], tmp_path: Path) -> None:
    data, out = tmp_path / "mine.jsonl", tmp_path / "out"
    rows = [{"problem": f"compute 2 + {n}", "answer": str(2 + n)} for n in (3, 5)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = CompareConfig(data=(str(data),), methods=("zero-shot",), seeds=(0,), window=2, probes=False)
    compare(config, out)
    compare(config, out)
    data.write_text(data.read_text().replace(*change))
    with pytest.raises(ConfigError, match=r"is of other problems than .*mine\.jsonl has now"):
        compare(config, out)


def test_cells_done_before_a_setting_was_added_are_still_done(
    done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "older"
    shutil.copytree(done[0], out)
    files = sorted(out.rglob("cell.json"))
    for file in files:
        record = json.loads(file.read_text())
        del record["settings"]["learn"]["row_tokens"]
        file.write_text(json.dumps(record))
    before = {file: file.stat().st_mtime_ns for file in files}
    compare(SMALL, out)
    assert files and {file: file.stat().st_mtime_ns for file in files} == before


def test_a_method_of_ones_own_and_failures_are_counted_wrong(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    out = tmp_path / "out"
    done = cold(
        *("compare", "--method-file", str(file), "--methods", "zero-shot,always-7,fails-at-third,broken"),
        *("--data", "testbed:A", "--seeds", "1", "--limit", "4", "--window", "4", "--jobs", "1"),
        *("--out", str(out), "--json"),
    )
    assert done.returncode == 1 and "broken" in done.stderr and "Traceback" not in done.stderr
    rows = {row["method"]: row for row in json.loads(done.stdout)["rows"]}
    assert {name: (row["n"], row["failed"]) for name, row in rows.items()} == {
        "zero-shot": (4, 0),
        "always-7": (4, 0),
        "fails-at-third": (4, 1),
        "broken": (4, 4),
    }
    assert rows["broken"]["accuracy"] == 0
    assert "ZeroDivisionError" in next(out.glob("cells/broken/*/*/error.txt")).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "elm,nonsense"), "no method 'nonsense'"),
        (("--orders", "sideways"), "use one of shuffled, blocked, reversed"),
        (("--seeds", "one"), "whole numbers"),
        (("--config", "nowhere.toml"), "no settings at nowhere.toml"),
        (("--data", "nowhere.jsonl"), "no data at nowhere.jsonl"),
        (("--method-file", "nowhere.py"), "nowhere.py is no Python file"),
    ],
)
def test_user_errors_are_one_sentence(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = ran("compare", "--out", tmp_path / "out", *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_variants_and_unknown_keys(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('methods = ["elm", "k1"]\nseeds = [5]\n[variants.k1]\nmethod = "elm"\nlearn = { tokens = 1 }\n')
    plan = load(file)
    assert plan.labels() == ["zero-shot", "elm", "k1"]
    assert plan.resolve("k1")[1].learn.tokens == 1 and plan.resolve("elm")[1].learn.tokens == 20
    for text, message in (
        ("limits = 3\n", "no setting 'limits' .did you mean limit"),
        ("[learn]\ntoken = 3\n", "no setting 'token'"),
        ("limit = 'x'\n", "of type int"),
        ("limit =\n", "no TOML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load(file)


def test_a_file_may_build_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    file, middle = tmp_path / "sub/mine.toml", tmp_path / "sub/middle.toml"
    middle.write_text('base = "real/smollm2"\nlimit = 5\n[variants.elm-confident.learn]\nlabel = "all"\nsteps = 3\n')
    file.write_text('base = "middle.toml"\nmodel = "testbed"\n[sampling]\ntemperature = 0.5\n')
    plan, first = load(file), load("real/smollm2")
    variants = {**first.variants, "elm-confident": {"method": "elm-vote", "learn": {"label": "all", "steps": 3}}}
    sampling = replace(first.sampling, temperature=0.5)
    assert plan == replace(first, model="testbed", limit=5, sampling=sampling, variants=variants)
    middle.write_text('base = "sub/other.toml"\n')  # counts from where one stands, as --config does
    (tmp_path / "sub/other.toml").write_text("limit = 7\n")
    monkeypatch.chdir(tmp_path)
    assert load(file).limit == 7
    for text, message in (
        ('base = "nowhere"', "middle.toml: base is 'nowhere', and there is no such file"),
        ('base = "mine.toml"', "middle.toml: base is 'mine.toml', which builds on this file"),
        ('base = "middle.toml"', "middle.toml: base is 'middle.toml', which builds on this file"),
        ("base = 3", "middle.toml: base is 3; it must be the name"),
    ):
        middle.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load(file)


def test_an_oracle_without_gold_says_so() -> None:
    with pytest.raises(DataError, match="no gold answer"):
        Truths([Problem("p", "?")]).truth("p")


def test_the_example_of_the_docs_is_a_method(tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "docs" / "examples" / "confident.py"
    done = ran(
        *("compare", "--method-file", str(example), "--methods", "zero-shot,confident", "--data", "testbed:A"),
        *("--seeds", "1", "--limit", "8", "--jobs", "1", "--out", str(tmp_path / "out"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["confident"]["n"] == 8 and rows["confident"]["tokens"] == rows["zero-shot"]["tokens"]
    assert rows["confident"]["accuracy"] > rows["zero-shot"]["accuracy"]


@pytest.mark.slow
def test_a_killed_comparison_takes_its_workers_along_and_continues(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [
        *(sys.executable, "-m", "tacit", "compare", "--methods", "zero-shot,elm", "--data", "testbed:A"),
        *("--seeds", "1", "--limit", "12", "--jobs", "1", "--out", str(out)),
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not (out / "cells" / "elm").exists():
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = psutil.Process(running.pid).children(recursive=True)
        running.kill()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert (out / "cells" / "zero-shot" / "testbed-A" / "shuffled-1" / "cell.json").exists()
    assert not (out / "cells" / "elm" / "testbed-A" / "shuffled-1" / "cell.json").exists()
    again = ran(*words[3:], "--json")
    assert again.returncode == 0 and "zero-shot on testbed:A, shuffled, seed 1: " in again.stderr
    assert ", kept" in again.stderr.splitlines()[0]
    assert [row["n"] for row in json.loads(again.stdout)["rows"]] == [12, 12]
