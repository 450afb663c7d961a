"""GGUF files of small models, written as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>")


def vocabulary() -> list[str]:
    """A byte-level alphabet, one merge, and special tokens."""
    return [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", *SPECIAL]


def tokenizer() -> Any:
    """The same, as transformers has it in a folder."""
    made = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary())}, [("t", "h")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=SPECIAL[0], eos_token=SPECIAL[1])
    fast.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    fast.chat_template = TEMPLATE
    return fast


def write_gguf(
    file: Path,
    model: Any,
    architecture: str,
    *,
    kind: Callable[[str], Kind] = lambda name: Kind.F32,
    chat: str | None = TEMPLATE,
    bos: bool | None = None,
    words: bool = True,
    without: str = "",
    edit: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> Path:
    """Write a model's file.

    Args:
        kind: the type of a tensor by its name; those of one dimension are float32 always.
        chat: chat template.
        bos: what is said of BOS; None for nothing.
        words: whether there is a tokenizer.
        without: a tensor that is left out.
        edit: puts in more, last.
    """
    config = model.config
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    if words:
        _write_words(writer, chat, bos)
    number = next(one for one, called in gguf.MODEL_ARCH_NAMES.items() if called == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for theirs, parameter in model.named_parameters():
        base, _, suffix = theirs.rpartition(".")
        name = f"{names.get_name(base)}.{suffix}"
        if name == without:
            continue
        values = _as_llama_cpp(name, parameter.detach().float().numpy(), architecture, config)
        form = kind(name) if values.ndim > 1 else Kind.F32
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(values), form), raw_dtype=form)
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_words(writer: gguf.GGUFWriter, chat: str | None, bos: bool | None) -> None:
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokens.index(SPECIAL[0]))
    writer.add_eos_token_id(tokens.index(SPECIAL[1]))
    writer.add_pad_token_id(tokens.index(SPECIAL[1]))
    if bos is not None:
        writer.add_add_bos_token(bos)
    if chat is not None:
        writer.add_chat_template(chat)


def _as_llama_cpp(name: str, values: Any, architecture: str, config: Any) -> Any:
    if architecture == "gemma3" and name.endswith("norm.weight"):
        return values + 1
    if architecture != "llama" or (".attn_q." not in name and ".attn_k." not in name):
        return values
    heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
