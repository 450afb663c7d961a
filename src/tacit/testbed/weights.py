"""The weights shipped with the package: where they are, and whether they are the ones that were shipped.

Builds on errors. ``checksums.json`` lists the sha256 of every file; ``seal`` writes it after a training.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tacit.errors import ModelError

WEIGHTS = Path(__file__).parent / "weights"
CHECKSUMS = "checksums.json"


def model_path(root: Path = WEIGHTS) -> Path:
    """The language model's folder, verified."""
    return _verified(root, "model")


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
