"""Measures the testbed's weights on fresh problems, and writes the figures into its model card.

    python benchmarks/testbed_card.py  # minutes; src/tacit/testbed/card.md

``language_figures`` and ``reward_figures`` are what the card's tables say; ``refresh_card`` writes them there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerBase

from tacit.testbed import reward, solutions, weights
from tacit.testbed.families import BY_NAME, Item, item, members
from tacit.testbed.sampling import sample
from tacit.testbed.tokenizer import prompt

CARD = Path(weights.__file__).with_name("card.md")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
ROLLOUTS = 8


@dataclass(frozen=True)
class LanguageFigures:
    """Shares of right answers in one family: greedy, sampled at T = 1, vote of 8, and told the right way to work."""

    family: str
    greedy: float
    pass1: float
    vote: float
    told: float


@dataclass(frozen=True)
class RewardFigures:
    """How well scores tell right answers from wrong ones in one family: over all pairs, and on the same problem."""

    family: str
    auc: float
    pairwise: float
    pairs: int


def fresh(per_family: int, seed: int, which: str = "AB") -> list[Item]:
    """That many problems of every family of a set, none of them in the training corpus."""
    return [item(family.name, seed, i) for family in members(which) for i in range(per_family)]


def majority(answers: Sequence[str | None]) -> str | None:
    """The commonest answer; the first of equals."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None


def language_figures(
    model_dir: Path, per_family: int = 100, seed: int = 90_001, which: str = "AB"
) -> list[LanguageFigures]:
    """Zero-shot figures of the language model of a set, a row a family."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    items = fresh(per_family, seed, which)
    texts = [one.text for one in items]
    ways = [solutions.heading(BY_NAME[one.family].style, BY_NAME[one.family].temper).strip() for one in items]
    greedy = _answers(sample(model, tokenizer, texts, greedy=True))
    sampled = _answers(sample(model, tokenizer, texts, n=ROLLOUTS, seed=seed))
    told = _answers(sample(model, tokenizer, texts, seed=seed, openings=ways))
    rows = []
    for at, family in enumerate(members(which)):
        span = range(at * per_family, (at + 1) * per_family)
        gold = [items[i].gold for i in span]
        rows.append(
            LanguageFigures(
                family.name,
                _share([greedy[i][0] for i in span], gold),
                sum(_share([sampled[i][k] for i in span], gold) for k in range(ROLLOUTS)) / ROLLOUTS,
                _share([majority(sampled[i]) for i in span], gold),
                _share([told[i][0] for i in span], gold),
            )
        )
    return rows


def score(model: Any, tokenizer: PreTrainedTokenizerBase, text: str, responses: Sequence[str]) -> list[float]:
    """The reward model's score of each response to a problem: that of its last step."""
    examples = [
        reward.Example(prompt=prompt(text), completions=parts or [""], labels=[False] * max(1, len(parts)))
        for parts in map(solutions.split, responses)
    ]
    inputs = reward.batch(tokenizer, examples)
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    last = (inputs["labels"] != reward.IGNORED).cumsum(1).argmax(1)
    return logits[torch.arange(len(examples)), last].softmax(-1)[:, 1].tolist()  # type: ignore[no-any-return]


def reward_figures(model_dir: Path, reward_dir: Path, per_family: int = 60, seed: int = 90_002) -> list[RewardFigures]:
    """How well the reward model ranks the language model's own samples, a row a family."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    judge = AutoModelForTokenClassification.from_pretrained(reward_dir)
    items = fresh(per_family, seed)
    sampled = sample(model, tokenizer, [one.text for one in items], n=ROLLOUTS, seed=seed)
    rows = []
    for at, family in enumerate(members("AB")):
        good: list[float] = []
        bad: list[float] = []
        same: list[float] = []
        for i in range(at * per_family, (at + 1) * per_family):
            scores = score(judge, tokenizer, items[i].text, sampled[i])
            right = [solutions.answer(text) == items[i].gold for text in sampled[i]]
            ups = [value for value, ok in zip(scores, right, strict=True) if ok]
            downs = [value for value, ok in zip(scores, right, strict=True) if not ok]
            good, bad = good + ups, bad + downs
            same += [_beats(up, down) for up in ups for down in downs]
        every = [_beats(up, down) for up in good for down in bad]
        rows.append(RewardFigures(family.name, sum(every) / len(every), sum(same) / len(same), len(same)))
    return rows


def language_table(model_dir: Path, which: str = "AB") -> str:
    """The language model's figures, in Markdown."""
    lines = [
        "| family | set | right style | right temper | habit | greedy | pass@1 | vote of 8 | told the way |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    language = language_figures(model_dir, which=which)
    for row in language:
        family = BY_NAME[row.family]
        habit = f"{family.habit} (misconception)" if family.misconception else family.habit
        named = f"C:{family.task}" if family.set == "C" else family.set
        figures = " | ".join(f"{value:.2f}" for value in (row.greedy, row.pass1, row.vote, row.told))
        lines.append(f"| {family.name} | {named} | {family.style} | {family.temper} | {habit} | {figures} |")
    means = [
        sum(getattr(row, name) for row in language) / len(language) for name in ("greedy", "pass1", "vote", "told")
    ]
    lines.append(f"| **all** | | | | | {' | '.join(f'**{mean:.3f}**' for mean in means)} |")
    return "\n".join(lines)


def reward_table(model_dir: Path, reward_dir: Path) -> str:
    """The reward model's figures, in Markdown."""
    lines = ["| family | AUC | right above wrong, same problem | pairs |", "|---|---|---|---|"]
    ranked = reward_figures(model_dir, reward_dir)
    lines += [f"| {row.family} | {row.auc:.3f} | {row.pairwise:.3f} | {row.pairs} |" for row in ranked]
    mean_auc, mean_pairwise = (sum(getattr(row, name) for row in ranked) / len(ranked) for name in ("auc", "pairwise"))
    lines.append(f"| **mean** | **{mean_auc:.3f}** | **{mean_pairwise:.3f}** | {sum(row.pairs for row in ranked)} |")
    return "\n".join(lines)


def refresh_card(model_dir: Path, reward_dir: Path, third_dir: Path, card: Path = CARD) -> None:
    """Measure again and replace the tables in the card: those of A and B, of the reward model, and of C."""
    before, _, rest = card.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    found = [language_table(model_dir), reward_table(model_dir, reward_dir), language_table(third_dir, "C")]
    card.write_text("\n".join([f"{before}{BEGIN}", "\n\n".join(found), f"{END}{after}"]))


def _answers(texts: list[list[str]]) -> list[list[str | None]]:
    return [[solutions.answer(text) for text in row] for row in texts]


def _share(answers: Sequence[str | None], gold: Sequence[str]) -> float:
    return sum(answer == right for answer, right in zip(answers, gold, strict=True)) / len(gold)


def _beats(up: float, down: float) -> float:
    return 1.0 if up > down else 0.5 if up == down else 0.0


if __name__ == "__main__":
    refresh_card(weights.model_path(), weights.reward_model_path(), weights.model_path(name="testbed:C"))
