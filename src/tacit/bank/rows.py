"""Rows that are not as Tacit writes them: SQLite keeps any value in any column, so a file with the right tables can say
anything. Builds on schema and checks. What is read all the time relies on what is looked at here once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Double, Integer, LargeBinary, Text

from tacit.bank import schema
from tacit.checks.values import parse_json
from tacit.errors import MemoryFormatError

MOST = 2**62  # no number or count is larger; the counters of a memory may be, and are checked with it
_KINDS = {Text: "text", Integer: "integer", BigInteger: "integer", Double: "real", LargeBinary: "blob"}

_WRONG = {"keys": "length(key) <> 4 * dim", "memories": "position NOT IN (SELECT position FROM history)"}

_MARKS: dict[str, Any] = {
    "binding": {"": ""},
    "evidence": {"problems": [""], "keys": {"": 0}},
    "quarantine": {"": 0},
    "promotion": {"": 0},
    "drift": {"usual": 0.0, "behind": 0.0, "won": 0.0, "problems": 0, "last": 0, "reach": 0.0, "told?": 0, "back?": 0},
    "tending": {"by": "", "until": 0.0},
    "tendings": {"entries": [{"name": "", "position": 0, "problems": 0}], "past": 0},
}  # what the notes of the bank are like, by how their names begin; "" stands for any key; one with ? may be missing


def odd(connection: Connection) -> Iterator[tuple[str, int]]:
    """Table and rowid of every row that is not as Tacit writes it; row 0 for one that is missing."""
    tests = {table.name: " OR ".join(map(_is_odd, table.columns)) for table in schema.metadata.sorted_tables}
    tests["sqlite_sequence"] = f"typeof(seq) <> 'integer' OR seq NOT BETWEEN 0 AND {MOST}"
    for name, test in tests.items():
        where = f"{test} OR {_WRONG[name]}" if name in _WRONG else test
        yield from ((name, row) for (row,) in connection.exec_driver_sql(f"SELECT rowid FROM {name} WHERE {where}"))
    if not connection.exec_driver_sql("SELECT one FROM bank").first():
        yield "bank", 0
    marks = connection.exec_driver_sql("SELECT rowid, name, value FROM marks")
    yield from (("marks", row) for row, name, value in marks if _is_bad(name, value))


def _is_odd(column: Column[Any]) -> str:
    kind = _KINDS[type(column.type)]
    kinds = f"('{kind}', 'null')" if column.nullable else f"('{kind}')"
    test = f"typeof({column.name}) NOT IN {kinds}"
    if kind == "integer" and column.table is not schema.counters:
        test += f" OR {column.name} NOT BETWEEN -{MOST} AND {MOST}"
    return f"{test} OR abs({column.name}) = 9e999" if kind == "real" else test  # any time or share but the infinite


def _is_bad(name: str, value: str) -> bool:
    model = _MARKS.get(str(name).partition(":")[0])
    try:
        return model is not None and not _like(parse_json(value, name), model)
    except (MemoryFormatError, TypeError):
        return True


def _like(value: Any, model: Any) -> bool:
    if type(value) is not type(model):
        return False
    if isinstance(model, list):
        return all(_like(one, model[0]) for one in value)
    if isinstance(model, dict):
        for name, one in value.items():
            if not _like(one, model.get(name, model.get(f"{name}?", model.get("", one)))):
                return False
        return all(name in value for name in model if name and not name.endswith("?"))
    return True
