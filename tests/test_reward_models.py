"""Process reward models: Qwen's own format, on a stand-in of the same architecture and files, and TRL's; context."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from tacit.engines.base import Rollout
from tacit.errors import ConfigError, ModelError
from tacit.judges.reward_models import RewardModel
from tacit.judges.verifiers import Candidate
from tacit.model import fused
from tacit.routing import route
from tacit.testbed import reward_model_path

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
# As in Qwen/Qwen2.5-Math-PRM-7B, but for the sizes, and for weights large enough to tell steps apart.
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForProcessRewardModel"],
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
    },
    "bos_token_id": 256,
    "eos_token_id": 258,
    "hidden_act": "silu",
    "hidden_size": 48,
    "initializer_range": 0.3,
    "intermediate_size": 96,
    "max_position_embeddings": 400,
    "max_window_layers": 2,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.37.0",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 272,
}


def save_prm(folder: Path, **changes: Any) -> Path:
    """A small random process reward model in the files and names of Qwen2.5-Math-PRM: sharded weights, remote code."""
    folder.mkdir(parents=True)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    vocabulary = {token: at for at, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *special])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": special[1:]})
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("modeling_qwen2_rm.py", "configuration_qwen2_rm.py"):
        (folder / name).write_text("raise SystemExit('remote code was run')\n")
    torch.manual_seed(4)
    settings = {key: value for key, value in config.items() if key not in ("architectures", "auto_map", "torch_dtype")}
    weights = {f"model.{name}": tensor for name, tensor in Qwen2Model(Qwen2Config(**settings)).state_dict().items()}
    size = config["hidden_size"]
    weights |= {"score.0.weight": torch.randn(size, size) / size**0.5, "score.0.bias": torch.randn(size)}
    weights |= {"score.2.weight": torch.randn(2, size) / size**0.5, "score.2.bias": torch.randn(2)}
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: weights[name].contiguous() for name in held}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module", params=[48, 128], ids=["heads of 12", "heads of 32, compiled passes"])
def prm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_prm(tmp_path_factory.mktemp("models") / "prm", hidden_size=request.param)
    assert (RewardModel(folder, device="cpu")._fused is not None) == (request.param == 128 and fused.available())
    return folder


def candidate(text: str, answer: str = "7") -> Candidate:
    return Candidate(Rollout((1,), (-0.5,), text, "stop"), answer, 0.5)


@torch.no_grad()
def plainly(folder: Path, problem: str, steps: list[str]) -> list[float]:
    """The same, written out: one sequence, no padding, no batch, the head by hand."""
    from safetensors.torch import load_file

    weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    values = json.loads((folder / "config.json").read_text())
    backbone = Qwen2Model(Qwen2Config(**{key: value for key, value in values.items() if key != "auto_map"})).eval()
    backbone.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in weights.items() if name.startswith("model.")}
    )
    text = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{problem}<|im_end|>\n"
        f"<|im_start|>assistant\n{''.join(step + '<extra_0>' for step in steps)}<|im_end|>\n"
    )
    ids = PreTrainedTokenizerFast.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    hidden = backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
    inner = torch.relu(hidden @ weights["score.0.weight"].T + weights["score.0.bias"])
    logits = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
    separator = PreTrainedTokenizerFast.from_pretrained(folder).convert_tokens_to_ids("<extra_0>")
    places = [at for at, token in enumerate(ids) if token == separator]
    assert len(places) == len(steps)
    return [float(logits[at].exp()[1] / logits[at].exp().sum()) for at in places]


STEPS = ["We add 3 and 4.", "3 + 4 = 7", "So the answer is \\boxed{7}."]


def test_qwens_format_gives_what_a_plain_computation_gives(prm: Path) -> None:
    wanted = plainly(prm, "What is 3 + 4?", STEPS)
    assert max(wanted) - min(wanted) > 0.02, "a stand-in whose steps all score the same would show nothing"
    model = RewardModel(prm, device="cpu")
    assert model.reduce == "min"
    assert model.steps("What is 3 + 4?", "\n\n".join(STEPS)) == pytest.approx(wanted, abs=1e-5)
    one, two, empty = (candidate(text) for text in ("\n\n\n".join(STEPS) + "\n\n", STEPS[0], " \n\n "))
    scores = model.score("What is 3 + 4?", [one, two, empty])
    assert scores == pytest.approx([min(wanted), wanted[0], 0.0], abs=1e-5)
    product = wanted[0] * wanted[1] * wanted[2]
    for how, value in (("last", wanted[-1]), ("min", min(wanted)), ("product", product)):
        assert RewardModel(prm, reduce=how, device="cpu").score("What is 3 + 4?", [one]) == pytest.approx(
            [value], abs=1e-5
        )


def test_half_precision_and_passes_change_little(prm: Path) -> None:
    texts = [candidate("\n\n".join(STEPS[:count]) + "!" * 9 * count) for count in (1, 2, 3, 1, 2)]
    whole = RewardModel(prm, device="cpu").score("What is 3 + 4?", texts)
    assert RewardModel(prm, device="cpu", batch=2).score("What is 3 + 4?", texts) == pytest.approx(whole, abs=1e-5)
    assert RewardModel(prm, device="cpu", row_tokens=1).score("What is 3 + 4?", texts) == pytest.approx(whole, abs=1e-5)
    half = RewardModel(prm, device="cpu", dtype="bfloat16")
    assert half.model.score[0].weight.dtype == torch.bfloat16
    assert half.score("What is 3 + 4?", texts) == pytest.approx(whole, abs=0.03)


def test_a_separator_written_by_the_policy_is_no_step(prm: Path) -> None:
    model = RewardModel(prm, device="cpu")
    assert len(model.steps("What is <extra_0>?", "one<extra_0>two\n\nthree")) == 2


def test_what_does_not_fit_the_context_scores_0_and_is_said_once(prm: Path) -> None:
    model = RewardModel(prm, device="cpu")
    short, long = candidate("3 + 4 = 7", "7"), candidate("so " * 200, "8")
    with pytest.warns(UserWarning, match="does not fit the reward model's context of 400"):
        scores = model.score("What is 3 + 4?", [long, short, long])
    assert scores[0] == scores[2] == 0 < scores[1] and model.unread == 2
    assert scores[1] == pytest.approx(RewardModel(prm, device="cpu").score("What is 3 + 4?", [short])[0], abs=1e-5)
    decided = route("What is 3 + 4?", [(short, long), (long, short)], model)
    assert [one.name for one in decided] == ["zero_shot", "memory"], "what was read wins, wherever it came from"
    assert model.unread == 3  # the same response, scored once more
    assert model.score("why " * 200, [short]) == [0.0], "a problem that fills the context leaves nothing to read"


def test_a_model_that_lacks_the_head_is_refused(prm: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(prm, folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for name in [name for name in index["weight_map"] if name.startswith("score.2")]:
        del index["weight_map"][name]
    from safetensors.torch import load_file

    for file in folder.glob("*.safetensors"):
        held = {name: tensor for name, tensor in load_file(file).items() if name in index["weight_map"]}
        save_file(held, file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"its weights lack score\.2"):
        RewardModel(folder, device="cpu")
    with pytest.raises(ModelError, match="its weights lack score"):
        RewardModel(tiny_model, device="cpu")  # a causal model: transformers would give it a random head
    with pytest.raises(ConfigError, match="use one of last, min, product"):
        RewardModel(prm, reduce="mean", device="cpu")


def test_a_tokenizer_without_the_step_token_is_refused(prm: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other-tokenizer"
    shutil.copytree(prm, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, folder / name)
    with pytest.raises(ModelError, match="no token <extra_0>"):
        RewardModel(folder, device="cpu")


def test_trls_format_still_works_and_has_a_context_too() -> None:
    model = RewardModel(reward_model_path(), device="cpu")
    assert model.reduce == "last" and model.context < 1 << 20
    steps = model.steps("compute 3 4 + 5 8", "carefully , step by step : 4 + 8 + 0 = 1 2 ; 3 + 5 + 1 = 9 ; Answer: 9 2")
    assert len(steps) == 3 and steps[-1] > 0.5
    with pytest.warns(UserWarning, match="does not fit"):
        assert model.score("compute 3 4 + 5 8", [candidate("1 ; " * model.context)]) == [0.0]
