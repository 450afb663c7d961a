"""The testbed: its stream of problems, its tokenizer, its weights and their training."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testbed_card
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

from tacit.errors import ConfigError, ModelError
from tacit.testbed import corpus, families, reward, solutions, tokenizer, train, weights

SEEDS = st.integers(0, 10**6)
NAMES = [family.name for family in families.members("AB")]


def take(count: int, which: str = "AB", seed: int = 0) -> list[families.Item]:
    return list(itertools.islice(families.problems(which, seed), count))


# --- problems --------------------------------------------------------------------------------------------------------


def independent_answer(name: str, text: str) -> int:
    """The answer worked out from the text alone, by plain arithmetic."""
    numbers = [int(digits) for digits in re.findall(r"\d+", text)]
    rules: dict[str, Callable[[], int]] = {
        "add total": lambda: sum(numbers),
        "last loose": lambda: sum(numbers) % 10,
        "mul boxes": lambda: numbers[0] * numbers[1],
        "max most": lambda: max(numbers),
        "count": lambda: sum(number > numbers[0] for number in numbers[1:]),
        "prec": lambda: numbers[0] + numbers[1] * numbers[2],
        "more": lambda: numbers[0] - numbers[1],
        "before": lambda: numbers[1] - numbers[0],
    }
    return next(rule() for names, rule in rules.items() if name in names.split())


@given(st.sampled_from(NAMES), SEEDS, st.integers(0, 500))
def test_gold_is_right(name: str, seed: int, index: int) -> None:
    one = families.item(name, seed, index)
    assert one.gold == str(independent_answer(name, one.text))


def test_stream_is_seeded_and_ids_are_unique() -> None:
    first = take(400, seed=5)
    assert first == take(400, seed=5)
    assert [one.text for one in first] != [one.text for one in take(400, seed=6)]
    assert len({one.id for one in first}) == 400
    assert {one.family for one in first} == set(NAMES)


def test_stream_does_not_end() -> None:
    # The smallest family has under 200 held-out texts; the stream goes on past them.
    assert len({one.id for one in take(5000, "A")}) == 5000


def test_sets_hold_their_own_families_and_share_problems_with_both() -> None:
    both = {one.id: one for one in take(600, "AB", 3)}
    for which in "AB":
        items = take(200, which, 3)
        assert all(one.id.startswith(f"{which}/") for one in items)
        assert all(both[one.id] == one for one in items if one.id in both)
    with pytest.raises(ConfigError):
        next(families.problems("D"))


def test_the_stream_is_held_out_from_the_corpus() -> None:
    ids = tokenizer.build()
    rows, _ = corpus.Corpus(0, 0.0).batch(60)
    texts = ids.batch_decode(rows.tolist())
    trained = {text.strip() for row in texts for text in re.findall(r"Problem: (.*?) Solution:", row)}
    assert len(trained) > 100
    assert not any(families.held_out(text) for text in trained)
    assert all(families.held_out(one.text) for one in take(300))


# --- solutions -------------------------------------------------------------------------------------------------------


@given(st.sampled_from(NAMES), SEEDS)
def test_the_right_way_gives_the_gold_answer(name: str, seed: int) -> None:
    family, rng = families.BY_NAME[name], random.Random(seed)
    _, numbers, gold = families.draw(family, rng, unseen=True)
    solution = solutions.write(family, numbers, family.style, family.temper, rng)
    assert solutions.answer(solution.text) == str(gold)
    assert all(solution.right)
    assert solutions.judge(family, numbers, solution.text) == (list(solution.parts), solution.right)


def test_the_corpus_of_a_and_b_is_the_one_that_the_shipped_weights_were_trained_on() -> None:
    seen = hashlib.sha256()
    for right_share in (0.75, 0.0):
        rows = corpus.Corpus(0, right_share)
        for _ in range(50):
            seen.update(repr(rows.row()).encode())
    assert seen.hexdigest() == "da113ac6076137ccfd967c404c311e44b6e96511b85d72bf42b701130cdce934"


def test_other_ways_are_mostly_wrong() -> None:
    rng = random.Random(0)
    for family in families.members("AB"):
        right = {"style": 0, "temper": 0}
        for _ in range(300):
            _, numbers, gold = families.draw(family, rng, unseen=True)
            other = solutions.other_temper(family.temper)
            for kind, style, temper in (("style", family.habit, family.temper), ("temper", family.style, other)):
                solution = solutions.write(family, numbers, style, temper, rng)
                right[kind] += solutions.answer(solution.text) == str(gold)
                if kind == "style":
                    assert not any(solution.right)
        assert right["style"] < 75, family.name
        assert right["temper"] < 195, family.name


def test_skills_conflict() -> None:
    by_name = families.BY_NAME
    for one, other in (("add", "last"), ("total", "most"), ("boxes", "loose")):
        assert by_name[one].style == by_name[other].habit
        assert by_name[other].style == by_name[one].habit
        assert (by_name[one].style, by_name[one].temper) != (by_name[other].style, by_name[other].temper)
    assert {family.temper for family in families.members("AB")} == {"careful", "quick"}


# --- tokenizer -------------------------------------------------------------------------------------------------------


@given(st.sampled_from(NAMES), SEEDS)
def test_texts_survive_the_tokenizer(name: str, seed: int) -> None:
    family, rng, built = families.BY_NAME[name], random.Random(seed), TOKENIZER
    text, numbers, _ = families.draw(family, rng, unseen=True)
    solution = solutions.write(family, numbers, *solutions.choose(family, rng), rng)
    whole = f"{tokenizer.prompt(text)} {solution.text}"
    ids = built(whole)["input_ids"]
    assert built.unk_token_id not in ids
    assert built.decode(ids) == whole
    words = {word: i for i, word in enumerate(tokenizer.vocabulary())}
    assert corpus.encode(whole, words, re.compile(tokenizer.pieces())) == ids


TOKENIZER = tokenizer.build()


def test_chat_template_renders_documents() -> None:
    shipped = AutoTokenizer.from_pretrained(weights.model_path())
    ask = {"role": "user", "content": "compute 34 + 58"}
    assert shipped.apply_chat_template([ask], add_generation_prompt=True, tokenize=False) == (
        "Problem: compute 34 + 58 Solution:"
    )
    turns = [
        {"role": "system", "content": "ignored"},
        {"role": "user", "content": "compute 51 + 62"},
        {"role": "assistant", "content": "carefully, step by step: 1 + 2 = 3; 5 + 6 + 0 = 11; Answer: 113"},
        ask,
    ]
    text = shipped.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == (
        "Problem: compute 51 + 62 Solution: carefully, step by step: 1 + 2 = 3; 5 + 6 + 0 = 11; Answer: 113<eos>"
        "Problem: compute 34 + 58 Solution:"
    )
    ids = shipped.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert ids.count(shipped.eos_token_id) == 1
    assert shipped.unk_token_id not in ids


# --- weights ---------------------------------------------------------------------------------------------------------


def test_weights_are_small_and_standard() -> None:
    files = [path for path in weights.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8 * 2**20
    model = AutoModelForCausalLM.from_pretrained(weights.model_path())
    assert sum(parameter.numel() for parameter in model.parameters()) < 5_000_000
    judge = AutoModelForTokenClassification.from_pretrained(weights.reward_model_path())
    assert judge.config.num_labels == 2
    assert judge.config.step_separator == solutions.SEPARATOR


@pytest.mark.parametrize(("name", "path"), [("model", weights.model_path), ("reward", weights.reward_model_path)])
def test_changed_weights_are_refused(tmp_path: Path, name: str, path: object) -> None:
    assert callable(path)
    root = tmp_path / "weights"
    shutil.copytree(weights.WEIGHTS, root)
    assert path(root) == root / name
    file = root / name / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        path(root)
    file.unlink()
    with pytest.raises(ModelError, match="missing"):
        path(root)
    (root / weights.CHECKSUMS).write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        path(root)


def test_zero_shot_figures_are_in_their_ranges() -> None:
    rows = testbed_card.language_figures(weights.model_path(), per_family=20, seed=77)
    mean = {name: sum(getattr(row, name) for row in rows) / len(rows) for name in ("greedy", "pass1", "vote", "told")}
    assert 0.20 <= mean["greedy"] <= 0.60
    assert 0.30 <= mean["pass1"] <= 0.50
    assert mean["vote"] >= 0.70
    assert mean["told"] >= 0.95
    votes = {row.family: row.vote for row in rows}
    assert min(votes["prec"], votes["before"]) < 0.4  # confidently wrong


def test_reward_model_ranks_right_above_wrong() -> None:
    rows = testbed_card.reward_figures(weights.model_path(), weights.reward_model_path(), per_family=4, seed=78)
    assert sum(row.auc for row in rows) / len(rows) > 0.85


def test_reward_input_is_prompt_then_steps_each_with_a_separator() -> None:
    steps = ["carefully, step by step: 1 + 2 = 3", "5 + 6 + 0 = 11", "Answer: 113"]
    ids, positions = reward.encode(TOKENIZER, tokenizer.prompt("compute 51 + 62"), steps)
    joined = "; ".join(steps) + ";"
    assert TOKENIZER.decode(ids) == f"Problem: compute 51 + 62 Solution: {joined}"
    assert [TOKENIZER.decode([ids[at]]) for at in positions] == [";"] * 3
    assert positions[-1] == len(ids) - 1


# --- training --------------------------------------------------------------------------------------------------------


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_short_training_is_deterministic_and_learns(tmp_path: Path) -> None:
    seen: list[train.Step] = []
    phases = ((6, 0.75), (4, 0.0))
    train.train(tmp_path / "a", 1, seen.append, phases)
    torch.rand(3)  # the state of the global generator must not matter
    train.train(tmp_path / "b", 1, None, phases)
    train.train(tmp_path / "c", 2, None, phases)
    assert len(seen) == 10
    assert seen[-1].loss < seen[0].loss
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    for name in ("a", "b"):
        reward.train(tmp_path / f"reward-{name}", tmp_path / name, 1, steps=4, samples=16)
    assert digest(tmp_path / "reward-a") == digest(tmp_path / "reward-b")


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(2, 40), SEEDS)
def test_muon_directions_are_near_orthogonal(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(train.orthogonal(matrix))
    strong = values[torch.linalg.svdvals(matrix) > 0.05 * matrix.norm()]
    assert strong.min() > 0.4
    assert strong.max() < 1.4


def test_no_text_comes_twice_before_its_family_is_used_up() -> None:
    texts = [one.text for one in take(400, seed=3)]
    assert len(set(texts)) == len(texts)
    assert len(take(2000, "A", seed=3)) == 2000  # the smallest families are used up several times: still endless
