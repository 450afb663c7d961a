"""Snapshots of the bank over HTTP: make one, list them, go back to one.

Builds on the bank and the service. A snapshot is of the whole database, so this is for banks of one namespace alone:
where there is anything of another one, all of it is refused. Files lie beside the bank under names that the server
makes; a name holds a digest of the namespace: who has a bank to itself later cannot go back to another's.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, StringConstraints
from sqlalchemy import select, union

from tacit.bank import restore, schema, sqlite_path
from tacit.bank.base import Bank
from tacit.bank.search.kept import sweep
from tacit.errors import ConfigError
from tacit.server.api.errors import Refused, not_found
from tacit.server.api.memories import Admin
from tacit.server.api.rights import changing
from tacit.server.api.schemas import Strict
from tacit.server.live.service import Service

MOST_SNAPSHOTS = 32
"""So many can be made over HTTP; then an operator has to remove some, or a client could fill the disk."""


MOST_ASIDE = 4
"""So many banks as they were before a restore over HTTP are kept; older ones are removed."""


class SnapshotName(BaseModel):
    """A snapshot that was made."""

    name: str


class SnapshotNames(BaseModel):
    """All snapshots, oldest first."""

    snapshots: list[str]


class RestoreRequest(Strict):
    """Which snapshot to go back to."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=400)]


class Restored(BaseModel):
    """What was restored, and the file beside the bank that keeps what was there before."""

    name: str
    kept: str | None


def add_snapshots(api: FastAPI, service: Service) -> None:
    """Add the routes of snapshots under ``/tacit/v1``."""

    @api.post("/tacit/v1/snapshot", status_code=201)
    async def snapshot(caller: Admin) -> SnapshotName:
        """Write a consistent, verified copy of the bank beside it, while it stays in use."""

        def work() -> SnapshotName:
            folder = _folder(service.bank, caller.namespace)
            if len(folder.names()) >= MOST_SNAPSHOTS:
                raise Refused(
                    409, f"there are {MOST_SNAPSHOTS} snapshots already; remove some on the server", code="too_many"
                )
            sweep(folder.bank)
            name = folder.new()
            service.bank.snapshot(folder.path / name)
            return SnapshotName(name=name)

        return await changing(service, caller.key, work, alone=False)

    @api.get("/tacit/v1/snapshots")
    async def snapshots(caller: Admin) -> SnapshotNames:
        """The snapshots that there are, oldest first."""
        return await service.storing(lambda: SnapshotNames(snapshots=_folder(service.bank, caller.namespace).names()))

    @api.post("/tacit/v1/restore")
    async def restore_(body: RestoreRequest, caller: Admin) -> Restored:
        """Make the bank hold what a snapshot holds; API keys stay as they are."""

        def work() -> Restored:
            folder = _folder(service.bank, caller.namespace)
            if body.name not in folder.names():
                raise not_found(f"there is no snapshot {body.name!r}", "snapshot_not_found", "name")
            kept = restore(folder.path / body.name, service.bank.url, force=True)
            folder.thin(kept)
            return Restored(name=body.name, kept=None if kept is None else kept.name)

        return await changing(service, caller.key, work, alone=False)


class _Folder:
    """Where one namespace's snapshots of a bank lie: beside it, under names of one form."""

    def __init__(self, bank: Path, namespace: str) -> None:
        self.bank, self.path = bank, bank.parent
        self._stem = f"{bank.name}.snapshot-{hashlib.sha256(namespace.encode()).hexdigest()[:16]}-"

    def new(self) -> str:
        """A name that no file has."""
        return f"{self._stem}{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"

    def names(self) -> list[str]:
        """Those that there are, oldest first."""
        form = re.compile(re.escape(self._stem) + r"\d{8}-\d{6}-[0-9a-f]{8}")
        found = [path for path in self.path.iterdir() if form.fullmatch(path.name)]
        return sorted(path.name for path in found if path.is_file() and not path.is_symlink())

    def thin(self, latest: Path | None) -> None:
        """Keep only some of what restores have put aside, or a client could fill the disk."""
        form = re.compile(re.escape(f"{self.bank.name}.before-restore-") + r"\d{8}-\d{6}-[0-9a-f]{4}")
        aside = sorted(path for path in self.path.iterdir() if form.fullmatch(path.name) and path != latest)
        for path in aside[: max(0, len(aside) - MOST_ASIDE + 1)]:
            for suffix in ("-wal", "-shm", ""):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def _folder(bank: Bank, namespace: str) -> _Folder:
    """Where the snapshots are; Refused unless the bank is ``namespace``'s alone."""
    keys = schema.api_keys.c
    everywhere = union(
        select(schema.namespaces.c.namespace),
        select(schema.jobs.c.namespace),
        select(keys.namespace).where(keys.revoked.is_(None)),
    )
    with bank.connection() as connection:
        others = set(connection.execute(everywhere).scalars()) - {namespace}
    if others:
        raise Refused(
            403,
            "a snapshot is of the whole bank, and this one is shared with other namespaces; ask who runs the server",
            type="permission_error",
            code="bank_is_shared",
        )
    try:
        path = sqlite_path(bank.url)
    except ConfigError:
        raise Refused(
            409, "this bank is no file; ask who runs the server for `tacit memories snapshot`", code="bank_is_no_file"
        ) from None
    return _Folder(path.absolute(), namespace)
