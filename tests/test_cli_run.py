"""run, demo and ask as commands: options become settings, errors become sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Tacit
from tacit.bank import open_bank
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling
from tacit.experiments import run as runner
from tacit.experiments.report.run_figures import summarise
from tacit.memory import Memory, State
from test_metrics_rows import synthetic_rows


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The settings that commands hand to the runner, which here only pretends to run."""
    seen: list[RunConfig] = []

    def pretend(config: RunConfig, progress: Callable[..., None], tell: Callable[[str], None]) -> dict[str, Any]:
        seen.append(config)
        rows = synthetic_rows(6)
        for done, row in enumerate(rows, start=1):
            progress(row, done, 6)
        return summarise(rows, model=config.model, seed=config.seed, resamples=50)

    monkeypatch.setattr(runner, "run", pretend)
    return seen


def test_without_options_the_settings_are_the_defaults(cli: Tacit, asked: list[RunConfig]) -> None:
    code, out, err = cli("run")
    assert code == 0 and asked == [RunConfig()]
    assert "routed over zero-shot" in out and "runs/run/report.html" in out and "6 of 6 problems" in err


def test_every_option_reaches_its_setting(cli: Tacit, asked: list[RunConfig]) -> None:
    options = {
        "--model": "some/model", "--data": "file.jsonl", "--bank": "b.db", "--out": "o", "--seed": 3, "--limit": 5,
        "--window": 4, "--namespace": "me", "--baselines": "random,icl", "--samples": 2, "--temperature": 0.7,
        "--top-p": 0.9, "--max-tokens": 99, "--tokens": 7, "--steps": 6, "--rollouts": 5, "--lr": 0.5,
        "--init": "vocabulary", "--label": "routed", "--reward": "random", "--admit": 0.25, "--batch": 2,
        "--enough": 0.75, "--settled": 2, "--row-tokens": 4096,
        "--key": "hidden:3", "--floor": 0.1, "--verifier": "vote", "--reward-model": "some/prm", "--device": "cpu",
        "--dtype": "bfloat16", "--threads": 1,
    }  # fmt: skip
    assert cli("run", *(part for pair in options.items() for part in pair))[0] == 0
    assert asked == [
        RunConfig(
            model="some/model",
            data="file.jsonl",
            bank="b.db",
            out="o",
            seed=3,
            limit=5,
            window=4,
            namespace="me",
            baselines=("random", "icl"),
            verifier="vote",
            reward_model="some/prm",
            device="cpu",
            dtype="bfloat16",
            threads=1,
            sampling=Sampling(samples=2, temperature=0.7, top_p=0.9, max_tokens=99),
            learn=LearnConfig(
                tokens=7,
                steps=6,
                rollouts=5,
                lr=0.5,
                init="vocabulary",
                label="routed",
                reward="random",
                admit=0.25,
                batch=2,
                row_tokens=4096,
                enough=0.75,
                settled=2,
            ),
            recall=RecallConfig(key="hidden:3", floor=0.1),
        )
    ]


def test_no_baselines_and_the_demo(cli: Tacit, asked: list[RunConfig]) -> None:
    assert cli("run", "--baselines", "none")[0] == 0
    assert cli("demo", "--seed", "2", "--limit", "30", "--out", "d")[0] == 0
    assert cli("demo")[0] == 0
    assert asked[0].baselines == ()
    assert (asked[1].seed, asked[1].limit, asked[1].out) == (2, 30, "d")
    assert (asked[2].model, asked[2].data, asked[2].out) == ("testbed", "testbed", "runs/demo")
    assert (
        asked[2].limit is not None and asked[2].limit >= 200 and {"icl", "random", "majority"} <= {*asked[2].baselines}
    )


def test_a_run_that_learned_nothing_says_why(cli: Tacit, tmp_path: Path) -> None:
    code, out, _ = cli("run", "--limit", 2, "--tokens", 2000, "--baselines", "none", "--out", tmp_path / "out")
    assert code == 0 and "0 memories (2 not learned, too long); " in out


def test_ctrl_c_says_that_the_run_continues(cli: Tacit, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: RunConfig, progress: Callable[..., None], tell: Callable[[str], None]) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    assert cli("demo") == (130, "", "interrupted; the same command continues the run\n")


@pytest.mark.parametrize(
    "args, words",
    [
        (["--data", "bad.jsonl"], "bad.jsonl line 2"),
        (["--data", "nofield.jsonl"], "nofield.jsonl line 1"),
        (["--data", "empty.jsonl"], "no problems"),
        (["--data", "folder"], "folder"),
        (["--data", "missing.jsonl"], "missing.jsonl"),
        (["--data", "testbed"], "--limit"),
        (["--limit", "-1"], "limit"),
        (["--limit", "0"], "limit"),
        (["--limit", "3", "--window", "0"], "window"),
        (["--limit", "3", "--steps", "-2"], "steps"),
        (["--limit", "3", "--lr", "nan"], "lr"),
        (["--limit", "3", "--seed", "-1"], "seed"),
        (["--limit", "3", "--baselines", "luck"], "luck"),
        (["--limit", "3", "--baselines", "none,icl"], "none"),
        (["--limit", "3", "--model", "nowhere/at/all/of/this"], "nowhere"),
        (["--limit", "3", "--model", "folder"], "folder"),
        (["--limit", "3", "--bank", "redis://x"], "redis"),
        (["--limit", "3", "--bank", "bad.jsonl"], "bad.jsonl"),
        (["--limit", "3", "--out", "bad.jsonl"], "bad.jsonl"),
    ],
)
def test_errors_of_a_run_are_one_sentence(cli: Tacit, tmp_path: Path, args: list[str], words: str) -> None:
    (tmp_path / "bad.jsonl").write_text('{"problem": "1 + 1"}\n{"problem": \n')
    (tmp_path / "nofield.jsonl").write_text('{"answer": "2"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    code, out, err = cli("run", *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


@pytest.mark.parametrize(
    "args, words",
    [
        (["--engine", "nowhere"], "engine"),
        (["--ray", "nowhere"], "nowhere"),
        (["--model", "nowhere/at/all/of/this"], "nowhere"),
        (["--reward-model", "nowhere/at/all", "--verifier", "reward-model"], "nowhere"),
        (["--data", "words.jsonl", "--task", "number"], "words.jsonl"),
        (["--out", "words.jsonl"], "words.jsonl"),
    ],
)
@pytest.mark.parametrize("said", [[], ["--task", "text"]])
def test_a_mistake_leaves_no_new_bank_behind(
    cli: Tacit, tmp_path: Path, args: list[str], words: str, said: list[str]
) -> None:
    (tmp_path / "words.jsonl").write_text('{"problem": "say yes", "answer": "yes"}\n')
    code, _, err = cli("run", "--data", "words.jsonl", "--bank", "new.db", *said, *args)
    assert code == 2 and words in err and err.count("\n") == 1
    assert not (tmp_path / "new.db").exists() and not [*tmp_path.rglob("*.sqlite")]


def test_ask_answers_says_why_and_learns_only_when_told(cli: Tacit, tmp_path: Path) -> None:
    problem = "mary has 18 coins and tom has 41 coins. what is the most?"
    code, _, err = cli("ask", problem, "--bank", "bank.db")
    assert code == 2 and "no bank" in err and not (tmp_path / "bank.db").exists()
    for words in (["--engine", "nowhere"], ["--model", "nowhere"], ["--reward-model", "nowhere"]):
        assert cli("ask", problem, "--bank", "bank.db", "--learn", *words)[0] == 2
        assert cli("serve", "--bank", "bank.db", "--port", 0, *words)[0] == 2
    assert cli("serve", "--bank", "bank.db", "--port", 0, "--host", "0.0.0.0")[0] == 2  # it has no key
    assert not (tmp_path / "bank.db").exists()
    code, out, _ = cli("ask", problem, "--bank", "bank.db", "--learn", "--json")
    first = json.loads(out)
    assert code == 0 and first["route"] == "no_memory" and first["recalled"] is None and first["memory"] is None
    assert first["answer"] == first["zero_shot"]["greedy_answer"] and len(first["zero_shot"]["answers"]) == 8
    bank = open_bank("bank.db", create=False)
    stored = bank.find("default")
    bank.close()
    assert [info.id for info in stored] == ([first["learned"]["memory_id"]] if first["learned"]["memory_id"] else [])
    code, out, _ = cli("ask", problem, "--bank", "bank.db", "--json", "--no-memory")
    again = json.loads(out)
    assert again["zero_shot"] == first["zero_shot"] and again["learned"] is None
    code, out, err = cli("ask", problem, "--bank", "bank.db")
    assert (code, err) == (0, "") and out.startswith("answer ") and "\nroute " in out
    bank = open_bank("bank.db", create=False)
    assert len(bank.find("default")) == len(stored)
    bank.close()
    code, _, err = cli("ask", " ", "--bank", "bank.db")
    assert code == 2 and "empty" in err


def test_a_question_with_options_makes_no_bank_of_multiple_choice(cli: Tacit) -> None:
    asked = ("--bank", "new.db", "--samples", 2)
    assert cli("ask", "which is even?\nA) 3\nB) 4", *asked, "--learn")[0] == 0
    assert cli("ask", "compute 3 + 4", *asked, "--task", "maths")[0] == 0
    code, _, err = cli("ask", "which is even?\nA) 3\nB) 4", *asked, "--task", "choice")
    assert code == 2 and "for the task maths, not for choice" in err


def test_a_bank_of_another_model_says_whose_it_is(cli: Tacit) -> None:
    assert cli("ask", "compute 3 + 4", "--bank", "a.db", "--learn", "--samples", 2)[0] == 0
    code, _, err = cli("ask", "what comes after monday?", "--model", "testbed:C", "--bank", "a.db", "--samples", 2)
    assert code == 2 and "(model testbed), not to" in err


def test_ask_with_another_kind_of_key_says_which_the_bank_has(cli: Tacit) -> None:
    prompt = np.zeros((2, 4), dtype=np.float32)
    key = np.array([1, 0], dtype=np.float32)
    stored = Memory("m", "default", "p", "text", prompt, key, "kv", "fingerprint", State.ACTIVE, "test", {}, 0.0)
    bank = open_bank("keys.db")
    bank.add(stored)
    bank.close()
    code, _, err = cli("ask", "compute 1 + 1", "--bank", "keys.db", "--key", "last")
    assert code == 2 and "--key kv" in err


def test_a_run_finds_and_keeps_by_the_key_of_its_bank(cli: Tacit) -> None:
    more = ("--limit", 6, "--samples", 4, "--baselines", "none")
    assert cli("run", "--out", "first", "--key", "input", *more)[0] == 0
    assert cli("run", "--out", "second", "--bank", "first/bank.sqlite", "--seed", 1, *more)[0] == 0
    bank = open_bank("first/bank.sqlite", create=False)
    kinds = {info.key_kind for info in bank.find("default")}
    bank.close()
    rows = [json.loads(line) for line in Path("second/results.jsonl").read_text().splitlines()]
    assert kinds == {"input"} and any(row["memory"] for row in rows)
