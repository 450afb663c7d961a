"""Damaged memories: read around, reported, and taken out of use, so that one never stops what the others are for.

Builds on base, memory and errors. A disk, a foreign program or an older version can leave a record that is not what was
stored; ``Bank.check`` finds all of them, and this is for those who come across one.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from tacit.bank.base import Bank
from tacit.errors import BankError, DamagedMemory, MemoryNotFound
from tacit.memory import Memory, State

LOG = logging.getLogger("tacit.bank")

DAMAGED = "damaged: it is not what was stored; delete it or restore a snapshot"
"""The reason of a memory that was found to be so."""


def undamaged(bank: Bank, id: str, namespace: str) -> Memory | None:
    """The memory; None where it was deleted meanwhile, or is damaged.

    A damaged one is quarantined: lists show it with its reason, and searches find the next one; and it is told in the
    log.
    """
    try:
        return bank.get(id, namespace)
    except MemoryNotFound:
        return None
    except DamagedMemory as error:
        LOG.warning("%s; it is taken out of use", error)
        with suppress(BankError):  # a bank that cannot be written now: whoever comes next tries again
            bank.set_state(id, namespace, State.QUARANTINED, DAMAGED)
        return None
