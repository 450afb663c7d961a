"""A memory exported as a PEFT adapter answers as the soft prompt itself does, and comes back whole."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from conftest import Tacit
from tacit.bank.peft_adapter import export_peft, import_peft
from tacit.engines.base import Request
from tacit.engines.local import LocalEngine
from tacit.errors import BankError, MemoryFormatError
from tacit.memory import State
from tacit.model.backbone import Backbone
from tacit.model.prompts import Template
from tacit.tasks.sources import load
from test_memory import memory, same


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture
def one():
    prompt = np.random.default_rng(1).standard_normal((5, 32)).astype(np.float32)
    return memory(prompt=prompt)


def test_peft_model_gives_the_same_logits(model, one, tmp_path):
    export_peft(one, tmp_path / "adapter", "some/model")
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    with torch.no_grad():
        embedded = torch.cat([torch.tensor(one.prompt)[None], model.get_input_embeddings()(ids)], dim=1)
        expected = model(inputs_embeds=embedded).logits
        plain = model(input_ids=ids).logits[:, -1]
        adapted = PeftModel.from_pretrained(model, str(tmp_path / "adapter"))
        got = adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.equal(got, expected)
    assert not torch.allclose(got[:, -1], plain)  # the prompt does something, so equality means something
    assert adapted.peft_config["default"].base_model_name_or_path == "some/model"


def test_round_trip_is_exact(one, tmp_path):
    export_peft(one, tmp_path / "adapter", "some/model")
    assert same(import_peft(tmp_path / "adapter", trusted=True), one)
    untrusted = import_peft(tmp_path / "adapter", namespace="theirs")
    assert (untrusted.state, untrusted.uses, untrusted.namespace) == (State.CANDIDATE, 0, "theirs")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "tacit.json", "tacit_key.safetensors"}


def test_export_overwrites_nothing(one, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BankError, match="not empty"):
        export_peft(one, tmp_path, "m")
    with pytest.raises(BankError, match="cannot be written"):
        export_peft(one, tmp_path / "notes.txt" / "x", "m")


def test_import_checks_every_file(one, tmp_path):
    other = memory(prompt=one.prompt + np.float32(1))
    for name, damage in {
        "adapter_model.safetensors": lambda p: p.write_bytes(p.read_bytes()[:-4]),
        "adapter_config.json": lambda p: p.write_text(json.dumps({"peft_type": "LORA"})),
        "tacit.json": lambda p: p.write_text("[" * 100_000),
        "tacit_key.safetensors": lambda p: p.unlink(),
    }.items():
        export_peft(one, tmp_path / name, "m")
        damage(tmp_path / name / name)
        with pytest.raises(MemoryFormatError):
            import_peft(tmp_path / name)
    export_peft(one, tmp_path / "a", "m")
    export_peft(other, tmp_path / "b", "m")
    weights = (tmp_path / "b" / "adapter_model.safetensors").read_bytes()
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(MemoryFormatError, match="not the one"):
        import_peft(tmp_path / "a")


@pytest.mark.slow
def test_a_memory_of_real_weights_answers_the_same_through_peft(smollm2_file: Path, cli: Tacit, tmp_path: Path) -> None:
    """Learned, exported and loaded by people's own commands: greedy answers token by token."""
    learned = ("--model", "smollm2", "--data", "families:multiply@1,halves@1", "--limit", 4, "--window", 4)
    quick = ("--steps", 2, "--rollouts", 4, "--enough", 2, "--admit", 0, "--baselines", "none", "--out", "run")
    code, _, error = cli("run", *learned, *quick)
    assert code == 0, error
    [one, *_] = json.loads(cli("memories", "list", "--bank", "run/bank.sqlite", "--json")[1])
    code, _, error = cli("memories", "export", one["id"], "adapter", "--peft", "--bank", "run/bank.sqlite")
    assert code == 0, error
    held = import_peft("adapter", trusted=True)
    base = Path(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"])
    assert base == smollm2_file
    backbone = Backbone.load(str(base), template=Template("Answer briefly.", task="number"))
    assert held.fingerprint == backbone.fingerprint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(base.parent, gguf_file=base.name, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(theirs, "adapter").eval()
    asked = [backbone.encode(problem.text) for problem in load("families:multiply,capitals,left", seed=3, limit=6)]
    engine, soft = LocalEngine(backbone), torch.tensor(held.prompt)
    ours = engine.generate([Request(ids, soft, temperature=0.0, max_tokens=32) for ids in asked])
    plain = engine.generate([Request(ids, temperature=0.0, max_tokens=32) for ids in asked])
    ends = sorted(backbone.end_ids)
    for ids, [rollout] in zip(asked, ours, strict=True):
        with torch.no_grad():
            out = adapted.generate(
                input_ids=ids[None],
                attention_mask=torch.ones_like(ids)[None],
                max_new_tokens=32,
                do_sample=False,
                eos_token_id=ends,
            )
        assert tuple(out[0, len(ids) :].tolist()) == rollout.token_ids
    # The memory does something, so equality means something.
    assert [one.token_ids for [one] in ours] != [one.token_ids for [one] in plain]
