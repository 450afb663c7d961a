"""The address of a bank in PostgreSQL: what it may say, and how it is shown.

Builds on SQLAlchemy's URLs and errors. ``postgresql+psycopg://user@host:5432/database?schema=tacit``; every other
part of the query goes to the PostgreSQL client library (``host=/socket/folder``, ``sslmode=require``). A password is
better kept out of it: the library also reads PGPASSWORD and ~/.pgpass.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tacit.errors import ConfigError

SCHEMA = "tacit"
"""The schema that a bank's tables are in, unless the address says another."""

_DRIVER = "postgresql+psycopg"
_SCHEMES = ("postgresql", _DRIVER)


@dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
        url: for SQLAlchemy, without ``schema``.
        schema: where the tables are.
    """

    url: URL
    schema: str

    @property
    def full(self) -> str:
        """What opens the bank again, password and all."""
        return self._with_schema(self.url).render_as_string(hide_password=False)

    @property
    def shown(self) -> str:
        """For people: without the password."""
        hidden = self.url
        if "password" in hidden.query:
            hidden = hidden.difference_update_query(["password"]).update_query_dict({"password": "***"})
        return self._with_schema(hidden).render_as_string(hide_password=True)

    def _with_schema(self, url: URL) -> URL:
        return url if self.schema == SCHEMA else url.update_query_dict({"schema": self.schema})


def is_postgres(url: str) -> bool:
    """Whether ``url`` is meant for this module."""
    return url.partition(":")[0].lower() in _SCHEMES and ":" in url


def parse(url: str) -> Address:
    """ConfigError, which never quotes the address, for one that cannot be a bank's."""
    form = f"write {_DRIVER}://user@host/database, with ?schema=NAME for another schema than {SCHEMA!r}"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"the bank's PostgreSQL address cannot be read; {form}") from None
    if not parsed.database or "\x00" in url:
        raise ConfigError(f"the bank's PostgreSQL address names no database; {form}")
    schema = parsed.query.get("schema", SCHEMA)
    if (
        not isinstance(schema, str)
        or not 0 < len(schema.encode(errors="replace")) < 64
        or not schema.isprintable()
        or schema.startswith("pg_")
    ):
        raise ConfigError("the schema of a PostgreSQL bank is one name of 1 to 63 bytes that does not begin with pg_")
    return Address(parsed.set(drivername=_DRIVER).difference_update_query(["schema"]), schema)
