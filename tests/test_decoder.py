"""The lean decoder against transformers' own forward pass, on every architecture that it takes over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from random_models import model_of
from tacit.model.backbone import Backbone, prefill, prompt_embeddings
from tacit.model.decoder import Decoder, Product, _scored, token_logprobs
from tacit.testbed.tokenizer import build

SMALL = {
    "vocab_size": len(build()), "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SMALL, attention_bias=True),
    "llama, stretched": LlamaConfig(
        **SMALL,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    ),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=16),
}  # fmt: skip


def both(config: Any) -> tuple[Backbone, Backbone]:
    """The same weights with the lean decoder and without."""
    lean = Backbone(model_of(config), build(), weights_digest="x")
    plain = Backbone(model_of(config), build(), weights_digest="x", lean=False)
    assert lean._decoder is not None and plain._decoder is None
    return lean, plain


def completions(backbone: Backbone, real: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three rollouts of two ragged prompts, and the gradient that reaches the soft prompt."""
    soft = torch.randn(5, backbone.hidden_size, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    ids = [torch.arange(4, 11), torch.arange(3, 23)]
    cache = prefill(backbone, [prompt_embeddings(backbone, prompt, soft) for prompt in ids], [soft, soft])
    cache.reserve(64)
    cache = cache.take(torch.tensor([0, 0, 1]))
    positions = torch.tensor([12, 12, 25])[:, None] + torch.arange(6)
    logits = backbone.forward(backbone.embed(torch.arange(18).view(3, 6) + 5), positions, cache, real=real)
    logits.reshape(-1, logits.shape[-1])[:, ::3].square().sum().backward()
    assert soft.grad is not None
    return logits.detach(), soft.grad


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_gradients_are_those_of_transformers(name: str) -> None:
    lean, plain = both(CONFIGS[name])
    (ours, gradient), (theirs, expected) = completions(lean), completions(plain)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_can_be_left_out(name: str) -> None:
    lean, plain = both(CONFIGS[name])
    real = torch.tensor([0, 1, 2, 6, 12, 13, 14, 15, 16])  # of each row, the first 3, 1 and 5
    (ours, gradient), (theirs, expected) = completions(lean, real), completions(plain, real)
    assert ours.shape[0] == len(real)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_the_weights_stay_as_they_are() -> None:
    model = model_of(CONFIGS["qwen2"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder = Backbone(model, build(), weights_digest="x")._decoder
    assert decoder is not None
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    attention = model.model.layers[0].self_attn
    assert (
        attention.k_proj.weight.untyped_storage().data_ptr()
        == decoder.blocks[0].qkv.weight.untyped_storage().data_ptr()
    )


def test_what_it_does_not_know_goes_the_other_way() -> None:
    windowed = MistralConfig(**SMALL, sliding_window=8)
    assert Backbone(model_of(windowed), build(), weights_digest="x")._decoder is None
    trainable = model_of(CONFIGS["llama"])
    assert not Decoder.supports(trainable)  # its weights ask for gradients, which would not reach them
    trainable.requires_grad_(False)
    assert Decoder.supports(trainable)
    trainable.model.layers[1].mlp.down_proj = torch.nn.Sequential(trainable.model.layers[1].mlp.down_proj)
    assert not Decoder.supports(trainable)


def test_bfloat16_stays_near_transformers() -> None:
    config = CONFIGS["qwen3"]
    pair = [Backbone(model_of(config).to(torch.bfloat16), build(), weights_digest="x", lean=lean) for lean in (1, 0)]
    (ours, _), (theirs, _) = map(completions, pair)
    assert (ours.float() - theirs.float()).abs().mean() < 0.03 * theirs.float().abs().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1 << 25, 40 * 50])
def test_log_probs_made_in_parts_are_those_of_all_logits(
    dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients against log_softmax over the whole; 150 tokens in 1 part, and in 8."""
    monkeypatch.setattr("tacit.model.decoder.FLOATS_AT_ONCE", at_once)
    noise = torch.Generator().manual_seed(0)
    states = torch.randn(150, 24, generator=noise).to(dtype).requires_grad_(True)
    weight = torch.randn(101, 24, generator=noise).to(dtype)
    targets = torch.randint(0, 101, (150,), generator=noise)
    weights = torch.randn(150, generator=noise)
    head = Product(weight, None, arrange=dtype == torch.float32)
    found = token_logprobs(states, head, targets, 0.7)
    (slope,) = torch.autograd.grad((found * weights).sum(), [states])
    wide = states.detach().double().requires_grad_(True)
    expected = torch.log_softmax(wide @ weight.double().T / 0.7, -1).gather(1, targets[:, None])[:, 0]
    (wanted,) = torch.autograd.grad((expected * weights).sum(), [wide])
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slope.double(), wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))
    with torch.no_grad():
        assert torch.equal(token_logprobs(states, head, targets, 0.7), found)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 15, 16, 17, 67, 320]), st.sampled_from([0.3, 1.0, 2]), st.floats(0, 80))
def test_tokens_are_scored_as_pytorch_scores_them(seed: int, vocabulary: int, temperature: float, wide: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = wide * torch.randn(5, vocabulary, generator=generator)
    targets = torch.randint(vocabulary, (5,), generator=generator)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tacit.model.fused.available", lambda: False)
        chosen, slopes = _scored(logits.clone(), targets, temperature, True)
    for sloped in (True, False):
        found, back = _scored(logits.clone(), targets, temperature, sloped)
        torch.testing.assert_close(found, chosen, rtol=1e-5, atol=1e-5 * (1 + wide))
        if sloped:
            torch.testing.assert_close(back, slopes, rtol=1e-4, atol=1e-5 * (1 + wide))
