"""Rights at the moment that something is written: a key may have been revoked since its request was let in.

Builds on keys and the service. A body has half a minute to arrive, and an answer minutes to be drawn. So what a request
was let in with says little at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tacit.server.api.errors import Refused, forbidden
from tacit.server.keys import ApiKey
from tacit.server.live.service import Service

T = TypeVar("T")


def present(service: Service, key: ApiKey) -> ApiKey:
    """A key as it is now; Refused where it has been revoked."""
    now = service.keys.current(key)
    if now.revoked is not None:
        raise Refused(401, "this API key is unknown or revoked", code="invalid_api_key")
    return now


async def changing(service: Service, key: ApiKey, work: Callable[[], T], *, alone: bool = True) -> T:
    """Change something that needs the right "admin", if the key has it still.

    Args:
        service, key: where, and who.
        work: run outside the event loop.
        alone: in one transaction with the look at the key; False for what replaces the bank's content as a whole.
    """

    def checked() -> T:
        if not present(service, key).may("admin"):
            raise forbidden("admin")
        return work()

    def within() -> T:
        with service.bank.transaction():
            return checked()

    return await service.storing(within if alone else checked)
