"""``tacit doctor --model``: the figures are the model's, and the advice follows from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Tacit
from tacit.cli.main import app
from tacit.config import RunConfig
from tacit.errors import ConfigError
from tacit.experiments.first_look import Look, advice, look, sample_data
from tacit.model.backbone import Backbone


@pytest.fixture(scope="module")
def seen() -> Look:
    return look(RunConfig(data="testbed", limit=3))


def test_what_is_said_is_true_of_the_testbed(seen: Look, testbed: Backbone) -> None:
    weights = list(testbed.model.parameters())
    assert (seen.parameters, seen.bytes) == (sum(one.numel() for one in weights), 4 * sum(w.numel() for w in weights))
    assert (seen.architecture, seen.context, seen.chat_template) == ("qwen3", testbed.context, True)
    assert seen.fingerprint == testbed.asked(replace(testbed.template, instruction="")).fingerprint
    assert seen.problems == 3 and seen.answered > 0.5 and 0 <= seen.confident <= 1 and seen.tokens_per_second > 0
    assert seen.settings["learn"]["lr"] == 0.02 and "preset testbed" in seen.preset
    assert seen.next[0].startswith("tacit run --model testbed --task maths")


def test_the_command_says_it(cli: Tacit, tiny_model: Path) -> None:
    short = ("--limit", 2, "--samples", 2, "--max-tokens", 5)
    code, out, error = cli("doctor", "--model", tiny_model, *short, "--json")
    assert code == 0 and "asking 2 problems, 3 responses each" in error
    found = json.loads(out)["model"]
    assert found["task"] == "number" and found["data"] == "families:number" and found["answered"] < 0.9
    assert found["settings"]["sampling"]["max_tokens"] == 5
    assert found["next"] == [one for one in found["next"] if "tacit tasks try number" in one]
    code, out, _ = cli("doctor", "--model", tiny_model, *short, "--task", "choice")
    assert code == 0 and "choice on families:choice" in out and "qwen2, " in out and "next: " in out
    assert "its chat template" in out


def test_what_cannot_be_looked_at(cli: Tacit, tmp_path: Path, tiny_model: Path) -> None:
    code, _, error = cli("doctor", "--model", tmp_path / "nowhere")
    assert code == 2 and error.splitlines()[1].startswith("error: no model at")
    code, _, error = cli("doctor", "--model", tiny_model, "--task", "python", "--allow-code")
    assert code == 2 and "there are no sample problems for the task python; give some with --data FILE.jsonl" in error
    code, _, error = cli("doctor", "--model", tiny_model, "--max-tokens", 5000)
    assert code == 2 and "fits the model's context" in error and "fewer --max-tokens" in error


def test_without_a_model_nothing_is_loaded(cli: Tacit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "load", lambda *_, **__: pytest.fail("loaded"))
    assert cli("doctor")[0] == 0


def test_advice_follows_from_what_was_seen(seen: Look) -> None:
    silent = replace(seen, answered=0.2, cut=0.7)
    [line] = advice(silent, measured=True)
    assert line.startswith("80% of the responses have no answer: most of the others were cut: say more --max-tokens")
    [line] = advice(replace(silent, cut=0.1), measured=True)
    assert "--max-tokens" not in line and "say another --instruction or --task" in line
    [line] = advice(replace(seen, answered=1.0, confident=0.1), measured=True)
    assert line.startswith("only 10% of the votes") and "tacit study signal" in line
    good = replace(seen, answered=1.0, confident=0.6)
    assert advice(good, measured=False)[0].startswith("tacit tune --model testbed")
    known = {each.name for each in (*app.registered_commands, *app.registered_groups)}
    assert known >= {"run", "serve", "tune", "study", "tasks"}


def test_tasks_without_sample_problems_need_data() -> None:
    assert (
        sample_data(None, "some/model") == sample_data("number", "m") == sample_data("maths", "m") == "families:number"
    )
    assert sample_data(None, "testbed:C") == "testbed:C"
    with pytest.raises(ConfigError, match="no sample problems for the task code"):
        sample_data("code", "m")
