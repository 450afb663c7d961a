"""Models in GGUF files: the weights, the tokenizer and the prompts of the folder they were made from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from conftest import Tacit
from gguf_models import SPECIAL, TEMPLATE, tokenizer, vocabulary, write_gguf
from random_models import model_of
from tacit.engines.base import Request
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, ModelError
from tacit.experiments.plan.estimates import dimensions
from tacit.model import gguf_file
from tacit.model.backbone import Backbone, Template
from tacit.server.settings import ServeConfig

SIZES = {
    "vocab_size": len(vocabulary()),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA = LlamaConfig(**SIZES, tie_word_embeddings=False)
CONFIGS: dict[str, tuple[str, PreTrainedConfig]] = {
    "llama": ("llama", LLAMA),
    "llama with biases": ("llama", LlamaConfig(**SIZES, tie_word_embeddings=True, attention_bias=True)),
    "qwen2": ("qwen2", Qwen2Config(**SIZES, tie_word_embeddings=True, rms_norm_eps=1e-5)),
    "qwen3": ("qwen3", Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=False)),
    "gemma3": ("gemma3", Gemma3TextConfig(**SIZES, head_dim=32, query_pre_attn_scalar=256, sliding_window=8)),
}


def loaded(file: Path, **how: Any) -> Backbone:
    return Backbone.load(str(file), device="cpu", **how)


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(40, 70)[None]
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama's file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-llama.gguf", model_of(LLAMA), "llama")


@pytest.mark.parametrize("which", CONFIGS)
def test_a_file_has_the_weights_of_the_model_it_was_made_from(which: str, tmp_path: Path) -> None:
    architecture, config = CONFIGS[which]
    made = model_of(config)
    backbone = loaded(write_gguf(tmp_path / "model.gguf", made, architecture))
    theirs = dict(made.named_parameters())
    found = dict(backbone.model.named_parameters())
    assert found.keys() == theirs.keys()
    for name, values in theirs.items():  # 1 + w - 1 is not quite w
        torch.testing.assert_close(found[name], values, rtol=0, atol=2e-7 if architecture == "gemma3" else 0)
    torch.testing.assert_close(logits(backbone.model), logits(made), rtol=1e-4, atol=1e-5)
    assert backbone.context == 512 and backbone.end_ids == {vocabulary().index("<|end|>")}


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1, Kind.Q5_0, Kind.BF16, Kind.F16])
def test_quantised_weights_are_those_that_transformers_reads(kind: Kind, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gguf_file, "ELEMENTS", 1000)  # several parts a tensor
    file = write_gguf(tmp_path / "model.gguf", model_of(LLAMA), "llama", kind=lambda name: kind)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    ours, _ = gguf_file.load(file, "it", torch.float32)
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    half = loaded(file, dtype="bfloat16")
    assert torch.equal(half.model.lm_head.weight, theirs.lm_head.weight.bfloat16())


def test_loading_takes_little_more_memory_than_the_model(tmp_path: Path) -> None:
    large = LlamaConfig(**{**SIZES, "hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 4})
    file = write_gguf(tmp_path / "large.gguf", model_of(large), "llama", kind=lambda name: Kind.Q8_0)
    small = write_gguf(tmp_path / "small.gguf", model_of(LLAMA), "llama")
    assert peak(small, file) < 1.3


def peak(first: Path, file: Path) -> float:
    """Most memory of the process that loads a file (after another, with all that is imported), in the model's bytes."""
    script = """
import sys
from pathlib import Path
import torch
from tacit.model.loading import load
def memory(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) * 1024
held = load(Path(sys.argv[1]), "first", torch.float32)
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
model = load(Path(sys.argv[2]), "it", torch.float32)[0]
print((memory("VmHWM") - before) / sum(one.numel() * 4 for one in model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", script, first, file], capture_output=True, text=True, check=True)
    return float(done.stdout)


# -- what a user gives ------------------------------------------------------------------------------------------------


def test_a_file_a_folder_with_one_and_an_ollama_blob_are_one_model(llama: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / f"sha256-{'ab' * 32}"
    blob.parent.mkdir()
    shutil.copy(llama, blob)
    ways = [loaded(where) for where in (llama, llama.parent, blob)]
    assert len({backbone.fingerprint for backbone in ways}) == 1
    changed = bytearray(blob.read_bytes())
    changed[-5] ^= 1  # one bit of one weight
    blob.write_bytes(changed)
    assert loaded(blob).fingerprint != ways[0].fingerprint
    assert dimensions(str(llama)).parameters == sum(one.numel() for one in ways[0].model.parameters())


def test_a_served_file_is_called_as_people_call_it() -> None:
    names = {
        "weights/SmolLM2.Q4_1.gguf": "SmolLM2.Q4_1",
        f"blobs/sha256-{'0123456789ab' + 'c' * 52}": "sha256-0123456789ab",
    }
    assert all(ServeConfig(model=model).served_name == name for model, name in names.items())
    assert ServeConfig(model="Qwen/Qwen2.5-0.5B").served_name == "Qwen2.5-0.5B"


def test_a_model_of_a_file_is_saved_as_a_folder(llama: Path, tmp_path: Path) -> None:
    backbone = loaded(llama)
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    again = loaded(tmp_path)
    assert torch.equal(logits(again.model), logits(backbone.model))
    assert torch.equal(again.encode("the 7 things"), backbone.encode("the 7 things"))
    assert again.end_ids == backbone.end_ids


def test_the_commands_take_a_file(llama: Path, cli: Tacit, tmp_path: Path) -> None:
    data = tmp_path / "problems.jsonl"
    data.write_text('{"id": "1", "problem": "the sum of 3 and 4", "answer": "7"}\n')
    short = ("--max-tokens", 6, "--samples", 2, "--rollouts", 2, "--steps", 1)
    code, _, error = cli("run", "--model", llama, "--data", data, "--baselines", "none", "--out", "run", *short)
    assert code == 0, error
    assert json.loads(Path("run/run.json").read_text())["model"] == str(llama)
    code, _, error = cli("ask", "--model", llama, "--bank", "run/bank.sqlite", "--json", "2 + 2?", *short[:4])
    assert code == 0, error


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_prompts_are_those_of_the_folder(llama: Path) -> None:
    backbone, theirs = loaded(llama), tokenizer()
    turns = [{"role": "user", "content": backbone.template.asked("the  7 Überraschungen\n\tthat don't")}]
    asked = theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids = theirs(asked, add_special_tokens=False)["input_ids"]
    assert backbone.encode("the  7 Überraschungen\n\tthat don't").tolist() == ids
    assert backbone.decode(ids[1:-1]).startswith("the  7 Über")


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("chat", [None, TEMPLATE, "{{ bos_token }}" + TEMPLATE])
def test_bos_comes_where_the_file_says_so_and_once(bos: bool, chat: str | None, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", model_of(LLAMA), "llama", bos=bos, chat=chat)
    ids = loaded(file).encode("2 + 2?").tolist()
    first = vocabulary().index(SPECIAL[0])
    wanted = bos or (chat or "").startswith("{{ bos")
    assert ids.count(first) == wanted and (ids[0] == first) == wanted


# -- positions --------------------------------------------------------------------------------------------------------


LLAMA_3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip


def factors(config: PreTrainedConfig) -> Any:
    """What llama.cpp's converter writes for scaled positions."""
    rotary = model_of(config).model.rotary_emb.inv_freq
    plain = 500_000.0 ** -(torch.arange(0, 16, 2) / 16)
    return (plain / rotary).float().numpy()


def test_positions_that_a_file_scales(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES, rope_parameters=LLAMA_3)
    scales = factors(config)
    file = write_gguf(
        tmp_path / "3.gguf", model_of(config), "llama", edit=lambda w: w.add_tensor("rope_freqs.weight", scales)
    )
    torch.testing.assert_close(logits(loaded(file).model), logits(model_of(config)), rtol=1e-4, atol=1e-5)
    odd = np.linspace(1, 2, 8, dtype=np.float32)
    file = write_gguf(
        tmp_path / "odd.gguf", model_of(config), "llama", edit=lambda w: w.add_tensor("rope_freqs.weight", odd)
    )
    with pytest.raises(ModelError, match="scales its positions by factors that are not known; use its folder"):
        loaded(file)

    def linear(writer: gguf.GGUFWriter, kind: str = "linear") -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(4.0)

    config = LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0})
    file = write_gguf(tmp_path / "linear.gguf", model_of(config), "llama", edit=linear)
    torch.testing.assert_close(logits(loaded(file).model), logits(model_of(config)), rtol=1e-4, atol=1e-5)
    file = write_gguf(tmp_path / "long.gguf", model_of(config), "llama", edit=lambda w: linear(w, "longrope"))
    with pytest.raises(ModelError, match="scales its positions by 'longrope'"):
        loaded(file)


# -- what cannot be read ----------------------------------------------------------------------------------------------


def test_other_architectures_are_read_by_transformers(tmp_path: Path) -> None:
    made = model_of(Phi3Config(**SIZES, pad_token_id=0, tie_word_embeddings=False))
    backbone = loaded(write_gguf(tmp_path / "phi.gguf", made, "phi3"))
    torch.testing.assert_close(logits(backbone.model), logits(made), rtol=1e-4, atol=1e-5)
    backbone.model.save_pretrained(tmp_path / "folder")  # which it refuses while the model says that it is quantised
    file = write_gguf(tmp_path / "lacks.gguf", made, "phi3", without="blk.0.attn_output.weight")
    with pytest.raises(ModelError, match=r"lacks model.layers.0.self_attn.o_proj.weight; use a folder"):
        loaded(file)


WRONG: dict[str, tuple[Callable[[Path, Any], Path], str]] = {
    "no tokenizer": (
        lambda file, made: write_gguf(file, made, "llama", words=False),
        "has no tokenizer; use a file of the whole model",
    ),
    "architecture": (
        lambda file, made: write_gguf(file, made, "rwkv7", words=True),
        "is of the architecture rwkv7, which cannot be read from such a file .* or one of .*llama.*qwen3",
    ),
    "a tensor less": (
        lambda file, made: write_gguf(file, made, "llama", without="blk.1.ffn_up.weight"),
        "is no plain llama model: blk.1.ffn_up.weight is missing; use a model's folder",
    ),
    "a tensor more": (
        lambda file, made: write_gguf(
            file, made, "llama", edit=lambda w: w.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((2, 3), np.float32))
        ),
        "it also has blk.0.ffn_gate_exps.weight; use a model's folder",
    ),
    "one of several": (
        lambda file, made: write_gguf(file, made, "llama", edit=lambda w: w.add_uint16("split.count", 3)),
        "is one of 3 parts of a model; join them with `llama-gguf-split --merge`",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_files_that_cannot_be_used_say_why(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, message = WRONG[what]
    made = model_of(LLAMA)
    if what == "architecture":
        monkeypatch.setattr(
            gguf, "get_tensor_name_map", lambda *_: type("Names", (), {"get_name": lambda _, name: name})()
        )
    file = write(tmp_path / "model.gguf", made)
    monkeypatch.undo()
    with pytest.raises(ModelError, match=message):
        loaded(file)


def test_a_file_cut_anywhere_is_incomplete(llama: Path, tmp_path: Path) -> None:
    whole = llama.read_bytes()
    for length in (4, 30, 200, 2000, len(whole) // 2, len(whole) - 100):
        cut = tmp_path / f"{length}.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"is incomplete \(.*\); download it again"):
            loaded(cut)
    cut.write_bytes(whole[:4] + (9).to_bytes(4, "little") + whole[8:])
    with pytest.raises(ModelError, match="is of version 9"):
        loaded(cut)


def test_what_is_missing_is_told_in_one_sentence(
    llama: Path, tmp_path: Path, cli: Tacit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.gguf", "two.gguf"):
        shutil.copy(llama, tmp_path / name)
    code, _, error = cli("run", "--data", "testbed", "--limit", 1, "--model", tmp_path)
    assert code == 2 and error.endswith(
        "a folder with 2 GGUF files (one.gguf, two.gguf); give one of them as the model\n"
    )
    (tmp_path / "notes.txt").write_text("no model")
    code, _, error = cli("run", "--data", "testbed", "--limit", 1, "--model", tmp_path / "notes.txt")
    assert code == 2 and "is a file, and no GGUF file; give one, or the folder" in error
    code, _, error = cli("run", "--data", "testbed", "--limit", 1, "--model", "lost.gguf")
    assert code == 2 and "no model at lost.gguf" in error
    monkeypatch.setitem(sys.modules, "gguf", None)
    code, _, error = cli("run", "--data", "testbed", "--limit", 1, "--model", llama)
    assert code == 2 and "the GGUF file " in error and "pip install 'tacit-memory[gguf]'" in error
    with pytest.raises(ConfigError):
        loaded(llama)


# -- real weights -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_smollm2_is_what_transformers_makes_of_it(smollm2_file: Path, llama: Path) -> None:
    backbone = loaded(smollm2_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(
            smollm2_file.parent, gguf_file=smollm2_file.name, dtype=torch.float32
        )
    found = dict(backbone.model.named_parameters())
    assert all(torch.equal(found[name], values) for name, values in theirs.named_parameters())
    assert backbone.context == 8192 and len(found) == 272
    assert peak(llama, smollm2_file) < 1.3


@pytest.mark.slow
def test_smollm2_as_a_user_finds_it(smollm2_file: Path, cli: Tacit) -> None:
    code, out, error = cli("doctor", "--model", smollm2_file, "--limit", 4, "--json")
    assert code == 0, error
    found = json.loads(out)["model"]
    assert (found["architecture"], found["parameters"], found["context"]) == ("llama", 134_515_008, 8192)
    assert found["chat_template"] and found["answered"] > 0.5 and found["settings"]["instruction"] == "Answer briefly."
    backbone = loaded(smollm2_file, template=Template(instruction=""))
    ids = backbone.encode("What is the capital of France?")
    [[said]] = LocalEngine(backbone).generate([Request(ids, None, 1, 0.0, 1.0, 16, (), backbone.stop)])
    assert "Paris" in said.text and said.finish == "stop"
