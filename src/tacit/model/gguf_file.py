"""A model in a GGUF file (llama.cpp's form, and Ollama's): its configuration, tokenizer and dequantised weights.

Builds on errors, transformers (the tokenizer) and gguf (dequantisation, names of tensors). The weights go from the file
into the parameters a few rows at a time. So loading takes hardly more memory than the model: transformers' own way
holds them twice, and up to twice the model in all. It remains for the architectures that are not in ``OURS``.
"""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from tacit.errors import ModelError, needed

MAGIC = b"GGUF"

OURS = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
"""Architectures that are read here, as transformers calls them."""

ELEMENTS = 1 << 20
"""Weights that are dequantised at once."""

_STRING, _ARRAY = 8, 9
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_LONGEST = 4096
"""Of longer lists, which are a vocabulary's, the length alone is kept: the tokenizer's reader takes them for itself."""
_VERSIONS = (2, 3)

_SETTINGS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
}
_BOS_BY_DEFAULT = ("llama3", "llama-v3", "llama-bpe")
"""Tokenizers whose prompts begin with BOS where the file does not say whether they do, as in llama.cpp."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in the file: its shape (the first dimension is that of rows), ggml type, offset and bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a file says before its weights.

    Attributes:
        file: itself.
        values: by llama.cpp's keys; of a long list, its length.
        tensors: by llama.cpp's names.
    """

    file: Path
    values: dict[str, Any]
    tensors: dict[str, Stored]

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it."""
        return str(self.values.get("general.architecture"))

    def own(self, key: str, default: Any = None) -> Any:
        """A value under the architecture's prefix."""
        return self.values.get(f"{self.architecture}.{key}", default)


def is_gguf(path: Path) -> bool:
    """Whether a file's first bytes are those of GGUF, whatever it is called."""
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(len(MAGIC)) == MAGIC


def load(file: Path, name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer of a file, called ``name`` in errors.

    Raises:
        ConfigError: the package gguf is not there.
        ModelError: the file is incomplete, has no tokenizer, or is of a kind that cannot be read.
    """
    header = read_header(file, name)
    tokenizer = _tokenizer(header, name)  # first, since what it takes to make one is free again before the weights come
    if header.architecture not in OURS:
        return _by_transformers(header, name, dtype), tokenizer
    config = configuration(header, name)
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.tie_weights()  # which is part of what no_init_weights leaves out
    _check_positions(header, model, name)
    _fill(model, header, name)
    ends = [header.values.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    model.generation_config.eos_token_id = sorted({int(one) for one in ends if one is not None}) or None
    return model, tokenizer


# -- the header -------------------------------------------------------------------------------------------------------


def read_header(file: Path, name: str) -> Header:
    """The header of a file, checked against the file's length."""
    gguf = needed("gguf", f"the GGUF file {name}", "gguf")
    try:
        with file.open("rb") as handle:
            header = _header(handle, file, gguf.GGML_QUANT_SIZES)
        end = max((one.offset + one.size for one in header.tensors.values()), default=0)
    except OSError as error:
        raise ModelError(f"model {name} cannot be read: {error.strerror or error}") from error
    except (struct.error, EOFError, UnicodeDecodeError, MemoryError, OverflowError):
        header, end = None, 1
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the GGUF file {name} cannot be read: {reason}; use a model's file as llama.cpp has it"
        ) from error
    size = file.stat().st_size
    if header is None or end > size:
        told = f"{end:,} bytes are announced, {size:,} are there" if header else "it ends within its header"
        raise ModelError(f"the GGUF file {name} is incomplete ({told}); download it again")
    if (parts := header.values.get("split.count", 0)) > 1:
        raise ModelError(
            f"the GGUF file {name} is one of {parts} parts of a model; join them with `llama-gguf-split --merge`"
        )
    return header


def _header(handle: IO[bytes], file: Path, sizes: dict[Any, tuple[int, int]]) -> Header:
    magic, version, tensors, count = struct.unpack("<4sIQQ", _bytes(handle, 24))
    if magic != MAGIC or version not in _VERSIONS:
        raise ValueError(f"it is of version {version}, and {' and '.join(map(str, _VERSIONS))} are known")
    values = {}
    for _ in range(count):
        key = _string(handle)
        values[key] = _value(handle, *_unpacked(handle, "<I"))
    table = []
    for _ in range(tensors):
        name = _string(handle)
        [dimensions] = _unpacked(handle, "<I")
        shape = _unpacked(handle, f"<{dimensions}Q")[::-1]
        table.append((name, shape, *_unpacked(handle, "<IQ")))
    align = values.get("general.alignment", 32)
    start = -(-handle.tell() // align) * align
    stored = {}
    for name, shape, kind, offset in table:
        if kind not in sizes:
            raise ValueError(f"{name} is of the ggml type {kind}, which the package gguf does not know")
        block, size = sizes[kind]
        stored[name] = Stored(name, shape, kind, start + offset, prod(shape) // block * size)
    return Header(file, values, stored)


def _value(handle: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(handle)
    if kind != _ARRAY:
        return _unpacked(handle, f"<{_NUMBERS[kind]}")[0]
    inner, count = _unpacked(handle, "<IQ")
    found = (
        _unpacked(handle, f"<{count}{_NUMBERS[inner]}") if inner != _STRING else [_string(handle) for _ in range(count)]
    )
    return count if count > _LONGEST else list(found)


def _string(handle: IO[bytes]) -> str:
    return _bytes(handle, *_unpacked(handle, "<Q")).decode()


def _unpacked(handle: IO[bytes], form: str) -> tuple[Any, ...]:
    return struct.unpack(form, _bytes(handle, struct.calcsize(form)))


def _bytes(handle: IO[bytes], count: int) -> bytes:
    found = handle.read(count) if count < 1 << 30 else b""
    if len(found) < count:
        raise EOFError
    return found


# -- configuration ----------------------------------------------------------------------------------------------------


def configured(file: Path, name: str) -> Any:
    """The transformers configuration of a file, its weights unread. ModelError if there is none."""
    header = read_header(file, name)
    if header.architecture in OURS:
        return configuration(header, name)
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, KeyError) as error:
        raise _unknown(header, name, error) from error


def configuration(header: Header, name: str) -> Any:
    """The transformers configuration of a file of one of our architectures.

    Raises:
        ModelError: a setting is missing, or positions are scaled in a way that is not known.
    """
    from transformers import AutoConfig

    own, tensors = header.own, header.tensors
    values = {theirs: own(key) for key, theirs in _SETTINGS.items() if own(key) is not None}
    missing = sorted({*_SETTINGS.values()} - {*values, "head_dim", "num_key_value_heads"})
    if missing or "token_embd.weight" not in tensors:
        lacks = missing[0] if missing else "token_embd.weight"
        raise ModelError(f"the GGUF file {name} does not say its {lacks}; convert the model again with llama.cpp")
    values["vocab_size"] = tensors["token_embd.weight"].shape[0]
    values["tie_word_embeddings"] = "output.weight" not in tensors
    for kind in ("bos", "eos", "padding"):
        values[f"{kind[:3]}_token_id"] = header.values.get(f"tokenizer.ggml.{kind}_token_id")
    rope = {"rope_type": "default", "rope_theta": float(own("rope.freq_base", 10_000.0)), **_scaling(header, name)}
    if header.architecture == "gemma3":
        values["sliding_window"] = own("attention.sliding_window")
        local = {"rope_type": "default", "rope_theta": float(own("rope.freq_base_swa", 10_000.0))}
        rope = {"full_attention": rope, "sliding_attention": local}
    elif header.architecture != "qwen2":  # which has them always
        values["attention_bias"] = "blk.0.attn_q.bias" in tensors
    return AutoConfig.for_model(OURS[header.architecture], rope_parameters=rope, **values)


def _scaling(header: Header, name: str) -> dict[str, Any]:
    """What stretches the positions: Llama 3.1's factors, which are a tensor, or a kind and its factor."""
    kind = header.own("rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors:
        factors = next(_parts(header, header.tensors["rope_freqs.weight"]))[1]
        stretched = {"rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": 1.0}
        return {**stretched, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    if kind == "none" or header.own("rope.scaling.factor", 1.0) == 1.0:
        return {}
    if kind not in ("linear", "yarn"):
        raise ModelError(f"the GGUF file {name} scales its positions by {kind!r}, which is not known; use its folder")
    given = {"rope_type": kind, "factor": float(header.own("rope.scaling.factor"))}
    if (original := header.own("rope.scaling.original_context_length")) and kind == "yarn":
        given["original_max_position_embeddings"] = original
    return given


def _check_positions(header: Header, model: Any, name: str) -> None:
    """Whether the factors in the file are those that their parameters, which no file says, were taken to be."""
    if stored := header.tensors.get("rope_freqs.weight"):
        factors = next(_parts(header, stored))[1]
        rotary = model.model.rotary_emb
        base = float(header.own("rope.freq_base", 10_000.0))
        plain = base ** -(torch.arange(0, 2 * len(factors), 2).float() / (2 * len(factors)))
        if not torch.allclose(plain / factors, rotary.inv_freq.float().cpu(), rtol=1e-3):
            raise ModelError(f"the GGUF file {name} scales its positions by factors that are not known; use its folder")


# -- weights ----------------------------------------------------------------------------------------------------------


def _fill(model: Any, header: Header, name: str) -> None:
    import gguf

    architecture = next(arch for arch, called in gguf.MODEL_ARCH_NAMES.items() if called == header.architecture)
    known = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    left = dict(header.tensors)
    left.pop("rope_freqs.weight", None)
    for theirs, parameter in model.named_parameters():
        base, _, suffix = theirs.rpartition(".")
        ours = f"{known.get_name(base)}.{suffix}"
        stored = left.pop(ours, None)
        if stored is None or stored.shape != tuple(parameter.shape):
            wrong = "is missing" if stored is None else f"has the shape {stored.shape}, not {tuple(parameter.shape)}"
            raise ModelError(
                f"the GGUF file {name} is no plain {header.architecture} model: {ours} {wrong}; use a model's folder"
            )
        heads = _heads(header, ours)
        with torch.no_grad():
            for rows, values in _parts(header, stored, whole=heads > 0):
                found = _unrotated(values, heads) if heads else values
                shifted = header.architecture == "gemma3" and ours.endswith("norm.weight")  # llama.cpp has 1 + w
                parameter[rows] = (found - 1 if shifted else found).to(parameter.dtype)
    if left:
        raise ModelError(
            f"the GGUF file {name} is no plain {header.architecture} model: it also has {next(iter(left))}; "
            "use a model's folder"
        )


def _heads(header: Header, tensor: str) -> int:
    """Heads whose rows llama.cpp has in another order than transformers: those of Llama's queries and keys."""
    queries = int(header.own("attention.head_count"))
    if header.architecture != "llama" or not any(kind in tensor for kind in (".attn_q.", ".attn_k.")):
        return 0
    return queries if ".attn_q." in tensor else int(header.own("attention.head_count_kv", queries))


def _unrotated(values: Tensor, heads: int) -> Tensor:
    """Rows of a rotated projection from pairs side by side (llama.cpp) to halves one below the other."""
    return values.view(heads, -1, 2, *values.shape[1:]).transpose(1, 2).reshape(values.shape)


def _parts(header: Header, stored: Stored, *, whole: bool = False) -> Any:
    """Rows of a tensor (a slice) with their values in float32, some at a time; all at once if ``whole``."""
    import gguf

    count = stored.shape[0]
    step = count if whole else max(1, ELEMENTS // prod(stored.shape[1:]))
    row = stored.size // count if len(stored.shape) > 1 else 0
    step = step if row else count
    kind = gguf.GGMLQuantizationType(stored.kind)
    with header.file.open("rb") as handle:
        handle.seek(stored.offset)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            raw = np.fromfile(handle, np.uint8, row * (rows.stop - start) or stored.size)
            # As one long row, which gguf does at once; it takes rows by 16.
            values = gguf.dequantize(raw[None], kind).reshape(-1, *stored.shape[1:])
            yield rows, torch.from_numpy(values)


def _by_transformers(header: Header, name: str, dtype: torch.dtype) -> Any:
    """The other architectures that transformers reads, with as much memory as that takes."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    try:
        if any("rope_factors" in tensor for tensor in header.tensors):
            raise ValueError("its positions are scaled by factors in the file")
        how = {"dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True}
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting of transformers' hides
            model, report = loader.from_pretrained(header.file.parent, gguf_file=header.file.name, **how)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, TypeError, AssertionError) as error:
        raise _unknown(header, name, error) from error
    if report["missing_keys"]:
        lacks = sorted(map(str, report["missing_keys"]))[0]
        raise ModelError(f"the GGUF file {name} lacks {lacks}; use a folder of the model")
    for holder, mark in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(holder, mark):  # the weights are quantised no longer, and a quantised model could not be saved
            delattr(holder, mark)
    return model


def _unknown(header: Header, name: str, error: Exception) -> ModelError:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    known = ", ".join(sorted({*OURS, *GGUF_CONFIG_MAPPING} - {"general", "tokenizer"}))
    return ModelError(
        f"the GGUF file {name} is of the architecture {header.architecture}, which cannot be read from such a file "
        f"({' '.join(str(error).split())[:100]}); use a folder of the model, or one of {known}"
    )


# -- tokenizer --------------------------------------------------------------------------------------------------------


def _tokenizer(header: Header, name: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any
    if not header.values.get("tokenizer.ggml.tokens"):
        raise ModelError(
            f"the GGUF file {name} has no tokenizer; use a file of the whole model, or a folder with tokenizer.json"
        )
    try:
        tokenizer = PreTrainedTokenizerFast(name_or_path=str(header.file.parent), gguf_file=header.file.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the tokenizer in the GGUF file {name} cannot be read: {reason}; use a folder of the model"
        ) from error
    starts = header.values.get("tokenizer.ggml.add_bos_token")
    if starts is None and header.values.get("tokenizer.ggml.pre") in _BOS_BY_DEFAULT:
        tokenizer.add_bos_token = starts = True
    bos = tokenizer.bos_token
    if (starts or tokenizer.add_bos_token) and bos and tokenizer.chat_template:
        asked = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        if not asked.startswith(bos):  # then whoever runs the file adds it, and the template has to be given as it acts
            tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    return tokenizer
