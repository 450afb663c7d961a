"""A LoRA adapter's folder as a model: its base with the adapter's weights merged in.

Builds on errors and peft. What is merged is an ordinary model, so everything else is as it is without an adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tacit.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PLAIN = {
    "modules_to_save": "layers of its own (modules_to_save)",
    "trainable_token_indices": "tokens of its own (trainable_token_indices)",
    "layer_replication": "layers more than once (layer_replication)",
    "alora_invocation_tokens": "a start in the middle of a text (alora_invocation_tokens)",
    "use_dora": "DoRA's magnitudes (use_dora)",
}
"""What an adapter may not have, in words."""

_MATTERS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out")
"""Settings that change the merged weights."""


def settings(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of an adapter that can be merged, called ``name`` in errors.

    Raises:
        ModelError: it is no LoRA adapter, has more than LoRA has, or its weights are not there.
    """
    try:
        held: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = str(held["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the adapter {name} has a {CONFIG} that cannot be read; save it again with peft") from error
    if kind != "LORA":
        instead = "merge it into its base and give the merged model's folder"
        if kind == "PROMPT_TUNING":
            instead = "it is a prompt, as `tacit memories export --peft` writes one; give its base as the model"
        raise ModelError(f"the adapter {name} is of the kind {kind}, and only LORA can be merged; {instead}")
    more = [said for key, said in _PLAIN.items() if held.get(key)]
    if held.get("bias", "none") != "none":
        more.append("biases (bias)")
    if more:
        raise ModelError(
            f"the adapter {name} has {' and '.join(more)}, which is not read; merge it into its base with peft's "
            "merge_and_unload and give the merged model's folder"
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"the adapter {name} has no {WEIGHTS} (pickled weights are not read); save it again with peft")
    if not held.get("base_model_name_or_path"):
        raise ModelError(f"the adapter {name} does not say its base; write base_model_name_or_path into its {CONFIG}")
    return held


def base_of(folder: Path, held: dict[str, Any]) -> str:
    """The base's folder or file, looked for beside the adapter first, else what the configuration calls it."""
    said = str(held["base_model_name_or_path"])
    beside = folder / Path(said).expanduser()
    return str(beside.resolve()) if beside.exists() else said


def merged(model: Any, folder: Path, name: str) -> Any:
    """A base with the adapter's weights added to its own.

    Raises:
        ModelError: the adapter is not one for this base.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the adapter {name} cannot be merged into its base: {reason}; give the base that it was trained on"
        ) from error


def digested(base: str, weights: str, held: dict[str, Any]) -> list[str]:
    """What the digest of a merged model is taken over: those of base and adapter, and how they are added."""
    return [base, weights, json.dumps([held.get(key) for key in _MATTERS], sort_keys=True)]
