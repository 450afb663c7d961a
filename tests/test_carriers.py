"""Memories as vectors by layer: the arithmetic, what may share a batch, learning, the bank that knows, and export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig

from conftest import Tacit
from random_models import model_of
from server import serving
from tacit.agent import Agent
from tacit.bank import export_gguf, export_peft, open_bank
from tacit.config import LearnConfig, RunConfig, Sampling
from tacit.engines.base import Request
from tacit.engines.local import LocalEngine
from tacit.errors import BankError, EngineError, ModelError
from tacit.gradients import Group, policy_loss
from tacit.learning import Learner
from tacit.memory import Memory
from tacit.model.backbone import Backbone
from tacit.server.keys import KeyStore
from tacit.tasks import sources
from tacit.testbed.tokenizer import build
from test_memory import memory
from test_plugins import learned_by

SMALL = {
    "vocab_size": len(build()), "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "lean": LlamaConfig(**SMALL),
    "transformers": Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=8, sliding_window_pattern=2),
}
IDS = torch.arange(5, 21)


@pytest.fixture(params=CONFIGS)
def layered(request: pytest.FixtureRequest) -> Backbone:
    """A model of four layers whose memories are vectors by layer, in each way of computing."""
    backbone = Backbone(model_of(CONFIGS[request.param]), build(), weights_digest="x").carrying("layers")
    assert (backbone._decoder is None) == (request.param == "transformers")
    return backbone


def vectors(backbone: Backbone, seed: int = 1, size: float = 1.0) -> Tensor:
    assert backbone.carrier.rows == 3
    drawn = torch.randn(3, backbone.hidden_size, generator=torch.Generator().manual_seed(seed))
    return drawn * size * backbone.carrier.scale


def by_hand(backbone: Backbone, ids: Tensor, memory: Tensor) -> Tensor:
    """Logits [T, V] of transformers' own pass, with vector n added to what layer n makes."""
    handles = [
        layer.register_forward_hook(
            lambda _, __, made, vector=vector: (
                (made[0] + vector, *made[1:]) if isinstance(made, tuple) else made + vector
            )
        )
        for layer, vector in zip(backbone.model.get_decoder().layers[1:], memory, strict=True)
    ]
    try:
        with torch.no_grad():
            logits: Tensor = backbone.model(input_ids=ids[None]).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits


def test_each_vector_is_added_after_its_layer(layered: Backbone) -> None:
    held = vectors(layered)
    expected, plain = (by_hand(layered, IDS, one) for one in (held, held * 0))
    scored = LocalEngine(layered).score(IDS, held)
    # Nothing stands before the first token: the memory takes no position.
    assert scored[0] is None
    got = torch.tensor([one[0] for one in scored[1:] if one is not None])
    logprobs = torch.log_softmax(expected[:-1], dim=-1).gather(1, IDS[1:, None])[:, 0]
    assert torch.allclose(got, logprobs, atol=1e-4)
    assert not torch.allclose(expected, plain, atol=0.1)


def test_what_shares_a_batch_changes_no_bit(layered: Backbone) -> None:
    """Requests with memories, with others, and without any."""
    engine = LocalEngine(layered, max_rows=6)
    requests = [
        Request(IDS[: 4 + 3 * number], memory, 2, 1.0, 1.0, 10, (number, 50 + number))
        for number, memory in enumerate([None, vectors(layered), vectors(layered, 2), None, vectors(layered)])
    ]
    together = engine.generate(requests)
    assert together == [engine.generate([request])[0] for request in requests]
    plain = Backbone(layered.model, build(), weights_digest="x")
    without = replace(requests[1], soft_prompt=None)
    assert LocalEngine(plain).generate([requests[0]]) == [together[0]]
    assert engine.generate([without])[0] != together[1]


def test_the_gradient_is_that_of_the_loss(layered: Backbone) -> None:
    """Against central differences along a random direction."""
    held, way = vectors(layered, size=0.1).double().float(), vectors(layered, 7)
    rollouts = LocalEngine(layered).generate([Request(IDS, held, 3, 1.0, 1.0, 6, (1, 2, 3))])[0]

    def loss(memory: Tensor) -> Tensor:
        return policy_loss(layered, [Group(IDS, memory, rollouts, [1.0, -0.5, -0.5])], 1.0)

    moving = held.clone().requires_grad_(True)
    [gradient] = torch.autograd.grad(loss(moving), [moving])
    step = 1e-2
    with torch.no_grad():
        slope = (loss(held + step * way) - loss(held - step * way)) / (2 * step)
    assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=0.05, abs=1e-4)
    assert gradient.abs().sum(dim=1).min() > 0  # every layer's vector is learned


def test_memories_of_another_shape_are_refused(layered: Backbone) -> None:
    for wrong in (torch.zeros(4, 48), torch.zeros(3, 47)):
        with pytest.raises(EngineError, match=r"layer vectors that are not \[3, 48\]"):
            LocalEngine(layered).generate([Request(IDS, wrong, temperature=0.0)])


def test_a_model_that_names_no_layers_has_prompts_alone() -> None:
    config = GPT2Config(vocab_size=len(build()), n_embd=32, n_layer=2, n_head=2, n_positions=64)
    backbone = Backbone(model_of(config), build(), weights_digest="x")
    with pytest.raises(ModelError, match=r"does not name its layers; memories of it can only be prompts"):
        backbone.carrying("layers")


# -- learned, kept, found ---------------------------------------------------------------------------------------------


def test_the_testbed_learns_one_and_keeps_its_weights(testbed: Backbone, tmp_path: Path) -> None:
    layered, before = testbed.carrying("layers"), testbed.checksum()
    assert layered.fingerprint != testbed.fingerprint
    assert testbed.carrying("prompt") is testbed and layered.carrying("layers") is layered
    with open_bank(str(tmp_path / "bank.sqlite")) as bank:
        agent = Agent(layered, LocalEngine(layered), bank, learning=LearnConfig(steps=4))
        answered = agent.answer(list(sources.load("testbed:A", seed=3, limit=3)))
        remembered = agent.learn(answered)
        agent.remember(answered, remembered)
        made = [one.memory for one in remembered if one.memory is not None]
        assert made
        for one in made:
            assert one.carrier == "layers" and one.prompt.shape == (layered.carrier.rows, layered.hidden_size)
            assert np.abs(one.prompt).max() > 0
        assert agent.answer([one.problem for one in answered])[0].hit is not None
    assert testbed.checksum() == before


def test_learning_begins_with_the_model_as_it_is(testbed: Backbone) -> None:
    layered = testbed.carrying("layers")
    learner = Learner(layered, LocalEngine(layered), LearnConfig(), Sampling(), seed=0)
    assert learner.config.distil == 10 and learner.config.lr == pytest.approx(0.018 * layered.carrier.scale, rel=0.05)
    begun = layered.carrier.start("gaussian", type("Start", (), {"backbone": layered}))
    assert not begun.any()


def test_a_bank_knows_its_carrier(cli: Tacit, tmp_path: Path) -> None:
    asked = ["run", "--data", "testbed:A", "--bank", "kept.sqlite", "--limit", "4", "--steps", "1"]
    code, _, err = cli(*asked, "--carrier", "layers", "--out", "first")
    assert code == 0, err
    assert json.loads((tmp_path / "first" / "run.json").read_text())["carrier"] == "layers"
    code, _, err = cli(*asked, "--out", "second", "--seed", "1")  # unsaid: the bank's
    assert code == 0, err
    code, _, err = cli(*asked, "--carrier", "prompt", "--out", "third")
    assert code == 2 and "the memories of this bank are for the carrier layers, not for prompt" in err
    with open_bank(str(tmp_path / "kept.sqlite")) as bank:
        infos = bank.find("default")
        assert infos and {bank.get(info.id, "default").carrier for info in infos} == {"layers"}
        assert len({info.fingerprint for info in infos}) == 1


def test_an_older_run_had_prompts(tmp_path: Path) -> None:
    from tacit.experiments.run_folder import LATER

    assert LATER["carrier"] is RunConfig().carrier is None


# -- export -----------------------------------------------------------------------------------------------------------


def layers_of(one: Memory) -> Memory:
    return replace(one, provenance={**one.provenance, "carrier": "layers"})


def test_a_control_vector_has_a_direction_for_each_layer(tmp_path: Path) -> None:
    one = layers_of(memory())
    export_gguf(one, tmp_path / "memory.gguf")
    reader = gguf.GGUFReader(tmp_path / "memory.gguf")
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.layer_count"].contents() == len(one.prompt)
    held = {tensor.name: tensor for tensor in reader.tensors}
    assert list(held) == [f"direction.{layer}" for layer in range(1, len(one.prompt) + 1)]
    for layer, vector in enumerate(one.prompt, start=1):
        tensor = held[f"direction.{layer}"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32 and np.array_equal(tensor.data, vector)
    with pytest.raises(BankError, match="exists; export to a new file"):
        export_gguf(one, tmp_path / "memory.gguf")
    with pytest.raises(BankError, match="cannot be written"):
        export_gguf(one, tmp_path / "nowhere" / "memory.gguf")


def test_each_carrier_has_its_own_export(tmp_path: Path) -> None:
    with pytest.raises(BankError, match=r"is of the carrier prompt, and llama\.cpp loads vectors"):
        export_gguf(memory(), tmp_path / "memory.gguf")
    with pytest.raises(BankError, match="is no soft prompt but layers; export it with --gguf"):
        export_peft(layers_of(memory()), tmp_path / "adapter", "some/model")
    assert not list(tmp_path.iterdir())


def test_a_server_learns_and_answers_with_them(cli: Tacit, tmp_path: Path) -> None:
    """From the learner's process to llama.cpp's file; an answer says which memory it was given with."""
    bank = tmp_path / "bank.sqlite"
    [one] = learned_by(bank, "--carrier", "layers", "--verifier", "vote", "--admit", "0")
    assert one.carrier == "layers"
    with open_bank(str(bank)) as opened:
        _, key = KeyStore(opened).create("asks", "home", ("ask", "admin"))
    with serving(bank) as served:  # which the bank tells its carrier
        asked = {"tacit": {"memory": one.id, "route": "memory"}}
        said = served.client(key).chat.completions.create(
            model="testbed:tacit", messages=[{"role": "user", "content": one.problem}], extra_body=asked
        )
    assert said.model_dump()["tacit"]["memory"] == one.id
    kept = ("--bank", str(bank), "--namespace", "home")
    code, _, err = cli("memories", "export", one.id, "m.gguf", "--gguf", *kept)
    assert code == 0 and len(gguf.GGUFReader(tmp_path / "m.gguf").tensors) == len(one.prompt), err
    code, _, err = cli(
        "memories", "export", one.id, "m", "--gguf", "--peft", "--bank", str(bank), "--namespace", "home"
    )
    assert code == 2 and "--peft and --gguf are given" in err


def test_an_imported_memory_is_used_as_it_was_made(cli: Tacit, tmp_path: Path) -> None:
    """A new bank knows no task; the memory's fingerprint says whether the one that is named is right."""
    words = ("--model", "testbed:C", "--data", "testbed:C:text", "--limit", "6", "--window", "6", "--steps", "2")
    made = ("--carrier", "layers", "--admit", "0", "--enough", "2", "--baselines", "none")
    code, _, err = cli("run", *words, *made, "--out", str(tmp_path / "run"))
    assert code == 0, err
    bank = str(tmp_path / "run" / "bank.sqlite")
    with open_bank(bank) as opened:
        [first, *_] = opened.find("default")
    assert cli("memories", "export", first.id, "one.safetensors", "--bank", bank)[0] == 0
    assert cli("memories", "import", "one.safetensors", "--bank", "new.db", "--trusted")[0] == 0
    asked = ("ask", "--model", "testbed:C", "--bank", "new.db", "--json", first.problem)
    code, out, err = cli(*asked, "--task", "text")
    assert code == 0, err
    assert json.loads(out)["recalled"]["id"] == first.id
    assert cli("memories", "import", "one.safetensors", "--bank", "other.db", "--trusted")[0] == 0
    other = ("ask", "--model", "testbed:C", "--bank", "other.db", first.problem)
    code, _, err = cli(*other, "--task", "number")
    assert code == 2 and "not made with testbed:C and the task number so asked" in err
    code, _, err = cli(*other, "--task", "text", "--carrier", "prompt")
    assert code == 2 and "for the carrier layers, not for prompt; leave --carrier out" in err
