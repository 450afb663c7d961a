"""A memory exported as a PEFT adapter answers as the soft prompt itself does, and comes back whole."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import Qwen2Config, Qwen2ForCausalLM

from tacit.bank.peft_adapter import export_peft, import_peft
from tacit.errors import BankError, MemoryFormatError
from tacit.memory import State
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
