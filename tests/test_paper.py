"""The shipped comparisons: every one can be read and resolved; the paper's run on stand-ins of its models and data."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import tacit
from conftest import Tacit, save_tiny_qwen2
from tacit.config import TESTBED, LearnConfig, Sampling, filled
from tacit.errors import ConfigError
from tacit.experiments.compare import Cell, run_cell
from tacit.experiments.compare_config import CompareConfig, load, shipped
from tacit.experiments.plan.dry_run import dry_run
from tacit.experiments.scoring import Grader
from tacit.experiments.streams import labelled
from tacit.tasks import sources as problems
from test_reward_models import save_prm

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT.parent / "shared" / "data"
SOURCES = {
    "hub:HuggingFaceH4/MATH-500:test": ("math500", 500),
    "hub:math-ai/amc23:test": ("amc23", 40),
    "hub:HuggingFaceH4/aime_2024:train": ("aime24", 30),
}
PAPER = [f"paper/{model}{kind}" for model in ("qwen2.5-math-7b", "llama-3.1-8b") for kind in ("", "-offline")]


# ---------------------------------------------------------------- files


def test_all_are_shipped_and_listed(cli: Tacit) -> None:
    ablations = "tokens steps rollouts init lr key floor reward label admission orders".split()
    assert set(shipped()) >= {*PAPER, *(f"ablations/{name}" for name in ablations)}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["tacit"]
    package = Path(tacit.__file__).parent
    packed = {file for pattern in patterns for file in package.glob(pattern)}
    assert {package / "experiments/plan" / f"{name}.toml" for name in shipped()} <= packed
    code, out, _ = cli("compare", "--list")
    assert code == 0 and all(re.search(rf"^{re.escape(name)} +\S", out, re.MULTILINE) for name in shipped())
    assert re.search(r"^zero-shot +\S", out, re.MULTILINE) and re.search(r"^elm +Routed answers", out, re.MULTILINE)
    assert json.loads(cli("compare", "--list", "--json")[1])["comparisons"] == shipped()


@pytest.mark.parametrize("name", sorted(shipped()))
def test_each_can_be_read_and_every_label_resolved(name: str) -> None:
    config = load(name)
    labels = [*config.labels(), *config.variants]
    assert len(config.labels()) >= 3 and len(shipped()[name]) > 20
    settings = {label: json.dumps(config.settings(label), sort_keys=True) for label in labels}
    assert len(set(settings.values())) == len(set(labels)), "two labels are the same thing"
    assert set(config.options) <= set(labels), "options for a label that is not there"
    for label in labels:
        method, _, options = config.resolve(label)
        assert set(options) <= set(method.defaults)


@pytest.mark.parametrize("name", sorted(name for name in shipped() if name.startswith("ablations/")))
def test_ablations_leave_the_seeds_of_results_alone_and_hold_the_default(name: str) -> None:
    config = load(name)
    assert config.data == ("testbed:A", "testbed:B") and config.limit == 60 and not set(config.seeds) & set(range(10))
    plain = CompareConfig()
    resolved = [config.resolve(label) for label in config.labels()]
    held = [(one.learn, one.recall, one.sampling) for method, one, _ in resolved if method.name.startswith("elm")]
    base: Any = (plain.learn, plain.recall, plain.sampling)
    if name == "ablations/reward":  # whose admission is off, or the controls would not be stored
        base = (replace(plain.learn, admit=0.0), plain.recall, plain.sampling)
    if name == "ablations/admission":  # whose labels are those that the vote gate applies to
        base = (replace(plain.learn, label="zero-shot"), plain.recall, plain.sampling)
    known = [[filled(part, TESTBED) for part in parts] for parts in (base, *held)]
    assert known[0] in known[1:], "the default is not among what is compared"


def test_an_ablation_just_works(tmp_path: Path) -> None:
    config = replace(load("ablations/init"), limit=5, window=1)
    config = replace(config, learn=replace(config.learn, steps=2), recall=replace(config.recall, floor=-1.0))
    record = run_cell(config, Cell("init-vocabulary", "testbed:A", "shuffled", 101), tmp_path)
    assert record["status"] == "done" and record["settings"]["learn"]["init"] == "vocabulary"


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name: str) -> None:
    config = load(name)
    learn = config.learn
    assert (learn.tokens, learn.steps, learn.rollouts, learn.label) == (20, 10, 8, "zero-shot")
    assert config.data == tuple(SOURCES) and config.limit == 0 and config.window == 1
    assert config.expected.keys() == SOURCES.keys()
    assert [config.expected[source]["problems"] for source in SOURCES] == [count for _, count in SOURCES.values()]
    fits = {row["method"]: row["fits"] for row in dry_run(config, gpu="h200")["rows"]}
    assert {label for label, fit in fits.items() if not fit} == {label for label in fits if label.endswith("-full")}


# ---------------------------------------------------------------- data

ROWS: dict[str, list[dict[str, Any]]] = {
    # The fields of the three sets on the Hub, and of a set of labelled problems to train on.
    "math500": [
        {
            "problem": f"What is {n} + 1?",
            "solution": "It is \\boxed{9}.",
            "answer": f"\\frac{{{2 * n + 2}}}{{2}}",
            "subject": ("Algebra", "Geometry")[n % 2],
            "level": 2,
            "unique_id": f"test/algebra/{n}.json",
        }
        for n in range(4)
    ],
    "amc23": [{"id": n, "question": f"What is {n} + 2?", "answer": f"{n + 2}.0", "url": "u"} for n in range(3)],
    "aime24": [
        {
            "id": 60 + n,
            "problem": f"What is {n} + 3?",
            "solution": "s",
            "answer": f"{n + 3:03}",
            "url": "u",
            "year": "2024",
        }
        for n in range(3)
    ],
    "train": [{"problem": f"What is {n} + {n}?", "answer": str(2 * n), "unique_id": str(n)} for n in range(9)],
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders that stand for the Hub's data sets, by name."""
    folder = tmp_path_factory.mktemp("sets")
    found = {}
    for name, rows in ROWS.items():
        split = "train" if name in ("aime24", "train") else "test"
        (folder / name).mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / f"{split}.jsonl").write_text(lines)
        found[name] = f"hub:{folder / name}:{split}"
    return found


def test_the_fields_of_the_hubs_sets_are_read(local: dict[str, str]) -> None:
    read = {name: problems.load(source, limit=0) for name, source in local.items()}
    assert [one.id for one in read["math500"]][:2] == ["test/algebra/0.json", "test/algebra/1.json"]
    assert [one.family for one in read["math500"]][:2] == ["Algebra", "Geometry"]
    assert [one.text for one in read["amc23"]][:2] == ["What is 0 + 2?", "What is 1 + 2?"]
    assert [one.id for one in read["aime24"]] == ["60", "61", "62"]
    for name, add in (("math500", 1), ("amc23", 2), ("aime24", 3)):
        for n, one in enumerate(read[name]):
            assert Grader(one).rights([str(n + add), str(n + add + 1)]) == [True, False]
    assert problems.load(local["amc23"], limit=2) == read["amc23"][:2]


def test_whole_floats_are_whole_numbers_and_other_numbers_stay(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text("".join(json.dumps({"question": "q", "answer": answer}) + "\n" for answer in (27.0, 0.5, 3)))
    heads = [Grader(one).head(0)["gold"] for one in problems.load(str(file))]
    assert heads == ["27", "0.5", "3"]


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks do not lie beside the checkout")
def test_the_real_sets_have_as_many_problems_as_is_said() -> None:
    for file, count in SOURCES.values():
        assert len(problems.load(str(BENCHMARKS / f"{file}.jsonl"), limit=0)) == count


def test_all_problems_of_what_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="testbed:A makes problems without end; set a limit above 0"):
        CompareConfig(limit=0)
    with pytest.raises(ConfigError, match="endless stream"):
        problems.load("testbed:B", limit=0)
    with pytest.raises(ConfigError, match="0 \\(all\\) or more"):
        CompareConfig(limit=-1)
    file = tmp_path / "plan.toml"
    (tmp_path / "here.jsonl").write_text('{"problem": "compute 3 4 + 5 8", "answer": "9 2"}\n')
    file.write_text('data = ["here.jsonl"]\nlimit = 0\nmethods = ["zero-shot"]\n[expected."here.jsonl"]\ntokens = 5\n')
    monkeypatch.chdir(tmp_path)  # paths in a file count from where the command is given
    assert dry_run(load("plan.toml"))["data"][0]["problems"] == 1
    for text, message in (
        ("[expected.x]\nproblem = 5\n", "named problems, tokens, prompt"),
        ("[expected.x]\nproblems = 0\n", "numbers above 0"),
        ("[training]\nx = 3\n", "must be the name of a source"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load("plan.toml")


def test_labelled_problems_come_from_the_source_named_for_it(local: dict[str, str]) -> None:
    stream = problems.load(local["math500"])
    cell = Cell("grpo-soft", local["math500"], "shuffled", 4)
    config = CompareConfig(data=(local["math500"],), limit=0, training={local["math500"]: local["train"]})
    drawn = labelled(config, cell, stream)
    assert len(drawn) == len({one.id for one in drawn}) == 4 and not {one.text for one in drawn} & {
        one.text for one in stream
    }
    assert {one.id for one in drawn}.isdisjoint(one.id for one in stream)
    assert drawn == labelled(config, cell, stream) != labelled(config, replace(cell, seed=5), stream)
    assert labelled(replace(config, training={}), cell, stream) == []
    own = replace(config, training={local["math500"]: local["math500"]})
    assert labelled(own, cell, stream) == [], "a problem of the stream is never trained on with its label"


# ---------------------------------------------------------------- models


def save_tiny_llama(folder: Path) -> Path:
    """A random Llama of the family of Llama-3.1 (its rope scaling, several end tokens), with the Qwen stand-in's
    tokenizer."""
    save_tiny_qwen2(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scaling = {"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            rope_parameters={**scaling, "original_max_position_embeddings": 512, "rope_theta": 500000.0},
            eos_token_id=[tokenizer.eos_token_id, 0],
            tie_word_embeddings=False,
        )
    )
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model", ["qwen2.5-math-7b", "llama-3.1-8b"])
def test_the_papers_comparison_runs_on_stand_ins(model: str, local: dict[str, str], tmp_path: Path) -> None:
    save = save_tiny_qwen2 if "qwen" in model else save_tiny_llama
    config = load(f"paper/{model}")
    config = replace(
        config,
        model=str(save(tmp_path / "model")),
        reward_model=str(save_prm(tmp_path / "prm")),
        data=(local["math500"], local["amc23"], local["aime24"]),
        expected={},
        seeds=(0,),
        device="cpu",
        sampling=Sampling(samples=4, max_tokens=12),
        learn=replace(config.learn, steps=2, rollouts=4),
    )
    for label in ("zero-shot", "elm"):
        for data in config.data:
            record = run_cell(config, Cell(label, data, "shuffled", 0), tmp_path / "out")
            assert record["status"] == "done", record["error"]
            assert record["n"] == len(problems.load(data))
            rows = [json.loads(line) for line in next((tmp_path / "out").glob(f"cells/{label}/*/*/rows.jsonl")).open()]
            assert all(row["failed"] is None for row in rows)
    planned = {row["method"]: row for row in dry_run(replace(config, methods=("elm",)))["rows"]}
    assert record["trainable"] == planned["elm"]["trainable"] == 20 * 64


# ---------------------------------------------------------------- a problem that is too long


def test_a_problem_that_is_too_long_is_a_failure_of_that_problem_alone(tmp_path: Path) -> None:
    model = save_tiny_qwen2(tmp_path / "model", max_position_embeddings=160)
    texts = ["What is 3 + 4?", "why " * 60, "What is 5 + 6?", "What is 7 + 8?"]
    file = tmp_path / "some.jsonl"
    lines = [json.dumps({"id": str(n), "problem": text, "answer": "7"}) for n, text in enumerate(texts)]
    file.write_text("\n".join(lines))
    config = CompareConfig(
        model=str(model),
        data=(str(file),),
        limit=0,
        window=4,
        device="cpu",
        probes=False,
        sampling=Sampling(samples=2, max_tokens=8),
        learn=LearnConfig(tokens=4, steps=1, rollouts=2),
    )
    for label in ("zero-shot", "elm", "icl", "majority"):
        cell = Cell(label, str(file), "shuffled", 0)
        record = run_cell(config, cell, tmp_path / "out")
        assert record["status"] == "done", record["error"]
        rows = [json.loads(line) for line in (cell.folder(tmp_path / "out") / "rows.jsonl").open()]
        assert [row["failed"] is not None for row in rows] == [False, True, False, False], label
        assert "has room for 160; shorten the problem or lower max_tokens" in rows[1]["failed"]
        assert rows[1]["correct"] == 0 and rows[1]["greedy_correct"] is False, "it counts, as wrong"
