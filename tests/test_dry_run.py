"""A plan says what a comparison then does: counts against real runs, bytes against what PyTorch holds."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Tacit, save_tiny_qwen2
from tacit import registry
from tacit.config import LearnConfig, Sampling
from tacit.engines.base import METER, Rollout
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, ModelError
from tacit.experiments.compare import Cell, run_cell
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.plan import estimates
from tacit.experiments.plan.dry_run import as_text, dry_run
from tacit.gradients import Group, policy_loss
from tacit.methods.base import World
from tacit.methods.planning import Plan
from tacit.methods.training import Policy
from tacit.model.backbone import Backbone, prefill

SMALL = CompareConfig(
    data=("testbed:A",),
    seeds=(31,),
    limit=5,
    window=3,
    probes=False,
    sampling=Sampling(samples=3),
    learn=LearnConfig(steps=2, rollouts=3, batch=2),
    options={"majority": {"n": 5}}
    | {f"{kind}-{policy}": {"epochs": 2} for kind in ("ttrl", "grpo") for policy in ("full", "lora", "soft")}
    | {f"sequential-{policy}": {"steps": 2} for policy in ("full", "lora")},
)


# ---------------------------------------------------------------- counts


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rollouts each call of any engine was asked for, by which it goes on as ever."""
    calls: list[int] = []
    generate = LocalEngine.generate

    def counting(self: LocalEngine, requests: Any) -> list[list[Rollout]]:
        if requests:
            calls.append(sum(request.n for request in requests))
        return generate(self, requests)

    monkeypatch.setattr(LocalEngine, "generate", counting)
    return calls


def real(config: CompareConfig, label: str, out: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """One cell, run: its record, its rows, its tokens with probes."""
    cell = Cell(label, config.data[0], config.orders[0], config.seeds[0])
    before = METER.tokens
    record = run_cell(config, cell, out)
    rows = [json.loads(line) for line in (cell.folder(out) / "rows.jsonl").read_text().splitlines()]
    return record, rows, METER.tokens - before


@pytest.mark.parametrize(
    ("label", "probes"),
    [*((name, False) for name in sorted(registry.names("method"))), ("zero-shot", True), ("elm-unrouted", True)],
)
def test_no_method_does_more_than_it_planned(label: str, probes: bool, counted: list[int], tmp_path: Path) -> None:
    config = replace(SMALL, methods=(label,), probes=probes)
    row = next(row for row in dry_run(config)["rows"] if row["method"] == label)
    record, rows, tokens = real(config, label, tmp_path)
    assert record["status"] == "done", record["error"]
    assert len(rows) == row["problems"] == 5
    assert sum(counted) <= row["rollouts"], "it sampled more than it said"
    assert tokens <= row["tokens_most"]
    assert record["gradient_steps"] <= row["gradient_steps"]
    assert record["trainable"] == row["trainable"]
    if label in ("zero-shot", "majority", "best-of-2", "best-of-8", "truth"):
        assert sum(counted) == row["rollouts"]
    if label.startswith(("ttrl", "grpo", "sequential")):  # whose rollouts do not hang on what they find
        assert sum(counted) > 0.4 * row["rollouts"]


def test_elms_plan_differs_from_its_run_only_by_what_was_not_recalled_and_not_learned(
    counted: list[int], tmp_path: Path
) -> None:
    config = replace(SMALL, methods=("elm",), limit=7)
    [row] = [row for row in dry_run(config)["rows"] if row["method"] == "elm"]
    _, rows, _ = real(config, "elm", tmp_path)
    responses, learn = config.sampling.samples + 1, config.learn
    unrecalled = sum("memory" not in one["notes"] for one in rows)
    idle = sum(learn.steps - len(one["lesson"]["rewards"]) for one in rows)
    assert 0 < unrecalled < 7 and sum(counted) == row["rollouts"] - unrecalled * responses - idle * learn.rollouts


def test_seeds_orders_and_lengths_multiply(tmp_path: Path) -> None:
    config = CompareConfig(
        methods=("zero-shot",), limit=10, probes=False, seeds=(0, 1, 2), orders=("shuffled", "blocked")
    )
    plan = dry_run(config, tokens_per_answer=10)
    assert [row["cells"] for row in plan["rows"]] == [6, 6]
    assert plan["total"]["rollouts"] == 2 * 6 * 10 * 9 and plan["total"]["tokens"] == 10 * plan["total"]["rollouts"]
    assert plan["total"]["tokens_most"] == 64 * plan["total"]["rollouts"] and plan["total"]["seconds"] is None
    longer = dry_run(config, tokens_per_answer=1000)  # no answer is longer than max_tokens
    assert longer["total"]["tokens"] == longer["total"]["tokens_most"]


def test_what_is_unknown_is_said_to_be(tmp_path: Path) -> None:
    config = CompareConfig(data=("hub:nobody/nothing",), methods=("elm",), limit=0)
    plan = dry_run(config, gpu="h100")
    assert plan["data"][0]["known"] == "unknown until loaded"
    assert {row["rollouts"] for row in plan["rows"]} == {row["seconds"] for row in plan["rows"]} == {None}
    assert plan["total"]["tokens"] is None and plan["rows"][1]["rollouts_per_problem"] == 2 * 18 + 2 * 8
    assert "unknown until loaded" in as_text(plan)
    told = dry_run(replace(config, expected={"hub:nobody/nothing": {"problems": 30}}))
    assert told["data"][0] == plan["data"][0] | {"problems": 30, "known": "given"}
    assert (
        dry_run(replace(config, limit=4, expected={"hub:nobody/nothing": {"problems": 30}}))["rows"][0]["problems"] == 4
    )
    file = tmp_path / "some.jsonl"
    file.write_text("".join(json.dumps({"problem": f"What is {n} + 1?"}) + "\n" for n in range(9)))
    read = dry_run(replace(config, data=(str(file),)))
    assert read["data"][0]["problems"] == 9 and read["data"][0]["known"] == "read"


def test_a_method_that_cannot_run_is_named() -> None:
    config = CompareConfig(
        data=("hub:a/b",), methods=("grpo-soft",), limit=0, expected={"hub:a/b": {"problems": 5}}, probes=False
    )
    assert "labelled problems" in dry_run(config)["rows"][1]["cannot"]
    named = dry_run(replace(config, training={"hub:a/b": "hub:c/d"}))["rows"][1]
    assert named["cannot"] is None and named["gradient_steps"] == registry.get("method", "grpo-soft").defaults["epochs"]


# ---------------------------------------------------------------- bytes


def test_known_parameter_counts() -> None:
    counts = {name: estimates.dimensions(name).parameters for name in estimates.SHIPPED if "PRM" not in name}
    assert counts == {"Qwen/Qwen2.5-Math-7B": 7_615_616_512, "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248}
    judge = estimates.dimensions("Qwen/Qwen2.5-Math-PRM-7B", reward=True)
    head = 3584 * 3584 + 3584 + 2 * 3584 + 2
    assert judge.parameters == counts["Qwen/Qwen2.5-Math-7B"] - 152064 * 3584 + head


def test_weights_are_the_real_bytes(tiny_model: Path, tiny: Backbone, testbed: Backbone) -> None:
    for name, backbone in (("testbed", testbed), (str(tiny_model), tiny)):
        dims = estimates.dimensions(name)
        held = {id(parameter): parameter for parameter in backbone.model.parameters()}.values()
        assert dims.weights("float32") == sum(one.numel() * one.element_size() for one in held)
        half = Backbone.load(name, dtype="bfloat16", device="cpu")
        assert dims.weights("bfloat16") == sum(one.numel() * one.element_size() for one in half.model.parameters())
        assert dims.parameters == sum(one.numel() for one in held)
        assert dims.trainable(Plan((), "memory"), 20) == 20 * backbone.hidden_size


def test_the_cache_is_the_real_bytes(tiny_model: Path, tiny: Backbone) -> None:
    prompts = [tiny.embed(torch.arange(length)) for length in (20, 30, 40)]
    cache = prefill(tiny, prompts, [None] * len(prompts))
    held = sum(states.numel() * states.element_size() for states in [*cache.keys, *cache.values])
    dims = estimates.dimensions(str(tiny_model))
    assert held == 3 * cache.capacity * dims.cache_token("float32")
    lengths = estimates.Lengths(40, 10, 24)
    assert estimates.cache_bytes(dims, "float32", 3, lengths) == 2 * 3 * 64 * dims.cache_token("float32")
    assert estimates.cache_bytes(dims, "float32", 9999, lengths) == 2 * 256 * 64 * dims.cache_token("float32")
    assert inspect.signature(LocalEngine).parameters["max_rows"].default == estimates.MAX_ROWS


def kept(backbone: Backbone, group: Group) -> int:
    """Bytes that autograd keeps of a forward pass, parameters aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in backbone.model.parameters()}
    held: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy_loss(backbone, [group], 1.0)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["memory", "full", "lora"])
def test_a_gradient_pass_holds_what_is_said(kind: str, dtype: str, tmp_path: Path) -> None:
    shape = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
    name = str(save_tiny_qwen2(tmp_path / "model", **shape))
    for model in (name, "testbed"):
        backbone = Backbone.load(model, dtype=dtype, device="cpu")
        rows, answer, prompt = 8, 96, 24
        rollouts = [Rollout(tuple(range(1, answer + 1)), (0.0,) * answer, "", "stop") for _ in range(rows)]
        rollouts = [replace(one, token_ids=tuple(t % 60 for t in one.token_ids)) for one in rollouts]
        soft = torch.randn(20, backbone.hidden_size, requires_grad=True) if kind == "memory" else None
        policy_backbone = backbone
        if kind != "memory":
            policy_backbone = Policy(kind, world(backbone, tmp_path)).backbone
        ids = torch.arange(prompt) % 60
        measured = kept(policy_backbone, Group(ids, soft, rollouts, [1.0, -1.0] * (rows // 2)))
        dims = estimates.dimensions(model)
        length = prompt - 1 + (20 if soft is not None else 0)
        said = estimates.pass_bytes(dims, dtype, rows, length, answer, kind, 8)
        # Of three copies of the logits autograd keeps one, and none where they are made a part at a time.
        said -= (3 if kind == "memory" else 2) * 4 * rows * answer * dims.vocabulary
        assert said == pytest.approx(measured, rel=0.06), f"{model}: {said / measured:.3f} of what is kept"


def world(backbone: Backbone, folder: Path) -> World:
    return World(backbone, LocalEngine(backbone), 0, folder)


# ---------------------------------------------------------------- time and the command


def test_faster_machines_take_less_time_and_small_ones_do_not_hold_it() -> None:
    config = CompareConfig(
        model="Qwen/Qwen2.5-Math-7B",
        reward_model="Qwen/Qwen2.5-Math-PRM-7B",
        dtype="bfloat16",
        data=("hub:a/b",),
        limit=0,
        jobs=1,
        expected={"hub:a/b": {"problems": 500}},
        methods=("elm",),
        sampling=Sampling(max_tokens=1024),
        learn=LearnConfig(batch=1),
        window=8,
    )
    plans = {name: dry_run(config, gpu=name) for name in ("h200", "h100", "a100", "rtx4090")}
    seconds = [plan["total"]["seconds"] for plan in plans.values()]
    assert sorted(seconds) == seconds and 3600 < seconds[0] < seconds[-1]
    assert plans["h200"]["rows"][1]["fits"] and not plans["rtx4090"]["rows"][1]["fits"]
    parts = plans["h200"]["rows"][1]["memory"]
    assert parts["weights"] == 2 * 7_615_616_512 and parts["reward_model"] == 2 * 7_083_474_946
    assert parts["peak"] > parts["weights"] + parts["reward_model"] + max(parts["cache"], parts["pass"])
    whole = dry_run(replace(config, methods=("ttrl-full",), options={"ttrl-full": {"batch": 1}}))["rows"][1]["memory"]
    # Frozen weights, a copy and its start at 2 bytes a parameter, twins and two moments at 4, gradients at 2.
    assert whole["peak"] == pytest.approx(
        parts["reward_model"] + 7_615_616_512 * (3 * 2 + 3 * 4 + 2) + (whole["pass"] - 2 * 7_615_616_512), rel=1e-6
    )
    assert estimates.Lengths(0, 100, 10_000).longest(1) == 100
    assert estimates.Lengths(0, 100, 10_000).longest(4) == pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 1 / 4), rel=0.01)
    assert estimates.Lengths(0, 100, 150).longest(8) == 150


def test_the_papers_plan_needs_no_network(cli: Tacit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    methods = ("--methods", "elm,majority", "--json")
    code, out, err = cli("compare", "--config", "paper/qwen2.5-math-7b", "--dry-run", "--gpu", "h200", *methods)
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert [one["problems"] for one in plan["data"]] == [500, 40, 30]
    assert plan["total"]["cells"] == 3 * 3 * 3 and plan["total"]["seconds"] > 3600
    elm = next(row for row in plan["rows"] if row["method"] == "elm")
    assert elm["trainable"] == 71_680 and elm["gradient_steps"] == 5000 and elm["fits"]
    # Zero-shot and memory, 8 samples and a greedy answer each, for 500 problems and 24 probes; 10 steps of 8 rollouts.
    assert elm["rollouts"] == 524 * 2 * 9 + 500 * 80
    code, out, _ = cli("compare", "--config", "paper/llama-3.1-8b", "--dry-run", "--methods", "elm")
    assert code == 0 and "8.03 G parameters" in out and "| unknown |" in out  # no GPU, no time


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dry-run", "--gpu", "abacus"), "there is no GPU 'abacus'"),
        (("--gpu", "h100", "--out", "x"), "are for --dry-run"),
        (("--dry-run", "--tokens-per-answer", "0"), "must be above 0"),
        (("--dry-run", "--methods", "nonsense"), "no method 'nonsense'"),
        (("--dry-run", "--data", "nowhere.jsonl"), "no data at nowhere.jsonl"),
        (("--dry-run", "--model", "./nowhere"), "no model at ./nowhere"),
        ((), "--out DIR is missing"),
    ],
)
def test_user_errors_are_one_sentence(cli: Tacit, words: tuple[str, ...], message: str) -> None:
    code, _, err = cli("compare", *words)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_a_folder_is_measured_from_its_configuration_alone(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no-weights"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_model / "config.json").read_text())
    assert estimates.dimensions(str(folder)).parameters == estimates.dimensions(str(tiny_model)).parameters
    (folder / "config.json").write_text('{"model_type": "nonsense"}')
    estimates.dimensions.cache_clear()
    with pytest.raises(ModelError, match="no configuration"):
        estimates.dimensions(str(folder))
    with pytest.raises(ConfigError, match="no GPU"):
        estimates.gpu("abacus")
