"""Synthetic result rows: a stream answered by a simulated model. For the metrics, report and CLI tests."""

from __future__ import annotations

import random
from typing import Any

from tacit.experiments.report.run_figures import summarise

FAMILIES = {  # zero-shot p, p under a fitting memory, p(label right)
    "add": (0.55, 0.85, 0.95),
    "boxes": (0.40, 0.80, 0.9),
    "count": (0.42, 0.75, 0.9),
    "lin": (0.28, 0.25, 0.3),
    "prec": (0.30, 0.35, 0.4),
    "max": (0.50, 0.85, 0.95),
}


def _arm(rng: random.Random, gold: str, p: float, n: int, **extra: Any) -> dict[str, Any]:
    answers = [gold if rng.random() < p else str(rng.randrange(100, 130)) for _ in range(n)]
    rights = [answer == gold for answer in answers]
    answer = max(answers, key=answers.count)
    greedy = gold if rng.random() < min(1.0, p + 0.05) else "999"
    return {
        "answer": answer,
        "correct": sum(rights) / n,
        "greedy_answer": greedy,
        "greedy_correct": greedy == gold,
        "answers": answers,
        "rights": rights,
        "majority_correct": answer == gold,
        "tokens": 30 * (n + 1),
        **extra,
    }


def synthetic_rows(n: int = 210, *, seed: int = 0, samples: int = 4, oracle: bool = False) -> list[dict[str, Any]]:
    """Rows as the runner writes them; with ``oracle`` every arm always answers right."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    bank: list[tuple[str, str]] = []
    for position in range(n):
        family = rng.choice(sorted(FAMILIES))
        base, tuned, label = (1.0, 1.0, 1.0) if oracle else FAMILIES[family]
        gold = str(rng.randrange(10, 99))
        zero_shot = _arm(rng, gold, base, samples)
        fitting = [memory for memory, kind in bank if kind == family]
        recalled = fitting[-1] if fitting else None
        source = f"A-{seed}-{int(recalled[1:])}" if recalled else None
        memory = (
            _arm(rng, gold, tuned, samples, memory_id=recalled, similarity=0.6 + 0.4 * rng.random(), source=source)
            if recalled
            else None
        )
        routed = dict(memory or zero_shot)
        routed |= {"route": "memory" if memory else "no_memory", "why": "synthetic"}
        routed |= {"routes": ["memory" if memory else "no_memory"] * samples, "greedy_route": routed["route"]}
        other = rng.choice(bank)[0] if bank else None
        majority = gold if rng.random() < (1.0 if oracle else 0.7) else "7"
        right = rng.random() < label
        learned = {
            "memory_id": f"m{position:04d}",
            "state": "active" if right or rng.random() < 0.2 else "quarantined",
            "reason": "mean reward of the last steps",
            "label": gold if right else "999",
            "share": 0.5,
            "margin": rng.choice([0.125, 0.25, 0.5, 0.75, 1.0]),
            "label_correct": right,
            "rewards": [(0.4 + (0.05 if right else 0.005) * k) + 0.05 * rng.random() for k in range(10)],
            "steps": 10,
            "tokens": 2400,
        }
        if learned["state"] == "active":
            bank.append((str(learned["memory_id"]), family))
        if rng.random() < 0.1:
            learned = None  # type: ignore[assignment]
        rows.append(
            {
                "id": f"A-{seed}-{position}",
                "position": position,
                "family": family,
                "problem": f"Problem: compute {position} + {family} <b>&",
                "gold": gold,
                "zero_shot": zero_shot,
                "memory": memory,
                "routed": routed,
                "icl": _arm(rng, gold, min(1.0, base + 0.08), samples, source=rows[-1]["id"], similarity=0.7)
                if rows
                else None,
                "random": _arm(rng, gold, base if oracle else max(0.0, base - 0.05), samples, memory_id=other)
                if other
                else None,
                "verified": _arm(rng, gold, min(1.0, base + 0.1), samples),
                "majority": {"answer": majority, "correct": int(majority == gold), "n": 90, "tokens": 2700},
                "learned": learned,
                "not_learned": None if learned else "weak vote: 2 of 8 say 7",
                "tokens": zero_shot["tokens"] + (memory or {}).get("tokens", 0) + (learned or {}).get("tokens", 0),
                "seconds": 1.5,
            }
        )
    return rows


def test_a_ground_truth_agent_scores_everything() -> None:
    summary = summarise(synthetic_rows(60, oracle=True), seed=1, resamples=500)
    for arm in ("zero_shot", "memory", "routed", "icl", "majority", "random"):
        assert (summary["arms"][arm]["accuracy"], summary["arms"][arm]["low"], summary["arms"][arm]["high"]) == (
            1,
            1,
            1,
        )
    assert summary["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 60}
    assert summary["changes"]["routed"]["corrupted"] == summary["changes"]["routed"]["learned"] == 0
