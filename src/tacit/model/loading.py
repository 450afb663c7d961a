"""Where a model comes from: a folder or the Hub, onto a device, with a digest of what was loaded.

Builds on errors and transformers. Only safetensors are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tacit.errors import ConfigError, ModelError

FULL_HASH_BYTES = 2 << 30  # weights beyond this are hashed by samples: 15 GB would take half a minute at every start


def digest_state(model: Any) -> str:
    """Digest of every parameter as it is now."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_files(directory: Path) -> str:
    """Digest of the weight files, independent of the dtype they are loaded in."""
    files = sorted(directory.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in files)
    digest = hashlib.sha256(str(total).encode())
    for file in files:
        size = file.stat().st_size
        block = 1 << 20
        stride = block if total <= FULL_HASH_BYTES else max(block, size // 256)
        with file.open("rb") as handle:
            for offset in range(0, size, stride):
                handle.seek(offset)
                digest.update(handle.read(block))
    return digest.hexdigest()


def parse_device(device: str) -> torch.device:
    """The device of that name; "auto" is the GPU if there is one. ConfigError if there is none such."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device} was asked for, but this machine has no CUDA; use --device cpu or auto")
    return target


def resolve_model(name: str, revision: str | None) -> Path:
    """The folder of a model: itself, or what the Hub gives for an id. ModelError if there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} is a folder without config.json, so no Hugging Face model; give a model's folder")
        return path
    if path.exists():
        raise ModelError(f"model {name} is a file; give the folder that holds config.json and the weights")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"no model at {name}; give an existing folder, a Hub id like Qwen/Qwen2.5-0.5B, or testbed")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
            )
        )
    except Exception as error:  # the client raises many kinds, none of which a user should have to know
        raise ModelError(
            f"no folder {name} here, and the Hub did not give a model of that name "
            f"({type(error).__name__}); check the name, or download it first and give its folder"
        ) from error


def load_pretrained(directory: Path, name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer in a folder, called ``name`` in errors. ModelError if they cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not list(directory.glob("*.safetensors")):
        raise ModelError(f"model {name} has no *.safetensors weights; convert it first (pickled weights are not read)")
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(directory)
            model = AutoModelForCausalLM.from_pretrained(
                directory, dtype=dtype, use_safetensors=True, attn_implementation="sdpa"
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"model {name} cannot be loaded as a causal language model: {reason}") from error
    return model, tokenizer


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and warnings of transformers inside: they would stand in the middle of our own progress."""
    from transformers.utils import logging as theirs

    quiet = logging.getLogger("transformers")
    level, bars = quiet.level, theirs.is_progress_bar_enabled()
    quiet.setLevel(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        quiet.setLevel(level)
        if bars:
            theirs.enable_progress_bar()
