"""The frozen backbone: loading, templates, identity, and how little a memory trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
)

from conftest import save_tiny_qwen2, stream
from random_models import model_of
from tacit.engines.base import Request
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, DataError, ModelError
from tacit.experiments.plan.estimates import dimensions
from tacit.methods.planning import Plan
from tacit.model.backbone import Backbone, Template
from tacit.tasks import sources as problems


def test_a_memory_trains_a_hundred_thousandth_of_a_real_model() -> None:
    """Shapes of Qwen2.5-Math-7B and Llama-3.1-8B, on the meta device."""
    for name, width in (("Qwen/Qwen2.5-Math-7B", 3584), ("meta-llama/Llama-3.1-8B-Instruct", 4096)):
        model = dimensions(name)
        trained = model.trainable(Plan((), "memory"), 20)
        assert trained == 20 * width and 0.000009 < trained / model.parameters < 0.0000105


def test_the_testbed_prompt(testbed: Backbone) -> None:
    assert testbed.tokenizer.decode(testbed.encode("compute 3 + 4")).strip() == "Problem: compute 3 + 4 Solution:"
    assert not any(parameter.requires_grad for parameter in testbed.model.parameters())


def test_chat_and_plain_templates(tiny: Backbone, tmp_path: Path) -> None:
    shown = [("1 + 1?", "\\boxed{2}")]
    text = tiny.tokenizer.decode(tiny.encode("2 + 2?", shown))
    assert text.startswith("<|user|>1 + 1?") and text.endswith("<|bot|>") and "<|bot|>\\boxed{2}<|end|>" in text
    assert "\\boxed{}" in text
    plain = Backbone.load(str(save_tiny_qwen2(tmp_path / "plain", chat=False)), device="cpu")
    text = plain.tokenizer.decode(plain.encode("2 + 2?"))
    assert text.startswith("Problem: 2 + 2?") and text.endswith("\nSolution:")
    bare = Backbone.load(str(tmp_path / "plain"), device="cpu", template=Template(instruction=""))
    assert bare.tokenizer.decode(bare.encode("2 + 2?")) == "Problem: 2 + 2?\nSolution:"


def test_a_turn_ends_a_rollout_where_the_template_has_turns(tiny: Backbone, tmp_path: Path) -> None:
    """A base model may name the end of a text alone, while its template ends turns with a token of their own."""
    directory = save_tiny_qwen2(tmp_path / "chatml")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>", "<|im_end|>", "<|eot_id|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.save_pretrained(directory)
    made = Backbone(tiny.model, AutoTokenizer.from_pretrained(directory))
    names = {made.tokenizer.convert_ids_to_tokens(index) for index in made.end_ids}
    assert names == {"<|end|>", "<|im_end|>"}
    assert {tiny.tokenizer.convert_ids_to_tokens(index) for index in tiny.end_ids} == {"<|end|>"}


def test_a_sliding_window_is_respected(tmp_path: Path) -> None:
    """A model whose layers see only the last few tokens, against transformers' own generation."""
    save_tiny_qwen2(tmp_path / "base")
    tokenizer = Backbone.load(str(tmp_path / "base"), device="cpu").tokenizer
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8, eos_token_id=None,
    )  # fmt: skip
    backbone = Backbone(MistralForCausalLM(config), tokenizer)
    ids = backbone.encode("a prompt that is longer than the window")
    expected = backbone.model.generate(ids[None], max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    (rollout,) = LocalEngine(backbone).generate([Request(ids, temperature=0.0, max_tokens=12)])[0]
    assert list(rollout.token_ids)[: len(expected)] == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs(tiny_model: Path, dtype: str) -> None:
    backbone = Backbone.load(str(tiny_model), device="cpu", dtype=dtype)
    soft = torch.randn(4, backbone.hidden_size) * 0.02
    (rollout,) = LocalEngine(backbone).generate([Request(backbone.encode("x"), soft, temperature=0.0, max_tokens=5)])[0]
    assert len(rollout.token_ids) == 5 or rollout.finish == "stop"


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2),
        GPT2Config(vocab_size=80, n_embd=32, n_layer=3, n_head=2),
        Gemma3TextConfig(
            vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=7, num_attention_heads=2,
            head_dim=16, num_key_value_heads=1, sliding_window=4,
        ),
    ],
    ids=["llama", "gpt2", "gemma3"],
)  # fmt: skip
def test_the_states_of_a_layer_take_no_more_than_the_layers_below(config: PretrainedConfig, tiny: Backbone) -> None:
    """Whatever the architecture, to the bit; and the model stays whole."""
    backbone = Backbone(model_of(config), tiny.tokenizer, weights_digest="random", lean=False)
    ids, count = torch.arange(5, 25), config.num_hidden_layers
    passed: list[int] = []
    for number, layer in enumerate(getattr(backbone.model.get_decoder(), "layers", ())):
        layer.register_forward_hook(lambda *_, number=number: passed.append(number))
    wanted = backbone.hidden_states(ids)
    for layer in range(count + 1):
        passed.clear()
        assert torch.equal(backbone.layer_states(ids, layer), wanted[layer])
        assert config.model_type == "gpt2" or not 0 < layer < count or passed == list(range(layer))
    assert all(map(torch.equal, backbone.hidden_states(ids), wanted))


def test_models_that_cannot_be_used_say_why(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        Backbone.load(str(tmp_path / "missing"))
    with pytest.raises(ModelError, match=r"without config\.json"):
        Backbone.load(str(tmp_path))
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        Backbone.load(str(file))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="safetensors"):
        Backbone.load(str(tmp_path / "empty"))
    broken = save_tiny_qwen2(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Backbone.load(str(broken))
    with pytest.raises(ConfigError, match="dtype"):
        Backbone.load(str(tiny_model), dtype="int3")
    with pytest.raises(ConfigError, match="device"):
        Backbone.load(str(tiny_model), device="toaster")


def test_a_hub_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="Hub did not give"):
        Backbone.load("nobody/no-such-model")


def test_a_data_set_folder_loads_like_one_from_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    lines = [json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) for n in range(5)]
    (folder / "test.jsonl").write_text("\n".join(lines))
    loaded = problems.load(f"hub:{folder}", limit=3)
    assert [problem.text for problem in loaded] == ["0 + 1?", "1 + 1?", "2 + 1?"]
    assert len({problem.id for problem in loaded}) == 3
    with pytest.raises(DataError, match="cannot be loaded"):
        problems.load(f"hub:{tmp_path / 'none'}")


def test_the_testbed_stream_is_seeded_and_endless() -> None:
    assert stream(5) == stream(5) != stream(5, seed=6)
    assert {problem.id.split("/")[0] for problem in stream(20, which="A")} == {"A"}
    with pytest.raises(ConfigError, match="--limit"):
        problems.load("testbed")
