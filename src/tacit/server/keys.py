"""API keys: who may use a server, whose memories they use, and how much they may have learned.

Builds on the bank, whose database holds the keys. Of a secret only its SHA-256 is kept: it is 256 random bits, which
nobody guesses from a hash however fast, so no slow password hash is needed. A request's namespace is that of its
key and comes from nowhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import exists, insert, select, update

from tacit.bank import schema
from tacit.bank.base import Bank
from tacit.checks.values import check_name
from tacit.errors import BankError, ConfigError, KeyNotFound, MemoryFormatError

RIGHTS = ("ask", "learn", "trust", "admin")
"""What a key may be allowed: asking for answers; having its problems learned; having what it taught come into use where
no verifier judges (promotion.py); looking after the server."""

PREFIX = "tacit-"
"""Of every secret, so that scanners for leaked secrets can tell one."""

_t = schema.api_keys.c


RESERVED = "tacit:"
"""How namespaces begin that nobody is given; a bank's own bookkeeping is in one."""

OPEN_KEY = "open"
"""Id of what an open server takes every caller for; no key in a bank has it."""

OPEN_NAMESPACE = "default"
"""Whose memories an open server (loopback, no keys) uses and makes."""


@dataclass(frozen=True)
class ApiKey:
    """One key, without its secret.

    Attributes:
        learn_per_day: problems that it may have learned per UTC day.
        created, revoked: unix seconds; ``revoked`` is None while it is in use.
    """

    id: str
    name: str
    namespace: str
    rights: frozenset[str]
    learn_per_day: int
    created: float
    revoked: float | None

    def may(self, right: str) -> bool:
        """Whether the key is in use and has this right."""
        return self.revoked is None and right in self.rights


class KeyStore:
    """The API keys of one bank. Every call asks the database, so that a revocation counts at once, in every process."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    def create(
        self, name: str, namespace: str, rights: Iterable[str] = ("ask", "learn"), learn_per_day: int = 100
    ) -> tuple[ApiKey, str]:
        """Make a key; returns it with its secret, which cannot be had again.

        Raises:
            MemoryFormatError: ``name`` or ``namespace`` is no name.
            ConfigError: no right or an unknown one; a negative or enormous ``learn_per_day``.
        """
        check_name("name of a key", name)
        namespace = checked_namespace(namespace)
        wanted = _checked(rights)
        if not 0 <= learn_per_day < 2**31:
            raise ConfigError(f"learn_per_day is {learn_per_day}; it must be 0 or more, and below 2^31")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(secrets.token_hex(6), name, namespace, wanted, learn_per_day, time.time(), None)
        row = {**vars(key), "rights": _text(wanted), "digest": digest(secret)}
        with self.bank.connection(write=True) as connection:
            connection.execute(insert(schema.api_keys).values(**row))
            self._check_written(key)
        return key, secret

    def lookup(self, secret: str) -> ApiKey | None:
        """The key with this secret; None if there is none or it has been revoked."""
        # The database compares digests, not secrets, and may stop at the first differing byte. Timing that tells
        # nothing: to learn a digest byte by byte one needs secrets with chosen beginnings of their SHA-256, and whoever
        # knew the whole digest would still lack the secret. What is found is compared once more, in constant time.
        presented = digest(secret)
        row = self._row(_t.digest == presented)
        if row is None or row["revoked"] is not None or not hmac.compare_digest(row["digest"], presented):
            return None
        return _key(row)

    def current(self, key: ApiKey) -> ApiKey:
        """A key that was looked up before, as it is now; revoked where there is none any more."""
        if key.id == OPEN_KEY:
            return replace(key, revoked=time.time()) if self.ever() else key
        row = self._row(_t.id == key.id)
        return replace(key, revoked=time.time()) if row is None else _key(row)

    def get(self, id: str) -> ApiKey:
        """The key of this id, revoked or not; KeyNotFound if there is none."""
        row = self._row(_t.id == id)
        if row is None:
            raise KeyNotFound(f"there is no API key {id!r}; list them with `tacit keys list`")
        return _key(row)

    def all(self) -> list[ApiKey]:
        """All keys, revoked ones too, in the order in which they were made."""
        with self.bank.connection() as connection:
            rows = connection.execute(select(schema.api_keys).order_by(_t.created, _t.id)).mappings().all()
        return [_key(row) for row in rows]

    def ever(self) -> bool:
        """Whether there has been a key, revoked or not: a bank that was once closed is never open again, or revoking
        the last key would let everybody in."""
        with self.bank.connection() as connection:
            return bool(connection.execute(select(exists().where(_t.id.is_not(None)))).scalar_one())

    def allow(self, id: str, rights: Iterable[str]) -> ApiKey:
        """Give a key these rights in place of those it has, from now on.

        Raises:
            KeyNotFound: there is no key of this id.
            ConfigError: no right or an unknown one, or the key has been revoked.
        """
        wanted = _checked(rights)
        with self.bank.connection(write=True) as connection:
            if self.get(id).revoked is not None:
                raise ConfigError(f"API key {id!r} has been revoked, for good; make a new one with `tacit keys create`")
            connection.execute(update(schema.api_keys).where(_t.id == id).values(rights=_text(wanted)))
            return self._check_written(replace(self.get(id), rights=wanted, revoked=None))

    def revoke(self, id: str) -> ApiKey:
        """Shut a key out for good, from now on; its memories stay. A second time changes nothing.

        Raises:
            KeyNotFound: there is no key of this id.
        """
        with self.bank.connection(write=True) as connection:
            unrevoked = (_t.id == id) & _t.revoked.is_(None)
            before, now = self.get(id), time.time()
            connection.execute(update(schema.api_keys).where(unrevoked).values(revoked=now))
            return self._check_written(replace(before, revoked=now if before.revoked is None else before.revoked))

    def _check_written(self, wanted: ApiKey) -> ApiKey:
        """The key, if that is what the bank says now; BankError, and nothing is changed, where it says otherwise."""
        if self.get(wanted.id) != wanted:
            raise BankError(f"the bank did not take the change to API key {wanted.id!r}; see tacit doctor --bank")
        return wanted

    def _row(self, where: Any) -> Any:
        with self.bank.connection() as connection:
            return connection.execute(select(schema.api_keys).where(where)).mappings().one_or_none()


def checked_namespace(namespace: str) -> str:
    """A namespace as it is kept: composed (NFC), so that what looks the same is the same.

    Raises:
        MemoryFormatError: it is no name, or has blanks around it.
        ConfigError: Tacit keeps something of its own under such names.
    """
    check_name("namespace", namespace)
    composed = unicodedata.normalize("NFC", namespace)
    if composed != composed.strip():
        raise MemoryFormatError(f"namespace {namespace[:60]!r} has blanks around it; leave them out")
    if composed.lower().startswith(RESERVED):
        raise ConfigError(f"namespace {namespace[:60]!r}: names that begin with {RESERVED!r} are Tacit's own")
    return composed


def _checked(rights: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(rights)
    if not wanted or not wanted <= set(RIGHTS):
        said = ", ".join(sorted(wanted)) or "none"
        raise ConfigError(f"the rights of a key are some of {', '.join(RIGHTS)}, not {said}")
    return wanted


def _text(rights: frozenset[str]) -> str:
    return ",".join(right for right in RIGHTS if right in rights)


def digest(secret: str) -> str:
    """Hex SHA-256 of a secret, whatever a client may have sent in its place."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: Any) -> ApiKey:
    fields = {name: row[name] for name in ApiKey.__dataclass_fields__}
    return ApiKey(**{**fields, "rights": frozenset(row["rights"].split(","))})


def served(bank: Bank) -> list[str]:
    """The namespaces of a bank that a server may be asked for: the open one, and those of its keys."""
    return list(dict.fromkeys([OPEN_NAMESPACE, *(key.namespace for key in KeyStore(bank).all())]))
