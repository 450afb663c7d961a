"""What is wrong with a body, in a sentence that says what to send instead.

Builds on FastAPI's errors. Of many faults the first is told, by the path to it: ``messages.0.role: Input should ...``.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from tacit.server.api.errors import Refused, invalid

ALTERNATIVES = ("constrained-str", "list[", "function-", "nullable[")
"""How pydantic names the alternatives of a union in the path to a fault; no part of what a client sent."""

SAID = {"extra_forbidden": "this server does not know this field; leave it out"}
"""What is said of a kind of fault, where pydantic's own words do not say what to do."""

JSON = "application/json"


def explained(request: Request, error: RequestValidationError) -> Refused:
    """The refusal that tells of the first fault."""
    faults = error.errors()
    first = faults[0]
    if first["type"] == "json_invalid":
        return invalid(f"the body is no JSON: {first['ctx']['error']}, at character {first['loc'][-1]}")
    if first["loc"] == ("body",):
        return invalid(_whole(request, first))
    loc = [str(part) for part in first["loc"] if part not in ("body", "str")]  # which no field is called
    param = ".".join(part for part in loc if not part.startswith(ALTERNATIVES))
    said = SAID.get(first["type"], first["msg"])
    message = f"{param}: {said}" if param else str(said)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return invalid(message[:500] + more, param[:200] or None)


def _whole(request: Request, fault: dict[str, Any]) -> str:
    """What is wrong with the body as a whole."""
    held = fault.get("input")
    if held is None and fault["type"] == "missing":
        return f"there is no body; send a JSON object, with the header Content-Type: {JSON}"
    if isinstance(held, bytes):  # FastAPI has not read it
        kind = ascii(request.headers.get("content-type", "nothing that says what it is"))[1:-1][:80]
        return f"the body came as {kind}; send JSON, with the header Content-Type: {JSON}"
    kinds = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return f"the body is {kinds.get(type(held), 'a number')}; send a JSON object"
