"""Folders and adapters: what is loaded, and a sentence for what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from conftest import Tacit
from gguf_models import vocabulary, write_gguf
from random_models import model_of
from tacit.errors import ModelError
from tacit.model.adapter import CONFIG
from tacit.model.backbone import Backbone
from tacit.model.loading import INDEX

MODULES = ["q_proj", "v_proj", "down_proj"]


def loaded(where: Path) -> Backbone:
    return Backbone.load(str(where), device="cpu")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(40, 60)[None]).logits
    return found


def adapter(base: Path, folder: Path, *, said: str | None = None, seed: int = 0, **how: Any) -> Path:
    """A LoRA adapter with random weights on a base; ``said`` is what it calls it."""
    torch.manual_seed(seed)
    settings = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": MODULES, "task_type": "CAUSAL_LM", **how})
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), settings)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:  # which starts at zero
                parameter.normal_(0, 0.05)
    made.save_pretrained(folder)
    return edited(folder, base_model_name_or_path=said or str(base))


def edited(folder: Path, **values: Any) -> Path:
    held = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**held, **values}))
    return folder


def test_an_adapter_is_merged_into_its_base(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "base")
    folder = adapter(tiny_model, tmp_path / "adapter", said="../base")
    backbone = loaded(folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    apart = logits(base)
    torch.testing.assert_close(
        logits(backbone.model), logits(PeftModel.from_pretrained(base, str(folder))), rtol=1e-4, atol=1e-5
    )
    assert (logits(backbone.model) - apart).abs().max() > 0.01
    assert not any("lora" in name for name, _ in backbone.model.named_parameters())
    assert torch.equal(backbone.encode("2 + 2?"), loaded(tiny_model).encode("2 + 2?"))

    others = [tiny_model, adapter(tiny_model, tmp_path / "another", seed=1)]
    assert len({backbone.fingerprint, *(loaded(one).fingerprint for one in others)}) == 3
    moved = edited(Path(shutil.copytree(folder, tmp_path / "elsewhere")), base_model_name_or_path=str(tiny_model))
    assert loaded(moved).fingerprint == backbone.fingerprint
    assert loaded(edited(moved, lora_alpha=4)).fingerprint != backbone.fingerprint


def test_the_base_may_be_a_gguf_file(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=len(vocabulary()), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model_of(config).save_pretrained(tmp_path / "folder")
    write_gguf(tmp_path / "base.gguf", model_of(config), "llama")
    folder = adapter(tmp_path / "folder", tmp_path / "adapter", said="../base.gguf")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "folder"), str(folder))
    torch.testing.assert_close(logits(loaded(folder).model), logits(merged), rtol=1e-4, atol=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": (
        {"use_dora": True},
        r"DoRA's magnitudes .* which is not read; merge it into its base with peft's merge_and",
    ),
    "layers": ({"modules_to_save": ["lm_head"]}, r"layers of its own \(modules_to_save\), which is not read"),
    "biases": ({"bias": "all"}, r"biases \(bias\), which is not read"),
    "kind": ({"peft_type": "LOHA"}, "is of the kind LOHA, and only LORA can be merged; merge it into its base"),
    "no base": ({"base_model_name_or_path": None}, "does not say its base; write base_model_name_or_path into"),
    "base gone": (
        {"base_model_name_or_path": "/somewhere/else"},
        "is for the base /somewhere/else, which is not there: .* or say where it is with base_model_name_or_path",
    ),
    "no kind": ({"peft_type": None, "task_type": None}, "is of the kind None"),
}


@pytest.mark.parametrize("what", WRONG)
def test_adapters_that_are_not_read_say_why(what: str, tiny_model: Path, tmp_path: Path) -> None:
    values, message = WRONG[what]
    folder = adapter(tiny_model, tmp_path / "adapter", **({"use_dora": True} if what == "DoRA" else {}))
    if what != "DoRA":
        edited(folder, **values)
    with pytest.raises(ModelError, match=message):
        loaded(folder)


def test_adapters_that_lack_something(tiny_model: Path, tmp_path: Path, cli: Tacit) -> None:
    folder = adapter(tiny_model, tmp_path / "adapter")
    nested = adapter(tiny_model, tmp_path / "nested", said=str(folder))
    with pytest.raises(ModelError, match="is an adapter itself; merge that one first"):
        loaded(nested)
    other = save_wider(tmp_path / "wider")
    with pytest.raises(ModelError, match=r"cannot be merged into its base: .* give the base that it was trained on"):
        loaded(edited(Path(shutil.copytree(folder, tmp_path / "on-wider")), base_model_name_or_path=str(other)))
    (folder / "adapter_model.safetensors").unlink()
    code, _, error = cli("run", "--model", folder, "--data", "testbed", "--limit", 1)
    assert code == 2 and "has no adapter_model.safetensors (pickled weights are not read); save it again" in error
    (folder / CONFIG).write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json that cannot be read; save it again"):
        loaded(folder)
    prompt = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    )
    prompt.save_pretrained(tmp_path / "prompt")
    with pytest.raises(ModelError, match=r"kind PROMPT_TUNING, .* give its base as the model"):
        loaded(tmp_path / "prompt")


def save_wider(folder: Path) -> Path:
    from conftest import save_tiny_qwen2

    return save_tiny_qwen2(folder, hidden_size=96)


def test_folders_that_lack_something(tiny_model: Path, tmp_path: Path, cli: Tacit) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="100KB")
    assert torch.equal(logits(loaded(folder).model), logits(whole))
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[1].unlink()
    code, _, error = cli("run", "--model", folder, "--data", "testbed", "--limit", 1)
    lost = (
        rf"lacks 1 of the {len(shards)} files that its {INDEX} names ({shards[1].name}); download them into its folder"
    )
    assert code == 2 and lost in error
    (folder / INDEX).write_text("[]")
    with pytest.raises(ModelError, match=r"index\.json that cannot be read; download it again"):
        loaded(folder)
    (folder / INDEX).unlink()
    with pytest.raises(
        ModelError, match=r"several files and no model\.safetensors\.index\.json; download that as well"
    ):
        loaded(folder)

    folder = Path(shutil.copytree(tiny_model, tmp_path / "cut"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"its weights are incomplete or broken \(.*\); download it again"):
        loaded(folder)
    weights.rename(folder / "only.gguf")
    with pytest.raises(ModelError, match=r"no \*\.safetensors weights; give its file only\.gguf as the model"):
        loaded(folder)

    folder = Path(shutil.copytree(tiny_model, tmp_path / "wordless"))
    for file in [*folder.glob("tokenizer*"), *folder.glob("special*"), *folder.glob("chat*")]:
        file.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer \(tokenizer\.json\); copy the tokenizer's files"):
        loaded(folder)
