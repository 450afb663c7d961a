"""One memory as a PEFT prompt-tuning adapter, and back.

A folder that ``peft.PeftModel.from_pretrained(model, folder)`` loads: the soft prompt as the adapter's virtual tokens.
Beside PEFT's two files stand the memory's record and key, which PEFT passes over. Only JSON and safetensors are written
and read; neither PEFT nor torch is needed here.

Builds on memory and errors.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tacit.bank.portable import FORMAT, as_candidate, read_file, read_tensors
from tacit.checks.values import parse_json
from tacit.errors import BankError, MemoryFormatError
from tacit.memory import Memory, from_record, record

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RECORD, KEY = "tacit.json", "tacit_key.safetensors"


def export_peft(memory: Memory, directory: str | Path, base_model: str) -> None:
    """Write ``memory`` as a PEFT adapter into ``directory``, which must not exist or be empty.

    Args:
        memory: the memory.
        directory: where to; made if it does not exist.
        base_model: path or hub id of the model that it was learned with, for PEFT's ``base_model_name_or_path``.

    Raises:
        BankError: the folder is not empty, or cannot be written; or the memory is no soft prompt.
    """
    if memory.carrier != "prompt":
        raise BankError(f"memory {memory.id} is no soft prompt but {memory.carrier}; export it with --gguf")
    folder = Path(directory)
    tokens, width = memory.prompt.shape
    config = {
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "num_attention_heads": None,  # PEFT takes these two from the model
        "num_layers": None,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": tokens,
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "task_type": "CAUSAL_LM",
        "token_dim": width,
    }
    files = {
        CONFIG: _json(config),
        WEIGHTS: safetensors.numpy.save({"prompt_embeddings": np.array(memory.prompt)}, metadata={"format": "pt"}),
        KEY: safetensors.numpy.save({"key": np.array(memory.key)}),
        # Last, because it is what makes the folder a memory.
        RECORD: _json({"format": FORMAT, "sha256": memory.sha256, "record": record(memory)}),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BankError(f"{folder} is not empty; export into a new folder")
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise BankError(f"the adapter cannot be written to {folder} ({error.strerror})") from error


def import_peft(directory: str | Path, *, trusted: bool = False, namespace: str | None = None) -> Memory:
    """Read what ``export_peft`` wrote, checking all of it.

    As with ``from_safetensors`` the memory becomes a candidate with empty counters unless ``trusted``, and
    ``namespace`` replaces the recorded one.

    Raises:
        MemoryFormatError: a file is missing, is not what it should be, or does not belong to the others.
    """
    folder = Path(directory)
    whole = parse_json(read_file(folder / RECORD), f"{folder / RECORD}")
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise MemoryFormatError(f"{folder / RECORD} is not a memory record of the format {FORMAT}")
    config = parse_json(read_file(folder / CONFIG), f"{folder / CONFIG}")
    if not isinstance(config, dict) or config.get("peft_type") != "PROMPT_TUNING":
        raise MemoryFormatError(f"{folder} is not a prompt-tuning adapter")
    prompt = _tensor(folder / WEIGHTS, "prompt_embeddings")
    memory = from_record(whole.get("record", {}), prompt, _tensor(folder / KEY, "key"))
    if memory.sha256 != whole.get("sha256"):
        raise MemoryFormatError(f"the soft prompt in {folder} is not the one that its {RECORD} was written for")
    if [config.get("num_virtual_tokens"), config.get("token_dim")] != list(memory.prompt.shape):
        raise MemoryFormatError(f"{folder / CONFIG} does not fit the soft prompt of shape {list(memory.prompt.shape)}")
    if namespace is not None:
        memory = replace(memory, namespace=namespace)
    return memory if trusted else as_candidate(memory)


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def _tensor(path: Path, name: str) -> np.ndarray:
    tensors, _ = read_tensors(read_file(path))
    if set(tensors) != {name}:
        raise MemoryFormatError(f"{path} should hold the one tensor {name!r}, not {sorted(tensors)}")
    return tensors[name]
