"""The errors a user can meet. Each message says what is wrong, where, and what to do instead.

Builds on nothing of Tacit's. The CLI prints the message of any ``TacitError`` on one line and exits 2; everything else
that escapes is a bug and keeps its traceback. What is optional is imported through ``needed``.
"""

import importlib
from typing import Any

DISTRIBUTION = "tacit-memory"
"""What pip calls Tacit; ``tacit`` alone is somebody else's package there."""


class TacitError(Exception):
    """Base of every error that Tacit raises on purpose."""


class ConfigError(TacitError):
    """A setting is out of range, unknown, or contradicts another one."""


class DataError(TacitError):
    """A problem file or data set cannot be read as problems."""


class ModelError(TacitError):
    """A model, tokenizer or adapter cannot be loaded or is not of a kind that Tacit can use."""


class EngineError(TacitError):
    """A generation request cannot be served."""


class EngineBusy(EngineError):
    """More requests wait than the engine may hold; the same request can succeed later."""


class EngineLost(EngineError):
    """No server answers; the same request can succeed once one does."""


class BankError(TacitError):
    """A memory bank cannot be opened, read or written."""


class BankMissing(BankError):
    """There is no bank at that address, and none was to be made."""


class BankUnavailable(BankError):
    """The database cannot be read or written now: locked, full, gone; the same call can succeed later."""


class DamagedMemory(BankError):
    """One memory is not what was stored; every other one can be used as ever."""


class FingerprintError(BankError):
    """A memory or bank belongs to another backbone; a soft prompt means nothing to a model it was not trained on."""


class MemoryNotFound(BankError):
    """No memory of that id in that namespace."""


class KeyNotFound(BankError):
    """No API key of that id."""


class MemoryFormatError(BankError):
    """Bytes that should be a memory are not: wrong shape, dtype, not finite, or not safetensors."""


def install_hint(extra: str = "") -> str:
    """The command that installs what an extra of pyproject.toml brings, or what Tacit always needs."""
    brackets = extra and f"[{extra}]"
    return f"pip install '{DISTRIBUTION}{brackets}' (from a checkout: pip install -e '.{brackets}')"


def needed(extra: str, what: str, *modules: str) -> Any:
    """Import modules that an extra brings; returns the first.

    Raises:
        ConfigError: one cannot be imported, so ``what`` cannot be used; the message says why and what to install.
    """
    try:
        first, *_ = map(importlib.import_module, modules)
        return first
    except ImportError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{what} cannot be used ({reason}); install what it needs: {install_hint(extra)}") from error
