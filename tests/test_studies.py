"""The studies: statistics against hand-worked cases, rules that keep what they say, and both studies on the testbed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Tacit, stream
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling
from tacit.errors import DataError
from tacit.experiments.studies import quality, quality_rules, transfer
from tacit.experiments.studies.quality import QualityConfig
from tacit.experiments.studies.quality_rules import Rule, auc, default_rule, ranks, rule_table, signal_table, spearman
from tacit.experiments.studies.transfer import TransferConfig

QUICK = RunConfig(
    sampling=Sampling(samples=4, max_tokens=48), learn=LearnConfig(steps=4, rollouts=4, label="zero-shot", batch=16)
)


def memory(number: int, benefit: float | None, part: str = "choose", **signals: float | None) -> dict[str, Any]:
    return {
        "id": f"{part}{number}",
        "part": part,
        "benefit": benefit,
        "greedy_benefit": benefit,
        "label_right": True,
        "signals": signals,
    }


def asked(part: str, *nearest: tuple[int, float]) -> dict[str, Any]:
    cells = [{"id": f"{part}{number}", "gain": gain, "greedy_gain": -gain} for number, gain in nearest]
    return {"part": part, "problem_id": "p", "nearest": cells}


def test_ranks_share_ties_and_correlation_is_of_ranks() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 9.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    # Differences of ranks 1, -1, 1, -1: 1 - 6 * 4 / (4 * 15).
    assert spearman(x, np.array([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)
    assert spearman(x, np.ones(4)) is None


def test_auc_counts_pairs() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.9])
    # Of the four (positive, negative) pairs, three are ordered and one is a tie.
    assert auc(scores, np.array([False, False, True, True])) == pytest.approx(3.5 / 4)
    assert auc(scores, np.ones(4, dtype=bool)) is None


def test_signals_are_ranked_by_what_they_predict() -> None:
    rng = np.random.default_rng(0)
    benefits = rng.normal(size=40)
    memories = [
        memory(i, float(b), good=float(b), verifier_bad=float(-b), blind=float(rng.normal()), patchy=None)
        for i, b in enumerate(benefits)
    ]
    memories[0]["signals"]["patchy"] = 1.0
    table = {row["signal"]: row for row in signal_table([*memories, memory(99, None, good=5.0)])}
    assert table["good"]["spearman"] == pytest.approx(1.0) and table["good"]["auc"] == 1.0
    assert table["verifier_bad"]["spearman"] == pytest.approx(-1.0) and table["verifier_bad"]["auc"] == 0.0
    assert table["verifier_bad"]["needs_verifier"] and not table["good"]["needs_verifier"]
    assert table["blind"]["low"] < 0 < table["blind"]["high"]
    assert table["good"]["n"] == 40 and table["patchy"]["n"] == 1 and table["patchy"]["spearman"] is None


def test_a_rule_keeps_what_reaches_its_bounds_and_missing_signals_do_not() -> None:
    rule = Rule((("a", 0.5), ("b", 1.0)))
    rows = [memory(0, 0.0, a=0.5, b=1.0), memory(1, 0.0, a=0.4, b=2.0), memory(2, 0.0, a=1.0, b=None)]
    assert rule.keeps(rows).tolist() == [True, False, False]
    assert Rule().keeps(rows).all() and str(Rule()) == "keep all"
    assert str(rule) == "a >= 0.5 and b >= 1"
    assert Rule((("verifier_gain", 0.0),)).needs_verifier and not rule.needs_verifier


def gate(**more: float) -> dict[str, float]:
    return {"vote_share": 1.0, "vote_margin": 1.0, "updates": 1.0, "last_reward": 1.0, **more}


def test_rules_are_chosen_on_one_part_and_judged_on_the_other() -> None:
    """``a`` separates good from harmful on both parts; ``fluke`` does so better where rules are chosen, only there."""
    memories, rows = [], []
    for part, flukes in (("choose", (1.0, 1.0, 0.0, 0.0)), ("confirm", (0.0, 0.0, 1.0, 1.0))):
        for i, benefit in enumerate((0.6, 0.4, -0.2, -0.4)):
            memories.append(memory(i, benefit, part, **gate(fluke=flukes[i])))
        rows.append(asked(part, (3, -0.4), (0, 0.6)))
        rows.append(asked(part, (2, -0.2)))
    table = rule_table(memories, rows, LearnConfig())
    found = {(row["name"], row["seeds"]): row for row in table}
    chosen, judged = (found["best one signal, no verifier", part] for part in ("choose", "confirm"))
    assert chosen["rule"] == judged["rule"] == "fluke >= 1"
    assert chosen["objective"]["mean"] == pytest.approx(1.0 / 4) and chosen["harmful_kept"] == 0
    assert judged["objective"]["mean"] == pytest.approx(-0.6 / 4) and judged["harmful_kept"] == 2
    # Served by the nearest memory that is kept; the second problem has none left and stays as it is.
    assert chosen["served"]["mean"] == pytest.approx((0.6 + 0.0) / 2)
    assert chosen["served_greedy"]["mean"] == pytest.approx((-0.6 + 0.0) / 2)
    everything = found["all", "choose"]
    assert everything["kept"] == 4 and everything["benefit_dropped"]["mean"] is None
    assert everything["served"]["mean"] == pytest.approx((-0.4 - 0.2) / 2)
    assert chosen["served_over_default"]["mean"] == pytest.approx(0.3 + 0.3)
    assert not any("verifier" in row["rule"] for row in table)


def test_equal_objectives_go_to_the_rule_with_fewer_harmful_memories() -> None:
    benefits = (0.5, 0.0, 0.3, -0.3)
    memories = [
        memory(i, b, **gate(a=float(a), b=float(v)))
        for i, (b, a, v) in enumerate(zip(benefits, (2, 0, 1, 1), (2, 1, 0, 0), strict=True))
    ]  # a >= 1 keeps 0, 2 and 3; a >= 2 keeps 0; b >= 1 keeps 0 and 1: all with the sum 0.5
    best = quality_rules._best([Rule((("a", 1.0),)), Rule((("b", 1.0),))], memories, [])
    assert str(best) == "b >= 1"


def test_the_default_rule_is_the_learners_gate() -> None:
    rule = default_rule(LearnConfig(min_votes=3, min_lead=2, admit=0.5))
    assert rule.keeps([memory(0, 0.0, vote_share=3 / 8, vote_margin=2 / 8, updates=1.0, last_reward=0.5)]).all()
    for weak in ({"vote_share": 2 / 8}, {"vote_margin": 1 / 8}, {"updates": 0.0}, {"last_reward": 0.49}):
        one = memory(0, 0.0, **{**gate(), **weak})
        assert not rule.keeps([one]).any()
        # As in learning, the vote does not gate a label that a verifier trusts.
        assert rule.keeps([{**one, "trusted": True}]).any() == ("vote_share" in weak or "vote_margin" in weak)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("quality")
    config = QualityConfig(
        QUICK, choose=(301,), confirm=(302,), limit=10, held_out=14, nearest=3, neighbours=2, served=2
    )
    return out, quality.study(config, out)


def test_the_quality_study_learns_what_admission_would_refuse(small: tuple[Path, dict[str, Any]]) -> None:
    out, result = small
    assert json.loads((out / "quality.json").read_text()) == json.loads(json.dumps(result))
    memories = result["memories"]
    assert len(memories) >= 16 and len({one["id"] for one in memories}) == len(memories)
    usual = default_rule(QUICK.learn).keeps(memories)
    assert 0 < usual.sum() < len(memories)
    for one in memories:
        assert one["held_out"] <= 3 and (one["benefit"] is None) == (one["held_out"] == 0)
        assert one["benefit"] is None or -1 <= one["benefit"] <= 1
        assert 1 / 4 <= one["signals"]["vote_share"] <= 1 and 0 <= one["signals"]["verifier_label"] <= 1
        assert one["family"] == one["problem_id"].split("/")[1]
    names = {row["signal"] for row in result["signals"]}
    assert {"vote_share", "last_reward", "neighbour_agreement", "verifier_gain"} <= names
    parts = {(row["name"], row["seeds"]) for row in result["rules"]}
    assert {("default", "choose"), ("default", "confirm"), ("best two signals, verifier", "confirm")} <= parts
    assert len(result["tries"]) == 28 and all(len(row["nearest"]) <= 2 for row in result["tries"])
    table = (out / "quality.md").read_text()
    assert all(f"| {name} |" in table for name in names)


def test_wrong_golds_change_benefits_but_no_signal(tmp_path: Path) -> None:
    """Signals are known without labels: a data set with all answers wrong gives the same ones."""
    file = tmp_path / "data.jsonl"
    run = replace(QUICK, data=str(file))
    runs = []
    for lie in (False, True):
        problems = [{"id": p.id, "problem": p.text, "answer": "-77" if lie else p.gold} for p in stream(16)]
        file.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
        runs.append(quality.measure(QualityConfig(run, limit=8, held_out=8, nearest=3, neighbours=2, served=2), 1)[0])
    true, lying = runs
    assert len(true) == len(lying) >= 3
    assert [one["signals"] for one in true] == [one["signals"] for one in lying]
    assert [one["benefit"] for one in true] != [one["benefit"] for one in lying]
    assert not any(one["label_right"] for one in lying)


def test_too_few_problems_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text('{"problem": "compute 1 + 1", "answer": "2"}\n')
    run = RunConfig(data=str(file))
    with pytest.raises(DataError, match="has 1 problems, but the study wants 180"):
        quality.measure(QualityConfig(run), 1)
    with pytest.raises(DataError, match="names no families"):
        transfer.family_matrix(TransferConfig(run))
    with pytest.raises(DataError, match="leaves none to answer"):
        transfer.carried(TransferConfig(run, sets=(str(file),)), str(file))


def test_the_transfer_study(tmp_path: Path) -> None:
    run = RunConfig(
        data="testbed:A",
        seed=3,
        sampling=QUICK.sampling,
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
    code, _, err = cli("study", "quality", "--out", "q", "--seeds", "1,2", "--confirm", "2")
    assert code == 2 and "seed 2 is both" in err
    code, _, err = cli("study", "quality", "--out", "q", "--seeds", "one")
    assert code == 2 and "--seeds is 'one'" in err
    code, _, err = cli("study", "transfer", "--out", "t", "--targets", "0")
    assert code == 2 and "--targets must be at least 1" in err
    assert not Path("q").exists() and not Path("t").exists()
