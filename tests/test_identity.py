"""What memories, seeds and files are known by, as it has been since the first bank: hashes, purposes, bytes.

A bank of yesterday is opened tomorrow only if none of this changes. The values lie in ``tests/golden``;
``TACIT_GOLDEN=write`` writes them anew (see frozen.py), which is right only together with a numbered migration.
Field names of files, SQL, HTTP and the command line are in test_identity_files.py.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tacit
from frozen import same
from tacit import seeds
from tacit.agent import Agent
from tacit.bank import open_bank
from tacit.bank.copying import _NAME, _NAMESPACE
from tacit.bank.harm import DRIFTED
from tacit.bank.portable import FORMAT, from_safetensors, to_safetensors
from tacit.config import GONE, LATER, LearnConfig, RecallConfig, RunConfig, Sampling
from tacit.engines.local import LocalEngine
from tacit.experiments.compare import Cell, run_cell
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.run import run
from tacit.learning import by_reward
from tacit.memory import Memory, State, memory_id
from tacit.model.backbone import Backbone, Template
from tacit.model.loading import digest_state
from tacit.problem import Problem
from tacit.registry import register
from tacit.seeds import derive, generator
from tacit.server.api.snapshots import _Folder
from tacit.server.keys import PREFIX
from tacit.server.keys import digest as secret_digest
from tacit.server.learner.jobs import JobState, problem_digest
from tacit.server.learner.promotion import UNPROVEN, UNTRUSTED
from tacit.tasks import sources as problems
from yesterday import FIRST

FINGERPRINT = "0123456789abcdef0123456789abcdef"
PROBLEMS = [Problem("B/more/0/0", "tom has 45 eggs and sam has 34 eggs. how many more?"), Problem("é 1", "2 + 2 = ?\n")]


@pytest.fixture(autouse=True)
def rule_of_a_plug_in() -> None:
    register("admission", "of-a-plug-in")(by_reward)


LEARNING: dict[str, dict[str, Any]] = {
    "default": {},
    "admission, late": {"admission": "of-a-plug-in"},
    "tokens": {"tokens": 8},
    "steps": {"steps": 3},
    "rollouts": {"rollouts": 4},
    "lr": {"lr": 0.01},
    "lr, a whole number": {"lr": 1},
    "clip": {"clip": 0.5},
    "init": {"init": "vocabulary"},
    "label": {"label": "zero-shot"},
    "reward": {"reward": "format"},
    "min_votes": {"min_votes": 1},
    "min_lead": {"min_lead": 1},
    "norm_cap": {"norm_cap": 2.0},
    "admit": {"admit": 0.25},
    "admit_steps": {"admit_steps": 2},
    "enough, late": {"enough": 0.75},
    "settled, late": {"settled": 2},
    "distil, late": {"distil": 10},
    "two, late": {"enough": 1.0, "settled": 3},
    "batch, for nothing": {"batch": 1},
    "row_tokens, for nothing": {"row_tokens": 1},
}

AGENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "seed": {"seed": 7},
    "namespace": {"namespace": "team/ä"},
    "samples": {"sampling": Sampling(samples=4)},
    "sampling": {"sampling": Sampling(samples=2, temperature=0.7, top_p=0.95, max_tokens=32)},
    "sampling of whole numbers": {"sampling": Sampling(temperature=1, top_p=1)},
    "key input": {"recalling": RecallConfig(key="input")},
    "key last:2": {"recalling": RecallConfig(key="last:2")},
    "recall, for nothing": {"recalling": RecallConfig(floor=0.1)},
    "learning": {"learning": LearnConfig(**{**FIRST, "tokens": 8, "steps": 3})},
    "learning, late": {"learning": LearnConfig(**{**FIRST, "enough": 0.75}, settled=2)},
    "batch, for nothing": {"learning": LearnConfig(**FIRST, batch=1)},
}


@pytest.fixture
def agent(testbed: Backbone, engine: LocalEngine, tmp_path: Path) -> Agent:
    return Agent(testbed, engine, open_bank(str(tmp_path / "bank.sqlite")), learning=LearnConfig(**FIRST))


# -- hashes -----------------------------------------------------------------------------------------------------------


def test_memory_ids() -> None:
    given = [
        (FINGERPRINT, "default", "B/more/0/0", 0, "abc"),
        (FINGERPRINT, "default", "B/more/0/0", 1, "abc"),
        (FINGERPRINT, "other", "B/more/0/0", 0, "abc"),
        (FINGERPRINT, "default", "B/more/0/1", 0, "abc"),
        ("f" * 32, "default", "B/more/0/0", 0, "abc"),
        (FINGERPRINT, "team/ä", 'quote " and \\ é', 2**40, "abc:last:x"),
    ]
    same("memory_ids", [[*parts, memory_id(*parts)] for parts in given])


def test_ids_that_an_agent_gives(agent: Agent) -> None:
    ids = {name: [replace(agent, **changes)._id(one) for one in PROBLEMS] for name, changes in AGENTS.items()}
    same("agent_ids", ids)
    kept = {name for name in AGENTS if "for nothing" in name}
    assert {name for name in AGENTS if ids[name] == ids["default"]} == kept | {"default"}
    assert len({tuple(pair) for pair in ids.values()}) == len(AGENTS) - len(kept)


def test_digests_of_learning_settings() -> None:
    digests = {name: LearnConfig(**{**FIRST, **changes}).digest() for name, changes in LEARNING.items()}
    same("learn_digests", digests)
    assert digests["row_tokens, for nothing"] == digests["batch, for nothing"] == digests["default"]


def test_no_setting_is_forgotten() -> None:
    """A new setting has to be given a place in what is hashed, or none on purpose."""
    known = {name for changes in LEARNING.values() for name in changes}
    assert known == {part.name for part in fields(LearnConfig)}
    assert len(fields(LearnConfig)) + len(GONE["learn"]) == len(LearnConfig().payload()) + len(("batch", "row_tokens"))
    assert Sampling().payload().count("=") == len(fields(Sampling)) and LATER.keys() < LearnConfig().payload().keys()


def test_fingerprints(testbed: Backbone, tiny: Backbone) -> None:
    templates = {
        "instruction": Template(instruction="Put the answer in \\boxed{}.\nIt's 'one' number."),
        "boxed": Template(),
        "system": Template(instruction="", system="You are “careful”.\t\x85"),
        "half a surrogate": Template(instruction="\ud800"),
    }
    found = {"testbed": testbed.fingerprint, "testbed as loaded": Backbone.load("testbed", device="cpu").fingerprint}
    for name, template in templates.items():
        found[f"testbed, {name}"] = Backbone.load("testbed", device="cpu", template=template).fingerprint
        # The weights of the small model are random, so their digest is given.
        plain = Backbone(tiny.model, tiny.tokenizer, template, weights_digest="0" * 64)
        found[f"chat template, {name}"] = plain.fingerprint
    same("fingerprints", found)
    assert len(set(found.values())) == len(found) - 1


def test_the_digest_of_weights() -> None:
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6).reshape(2, 3) / 4)
        layer.bias.copy_(torch.tensor([-1.0, 0.5]))
    same("weights_digests", {"float32": digest_state(layer), "bfloat16": digest_state(layer.bfloat16())})


def fixed_memory(id: str = "0123456789abcdef01234567", at: int = 1) -> Memory:
    """A memory that is the same on every machine: whole numbers over powers of two."""
    rng = generator(5, "golden", at)
    signs = rng.integers(0, 2, size=16) * 2 - 1
    return Memory(
        id=id,
        namespace="team/ä",
        problem_id=f"golden/{at}",
        problem='how many "eggs"?\né',
        prompt=(rng.integers(-1024, 1025, size=(3, 8)) / 1024).astype(np.float32),
        key=(signs / 4).astype(np.float32),
        key_kind="last",
        fingerprint=FINGERPRINT,
        state=State.ACTIVE,
        reason="mean reward 0.75",
        provenance={"label": "11", "share": 0.75, "margin": 2, "steps": [{"step": 0, "reward": 0.75}], "trace": None},
        created=1700000000.25,
        uses=3,
        agreed=1,
        helped=1,
        hurt=0,
    )


def test_bytes_of_the_portable_file() -> None:
    memory = fixed_memory()
    data = to_safetensors(memory)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    same(
        "portable_file",
        {
            "bytes": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "header": data[8 : 8 + size].decode(),
            "record": header["__metadata__"]["tacit"],
            "prompt": memory.sha256,
        },
    )
    assert to_safetensors(from_safetensors(data, trusted=True)) == data


def test_what_a_server_goes_by() -> None:
    texts = ["2 + 2 = ?", "  2 +\t2 =\n? ", "cafe\u0301", "caf\u00e9", "x"]
    found = {f"{name}: {text}": problem_digest(name, text) for name in ("default", "ä") for text in texts}
    found |= {"secret": secret_digest("tacit-golden"), "surrogate": secret_digest("\ud800")}
    same("server_digests", {**found, "snapshot": _Folder(Path("bank.sqlite"), "team/ä")._stem})


BEGINNINGS = {"run:", "promotion:", "quarantine:", "drift:", "served-", "job-", "ask/", "study/", "stream/"}
"""Of marks in banks, and of ids of problems and jobs."""


def test_words_that_are_looked_for_in_what_was_kept() -> None:
    """A candidate is known by its reason, a copy's mark and a file by their names: texts that are no mere texts."""
    same(
        "kept_words",
        {
            "format": FORMAT,
            "unproven": UNPROVEN,
            "untrusted": UNTRUSTED,
            "secret": PREFIX,
            "copy": [_NAMESPACE, _NAME],
            "drifted": DRIFTED,
        },
    )
    assert set(State) == {"candidate", "active", "quarantined", "retired"}
    assert set(JobState) == {"queued", "learning", "done", "failed"}
    text = "".join(file.read_text(encoding="utf-8") for file in Path(tacit.__file__).parent.rglob("*.py"))
    assert {word for word in BEGINNINGS if f'"{word}' in text} == BEGINNINGS


# -- seeds ------------------------------------------------------------------------------------------------------------


def test_seeds() -> None:
    given: list[tuple[int | str, ...]] = [
        (),
        (0,),
        ("0",),
        (0, "B/more/0/0", "learn", 1, 2),
        (1, "B/more/0/0", "learn", 1, 2),
        (0, "é\x1f", ""),
        (-1, 2**80),
    ]
    same("seeds", [[*map(repr, parts), derive(*parts)] for parts in given])
    drawn = generator(0, "p", "init")
    same(
        "generator",
        {
            "integers": drawn.integers(0, 2**32, size=4).tolist(),
            "uniform": [float(value).hex() for value in drawn.random(4)],
            "permutation": drawn.permutation(10).tolist(),
        },
    )


def test_the_problems_of_the_testbed() -> None:
    found = {
        f"{source}, seed {seed}": [vars(one) for one in problems.load(source, seed=seed, limit=4)]
        for source in ("testbed", "testbed:A", "testbed:B")
        for seed in (0, 1)
    }
    same("testbed_problems", found)


def test_words_in_seeds_as_they_are_written() -> None:
    """The words in every call of derive and generator in the source, whichever file they are in."""
    found: set[tuple[str, ...]] = set()
    for file in Path(tacit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("derive", "generator"):
                words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                found.add(tuple(words))
    same("seed_words", sorted(map(list, found)))


TRAINED_ALIKE = {"grpo-full", "ttrl-full", "ttrl-lora", "sequential-full", "sequential-lora", "instance-full"}
"""Slow methods whose seeds are those of others, but for words that the test before this one holds."""


def test_seeds_of_a_run_and_of_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every draw is derived from, with numbers and problems left out."""
    original, seen = seeds.derive, set()

    def recording(*parts: int | str) -> int:
        seen.add(tuple(parts))
        return original(*parts)

    def taken(names: set[str]) -> list[list[str]]:
        found = {tuple("int" if isinstance(p, int) else "problem" if p in names else p for p in one) for one in seen}
        seen.clear()
        return sorted(map(list, found))

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("tacit") and getattr(module, "derive", None) is original:
            monkeypatch.setattr(module, "derive", recording)
    assert seeds.generator("check") is not None and seen == {("check",)}
    seen.clear()
    learn = LearnConfig(steps=1, rollouts=2, tokens=4, min_votes=1, min_lead=1, admit=0.0)
    config = RunConfig(
        out=str(tmp_path / "run"),
        seed=2,
        limit=3,
        window=2,
        baselines=("icl", "random", "verified", "majority"),
        learn=learn,
        sampling=Sampling(samples=4),
        recall=RecallConfig(floor=-1.0),
    )
    run(config)
    names = {one.id for one in problems.load("testbed", seed=2, limit=3)}
    contract = {"run": taken(names)}
    plan = CompareConfig(
        data=("testbed:A",),
        limit=4,
        window=2,
        learn=learn,
        sampling=Sampling(samples=2),
        recall=RecallConfig(floor=-1.0),
    )
    for label in plan.labels():
        if label in TRAINED_ALIKE:
            continue
        cell = Cell(label, "testbed:A", "shuffled", 3)
        record = run_cell(replace(plan, probes=label == "zero-shot"), cell, tmp_path / "comparison")
        assert record["status"] == "done", record["error"]
        names = {part for one in seen for part in one if isinstance(part, str) and part.startswith("A/")}
        contract[label] = taken(names)
    same("seed_purposes", contract)
