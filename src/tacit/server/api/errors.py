"""Refusals in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.

Builds on errors. A refusal is a TacitError that knows its HTTP status; every other error that a request meets is turned
into one here, so that bad input is never a 500.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tacit.errors import (
    BankError,
    ConfigError,
    EngineBusy,
    EngineError,
    EngineLost,
    FingerprintError,
    MemoryFormatError,
    MemoryNotFound,
    ModelError,
    TacitError,
)


class Refused(TacitError):
    """A request that is not served.

    Attributes:
        status: HTTP status.
        type, code, param: as OpenAI's clients read them; ``param`` is the field at fault.
        headers: sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.code, self.param = status, type, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What the client receives."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """400: the request asks for what cannot be had."""
    return Refused(400, message, param=param, code=code)


def not_found(message: str, code: str = "not_found", param: str | None = None) -> Refused:
    """404: there is no such thing, or none that this key may see."""
    return Refused(404, message, code=code, param=param)


def forbidden(right: str) -> Refused:
    """403: the key lacks a right."""
    return Refused(
        403, f"this key has no right to {right}; ask for a key with it", type="permission_error", code="forbidden"
    )


def busy(message: str, seconds: int = 1) -> Refused:
    """429: the same request can succeed after ``seconds``."""
    return Refused(
        429, message, type="rate_limit_error", code="engine_busy", headers={"Retry-After": str(max(1, seconds))}
    )


def shutting_down() -> Refused:
    """503: the server is draining."""
    return Refused(
        503,
        "the server is shutting down; try again later",
        type="server_error",
        code="shutting_down",
        headers={"Retry-After": "5"},
    )


def refusal_of(error: TacitError) -> Refused:
    """The refusal that tells of any of Tacit's errors."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, EngineBusy):
        return busy(str(error))
    if isinstance(error, EngineLost):
        return Refused(503, str(error), type="server_error", code="engine_lost", headers={"Retry-After": "5"})
    if isinstance(error, MemoryNotFound):
        return not_found(str(error), code="memory_not_found")
    if isinstance(error, EngineError | ModelError | ConfigError | MemoryFormatError):
        return invalid(str(error))
    if isinstance(error, FingerprintError):
        status, code, wait = 409, "other_model", {}  # waiting does not help, as it may with a bank that is locked
    elif isinstance(error, BankError):
        status, code, wait = 503, "bank_unavailable", {"Retry-After": "1"}
    else:
        status, code, wait = 500, "internal_error", {}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return Refused(status, str(error), type=kind, code=code, headers=wait)
