"""Refusals in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.

Builds on errors. A refusal is a TacitError that knows its HTTP status; every other error that a request meets is turned
into one here, so that bad input is never a 500.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tacit.errors import (
    BankError,
    ConfigError,
    DamagedMemory,
    EngineBusy,
    EngineError,
    EngineLost,
    FingerprintError,
    MemoryFormatError,
    MemoryNotFound,
    ModelError,
    TacitError,
)

LOG = logging.getLogger("tacit.server")


class Refused(TacitError):
    """A request that is not served.

    Attributes:
        status: HTTP status.
        type, code, param: as OpenAI's clients read them; ``type`` follows from the status where none is given, and
            ``param`` is the field at fault.
        headers: sent with it; among them after how many seconds it helps to ask again (``wait``), where it does.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        wait: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode())  # it may quote half a surrogate pair
        self.status, self.code, self.param = status, code, param
        self.type = type or ("server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error"))
        self.headers = {**(headers or {}), **({"Retry-After": str(wait)} if wait else {})}

    def body(self) -> dict[str, Any]:
        """What the client receives."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """400: the request asks for what cannot be had."""
    return Refused(400, message, param=param, code=code)


def not_found(message: str, code: str = "not_found", param: str | None = None) -> Refused:
    """404: there is no such thing, or none that this key may see."""
    return Refused(404, message, code=code, param=param)


def forbidden(right: str, said: str = "") -> Refused:
    """403: the key lacks a right; ``said`` tells it better."""
    said = said or f"this key has no right to {right}; ask for a key with it"
    return Refused(403, said, type="permission_error", code="forbidden")


def busy(message: str) -> Refused:
    """429: the same request can succeed soon."""
    return Refused(429, message, code="engine_busy", wait=1)


def shutting_down() -> Refused:
    """503: the server is draining."""
    return Refused(503, "the server is shutting down; try again later", code="shutting_down", wait=5)


_TYPES = {401: "authentication_error", 429: "rate_limit_error"}

_REFUSALS: tuple[tuple[tuple[type[TacitError], ...], int, str | None, int], ...] = (
    ((EngineBusy,), 429, "engine_busy", 1),
    ((EngineLost,), 503, "engine_lost", 5),
    ((MemoryNotFound,), 404, "memory_not_found", 0),
    ((EngineError, ModelError, ConfigError, MemoryFormatError), 400, None, 0),
    ((DamagedMemory,), 409, "memory_damaged", 0),
    ((FingerprintError,), 409, "other_model", 0),  # waiting does not help, as it may with a bank that is locked
    ((BankError,), 503, "bank_unavailable", 1),
    ((TacitError,), 500, "internal_error", 0),
)
"""What an error becomes: status, code, and seconds to wait. The first line that fits."""


_INSIDE = {
    "engine_lost": "what samples the answers cannot be reached; try again later (the server's log says why)",
    "bank_unavailable": "the bank cannot be read or written now; try again later (the server's log says why)",
    "internal_error": "the server failed; its log says why",
}
"""What is told where the fault is the server's, by code."""


def refusal_of(error: TacitError) -> Refused:
    """The refusal that tells of any of Tacit's errors."""
    if isinstance(error, Refused):
        return error
    _, status, code, wait = next(row for row in _REFUSALS if isinstance(error, row[0]))
    if status < 500:
        return Refused(status, str(error), code=code, wait=wait)
    LOG.warning("%s", error)  # it names files and addresses, which are the operator's
    return Refused(status, _INSIDE[code or ""], code=code, wait=wait)
