"""The weights shipped with the package: where they are, and whether they are the ones that were shipped.

Builds on errors. ``checksums.json`` lists the sha256 of every file; ``seal`` writes it after a training.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tacit.errors import ConfigError, ModelError

WEIGHTS = Path(__file__).parent / "weights"
CHECKSUMS = "checksums.json"
MODELS = {"testbed": "model", "testbed:C": "model-c"}
"""Folders of the language models by name; the first is for sets A and B."""


def model_path(root: Path = WEIGHTS, name: str = "testbed") -> Path:
    """The folder of a language model, verified."""
    return _verified(root, MODELS[name])


def shipped(name: str) -> Path | None:
    """The folder, verified, of a language model that comes with Tacit; None for all other names.

    Raises:
        ModelError: the testbed has no model of that name, or its files are not those that were shipped.
    """
    if name.partition(":")[0] != "testbed":
        return None
    if name not in MODELS:
        raise ModelError(f"The testbed has no model {name!r}; it has {' (sets A and B), '.join(MODELS)}.")
    return model_path(name=name)


def check_set(model: str, data: str) -> None:
    """Refuse a set of the testbed, given by its address, whose words a model of the testbed does not know.

    Raises:
        ConfigError: it names the model that does.
    """
    fitting = "testbed:C" if data.startswith("testbed:C") else "testbed"
    if model in MODELS and model != fitting:
        raise ConfigError(f"{data} has other words than the model {model} knows; say --model {fitting}")


def reward_model_path(root: Path = WEIGHTS) -> Path:
    """The process reward model's folder, verified."""
    return _verified(root, "reward")


def seal(root: Path = WEIGHTS) -> None:
    """Record the checksums of all files under ``root``."""
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    sums = {path.relative_to(root).as_posix(): _sha256(path) for path in found}
    (root / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n")


def _verified(root: Path, name: str) -> Path:
    folder = root / name
    try:
        sums: dict[str, str] = json.loads((root / CHECKSUMS).read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"The testbed's {root / CHECKSUMS} cannot be read ({error}); reinstall tacit.") from error
    listed = [path for path in sums if path.startswith(f"{name}/")]
    if not listed:
        raise ModelError(f"The testbed's {name} weights are not listed in {root / CHECKSUMS}; reinstall tacit.")
    for path in listed:
        file = root / path
        if not file.is_file():
            raise ModelError(f"The testbed's {file} is missing; reinstall tacit.")
        if _sha256(file) != sums[path]:
            raise ModelError(
                f"The testbed's {file} is not the file that was shipped (sha256 differs); reinstall tacit."
            )
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
