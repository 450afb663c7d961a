"""The errors a user can meet. Each message says what is wrong, where, and what to do instead.

Builds on nothing. The CLI prints the message of any ``TacitError`` on one line and exits 2; everything else that
escapes is a bug and keeps its traceback.
"""


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


class FingerprintError(BankError):
    """A memory or bank belongs to another backbone; a soft prompt means nothing to a model it was not trained on."""


class MemoryNotFound(BankError):
    """No memory of that id in that namespace."""


class KeyNotFound(BankError):
    """No API key of that id."""


class MemoryFormatError(BankError):
    """Bytes that should be a memory are not: wrong shape, dtype, not finite, or not safetensors."""
