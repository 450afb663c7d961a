"""Set C of the testbed: words, days, letters and brackets; its own model; which model a set is for."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import testbed_card
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tacit.assembly import build_verifier, load_backbone
from tacit.config import RunConfig
from tacit.errors import ConfigError, ModelError
from tacit.judges.verifiers import VoteShare
from tacit.model.backbone import Backbone
from tacit.tasks import sources
from tacit.testbed import corpus, families, solutions, tokenizer, weights, words

SEEDS = st.integers(0, 10**6)
NAMES = [family.name for family in families.members("C")]
BUILT = tokenizer.build("C")


def independent_answer(name: str, text: str) -> str:  # noqa: PLR0911
    """The answer worked out from the text alone."""
    question, *options = text.split("\n")
    listed = [option[3:] for option in options] or re.split(r",? ", question.partition(": ")[2])
    asked = question.rstrip("?.").split()
    if name in ("later", "earlier"):
        count, day = re.findall(r"(\d) days \w+ (\w+day)\.", text)[0]
        return words.DAYS[(words.DAYS.index(day) + (1 if name == "later" else -1) * int(count)) % 7]
    if name == "backwards":
        return " ".join(reversed(listed))
    if name == "alphabet":
        return "yes" if asked[1] < asked[4] else "no"
    if name == "sort":
        return ", ".join(sorted(listed))
    if name == "kinds":
        return ", ".join(word for word in listed if word in words.KINDS[asked[2].rstrip(":")])
    if name == "close":
        return ", ".join(words.BRACKETS[mark] for mark in reversed(listed))
    if name == "first":
        return min(listed)
    same = [{word for word in listed if word in of_kind} for of_kind in words.KINDS.values()]
    if name == "odd":
        return next(iter(next(found for found in same if len(found) == 1)))
    assert name == "partner"
    return next(word for word in listed if words.KIND[word] == words.KIND[asked[-1]])


@given(st.sampled_from(NAMES), SEEDS, st.integers(0, 500))
def test_gold_is_right(name: str, seed: int, index: int) -> None:
    one = families.item(name, seed, index)
    assert one.gold == independent_answer(name, one.text)


def test_the_stream_of_each_task() -> None:
    tasks = {"text", "choice", "list"}
    everything = list(itertools.islice(families.problems("C", 3), 300))
    assert {families.BY_NAME[one.family].task for one in everything} == tasks
    for task in tasks:
        part = list(itertools.islice(families.problems(f"C:{task}", 3), 100))
        assert {families.BY_NAME[one.family].task for one in part} == {task}
        assert {one.id for one in part} & {one.id for one in everything}
        assert all(families.held_out(one.text) for one in part)
    for one in everything:
        options = [line[3:] for line in one.text.split("\n")[1:]]
        assert len(options) == (4 if families.BY_NAME[one.family].task == "choice" else 0)
        assert one.gold in options or not options


def test_options_in_another_order_are_held_out_as_well() -> None:
    one = families.item("odd", 0, 0)
    question, *options = one.text.split("\n")
    for order in itertools.permutations(option[3:] for option in options):
        shown = [f"{label} {option}" for label, option in zip(words.LABELS, order, strict=True)]
        assert families.held_out("\n".join([question, *shown]))


def test_training_has_no_problem_of_the_stream() -> None:
    rows, _ = corpus.Corpus(0, 0.0, "C").batch(60)
    texts = BUILT.batch_decode(rows.tolist())
    trained = {text.strip() for row in texts for text in re.findall(r"(?s)Problem: (.*?) Solution:", row)}
    assert len(trained) > 100
    assert not any(families.held_out(text) for text in trained)


@given(st.sampled_from(NAMES), SEEDS)
def test_the_right_way_gives_the_gold_answer_and_texts_survive_the_tokenizer(name: str, seed: int) -> None:
    family, rng = families.BY_NAME[name], random.Random(seed)
    text, given, gold = families.draw(family, rng, unseen=True)
    solution = solutions.write(family, given, family.style, family.temper, rng)
    assert solutions.answer(solution.text) == gold
    assert all(solution.right)
    solution = solutions.write(family, given, *solutions.choose(family, rng), rng)
    whole = f"{tokenizer.prompt(text)} {solution.text}"
    ids = BUILT(whole)["input_ids"]
    assert BUILT.unk_token_id not in ids
    assert BUILT.decode(ids) == whole
    known = {word: i for i, word in enumerate(tokenizer.vocabulary("C"))}
    assert corpus.encode(whole, known, re.compile(tokenizer.pieces("C"))) == ids


def test_other_ways_are_mostly_wrong() -> None:
    rng = random.Random(0)
    for family in families.members("C"):
        right = {"style": 0, "temper": 0}
        for _ in range(300):
            _, given, gold = families.draw(family, rng, unseen=True)
            other = solutions.other_temper(family.temper)
            for kind, style, temper in (("style", family.habit, family.temper), ("temper", family.style, other)):
                right[kind] += solutions.answer(solutions.write(family, given, style, temper, rng).text) == gold
        assert right["style"] < 105, family.name
        assert right["temper"] < 195, family.name


def test_styles_conflict_within_each_task() -> None:
    for task in ("text", "choice", "list"):
        members = families.members(f"C:{task}")
        assert len(members) >= 3
        assert len({family.style for family in members}) >= 3
        assert {family.style for family in members} & {family.habit for family in members}
        assert {family.temper for family in members} == {"careful", "quick"}


# --- the model -------------------------------------------------------------------------------------------------------


def test_zero_shot_figures_are_in_their_ranges() -> None:
    rows = testbed_card.language_figures(weights.model_path(name="testbed:C"), per_family=20, seed=77, which="C")
    mean = {name: sum(getattr(row, name) for row in rows) / len(rows) for name in ("greedy", "pass1", "vote", "told")}
    assert 0.40 <= mean["greedy"] <= 0.80
    assert 0.30 <= mean["pass1"] <= 0.50
    assert mean["vote"] >= 0.65
    assert mean["told"] >= 0.93
    assert next(row.vote for row in rows if row.family == "earlier") < 0.5  # confidently wrong


def test_the_shipped_model_is_asked_without_instruction_and_has_the_words_of_its_set() -> None:
    shipped = AutoTokenizer.from_pretrained(weights.model_path(name="testbed:C"))
    assert shipped.get_vocab() == BUILT.get_vocab()
    backbone = load_backbone(RunConfig(model="testbed:C", device="cpu"))
    assert backbone.fingerprint == Backbone.load("testbed:C", device="cpu").fingerprint
    for one in itertools.islice(families.problems("C", 1), 50):
        ids = backbone.encode(one.text)
        assert shipped.unk_token_id not in ids.tolist()
        assert shipped.decode(ids) == tokenizer.prompt(one.text)


def test_a_set_is_refused_by_the_model_that_does_not_know_it() -> None:
    for model, data in (("testbed", "testbed:C"), ("testbed", "testbed:C:list"), ("testbed:C", "testbed:A")):
        with pytest.raises(ConfigError, match="--model testbed"):
            sources.load(data, limit=3, model=model)
    for model, data in (("testbed:C", "testbed:C:text"), ("testbed", "testbed"), ("some/model", "testbed:C")):
        assert len(sources.load(data, limit=3, model=model)) == 3
    with pytest.raises(ConfigError, match="no set 'C:lists'"):
        sources.load("testbed:C:lists", limit=3)


def test_names_of_models(tmp_path: Path) -> None:
    assert weights.shipped("testbed:C") == weights.WEIGHTS / "model-c"
    assert weights.shipped(str(tmp_path)) is None
    with pytest.raises(ModelError, match="no model 'testbed:D'"):
        weights.shipped("testbed:D")


def test_without_a_reward_model_the_vote_decides() -> None:
    assert isinstance(build_verifier(RunConfig(model="testbed:C", data="testbed:C")), VoteShare)
