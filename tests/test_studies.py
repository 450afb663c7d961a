"""The study of transfer, on the testbed; what is wrong with data and options is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Tacit
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling
from tacit.errors import DataError
from tacit.experiments.studies import transfer
from tacit.experiments.studies.transfer import TransferConfig


def test_too_few_problems_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text('{"problem": "compute 1 + 1", "answer": "2"}\n')
    run = RunConfig(data=str(file))
    with pytest.raises(DataError, match="names no families"):
        transfer.family_matrix(TransferConfig(run))
    with pytest.raises(DataError, match="leaves none to answer"):
        transfer.carried(TransferConfig(run, sets=(str(file),)), str(file))


def test_the_transfer_study(tmp_path: Path) -> None:
    run = RunConfig(
        data="testbed:A",
        seed=3,
        sampling=Sampling(samples=4, max_tokens=48),
        learn=LearnConfig(steps=6, label="zero-shot"),
        recall=RecallConfig(key="input"),
    )
    config = TransferConfig(run, memories=1, tries=2, targets=2, learned=12, answered=8, window=12)
    result = transfer.study(config, tmp_path)
    assert json.loads((tmp_path / "transfer.json").read_text()) == json.loads(json.dumps(result))
    families = result["families"]
    assert families == ["add", "count", "last", "max", "mul", "prec"]
    for source, count in enumerate(result["memories"]):
        assert count <= 1
        for target in range(len(families)):
            gain = result["gain"][source][target]
            assert result["n"][source][target] == 2 * count and (gain is None) == (count == 0)
            assert gain is None or -1 <= gain <= 1
    assert result["own"]["n"] + result["other"]["n"] == 12 * sum(result["memories"])
    rows = {(row["source"], row["target"], row["floor"]): row for row in result["sets"]}
    assert set(rows) == {(a, b, floor) for a in config.sets for b in config.sets for floor in (0.5, -1.0)}
    for target in config.sets:
        # The same fresh problems, whichever bank answers them.
        assert len({row["zero_shot"]["mean"] for key, row in rows.items() if key[1] == target}) == 1
    for source in config.sets:
        for target in config.sets:
            assert rows[source, target, -1.0]["recalled"] == rows[source, target, -1.0]["problems"] == 8
            assert rows[source, target, 0.5]["recalled"] <= 8
    # Formal problems and stories have so few words in common that nothing is recalled by them, and nothing gained.
    across = rows["testbed:A", "testbed:B", 0.5]
    assert across["recalled"] == 0 and across["routed"] == across["memory"] and across["routed"]["mean"] == 0
    assert "| testbed:A → testbed:B, floor 0.5 |" in (tmp_path / "transfer.md").read_text()


def test_the_commands_say_what_is_wrong(cli: Tacit) -> None:
    code, _, err = cli("study", "quality", "--out", "q", "--seeds", "1,2")
    assert code == 2 and "has left" in err and "Traceback" not in err
    code, _, err = cli("study", "transfer", "--out", "t", "--targets", "0")
    assert code == 2 and "--targets must be at least 1" in err
    assert not Path("q").exists() and not Path("t").exists()
