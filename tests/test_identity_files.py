"""Names that others rely on: tables, fields of files, routes with their fields, commands with their options.

The values lie in ``tests/golden``; ``TACIT_GOLDEN=write`` writes them anew (see frozen.py). Texts for people (help,
descriptions, reports) are no part of them and may be improved. A new field or option is an addition: read the
difference, see that nothing went, and write the file anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from frozen import merged, same, shape
from server import InProcess
from tacit.bank import open_bank
from tacit.bank.postgres.schema import _MARK, _migrate
from tacit.bank.schema import MIGRATIONS, metadata
from tacit.cli.main import app
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling
from tacit.experiments.compare import Cell, compare, run_cell
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.report.comparison import write_comparison
from tacit.experiments.run import run
from tacit.experiments.run_folder import FREE, SETTLED

LEARN = LearnConfig(tokens=8, distil=0, steps=2, rollouts=4, min_votes=1, min_lead=1, admit=0.1, enough=2.0)
SAMPLING, RECALL = Sampling(samples=4), RecallConfig(floor=-1.0)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


# -- tables -----------------------------------------------------------------------------------------------------------


def test_tables_of_sqlite(tmp_path: Path) -> None:
    open_bank(str(tmp_path / "bank.sqlite")).close()
    connection = sqlite3.connect(tmp_path / "bank.sqlite")
    found = {
        "version": connection.execute("PRAGMA user_version").fetchone()[0],
        "application": connection.execute("PRAGMA application_id").fetchone()[0],
        "sql": {
            f"{kind} {name}": " ".join(sql.split())
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL")
        },
    }
    connection.close()
    same("sqlite", found)
    assert found["version"] == len(MIGRATIONS)


class Listening:
    """A connection that notes statements and finds nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def exec_driver_sql(self, statement: str) -> None:
        self.said.append(" ".join(statement.split()))

    def execute(self, *_: Any) -> Listening:
        return self

    def scalars(self) -> Iterator[str]:
        return iter(())

    def first(self) -> None:
        return None


def test_tables_of_postgresql() -> None:
    connection = Listening()
    _migrate(connection, "public", "the bank", True)  # type: ignore[arg-type]
    same("postgresql", {"version": len(MIGRATIONS), "mark": _MARK, "statements": connection.said})


def test_columns_that_queries_use() -> None:
    same("columns", {name: {c.name: str(c.type) for c in table.columns} for name, table in metadata.tables.items()})


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run in which every arm has something to say."""
    out = tmp_path_factory.mktemp("files") / "run"
    every = ("icl", "random", "verified", "majority")
    run(
        RunConfig(
            out=str(out), seed=2, limit=6, window=2, baselines=every, learn=LEARN, sampling=SAMPLING, recall=RECALL
        )
    )
    return out


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A tiny comparison, its cells made in this process, and its table."""
    out = tmp_path_factory.mktemp("files") / "comparison"
    plan = CompareConfig(
        data=("testbed:A",),
        methods=("zero-shot", "elm"),
        seeds=(3,),
        limit=4,
        window=2,
        jobs=1,
        learn=LEARN,
        sampling=SAMPLING,
        recall=RECALL,
    )
    for label in plan.labels():
        run_cell(plan, Cell(label, "testbed:A", "shuffled", 3), out)
    return out, write_comparison(out, compare(plan, out))


def test_fields_of_a_run(run_folder: Path) -> None:
    found = {
        "run.json": shape(json.loads((run_folder / "run.json").read_text())),
        "summary.json": shape(json.loads((run_folder / "summary.json").read_text())),
        "results.jsonl": merged(shape(row) for row in lines(run_folder / "results.jsonl")),
        "files": sorted(file.name for file in run_folder.iterdir()),
        "free": sorted(FREE),
        "settled": SETTLED,
    }
    same("run_fields", found)


def test_provenance_of_its_memories(run_folder: Path) -> None:
    with open_bank(str(run_folder / "bank.sqlite"), create=False) as bank:
        memories = [bank.get(info.id, "default") for info in bank.find("default")]
        assert memories
        same("provenance_fields", merged(shape(memory.provenance) for memory in memories))


def test_fields_of_a_comparison(comparison: tuple[Path, dict[str, Any]]) -> None:
    out, table = comparison
    assert json.loads((out / "table.json").read_text()) == json.loads(json.dumps(table))
    cells = sorted(out.glob("cells/*/*/*"))
    same(
        "comparison_fields",
        {
            "cells": [cell.relative_to(out).as_posix() for cell in cells],
            "files": sorted({file.name for cell in cells for file in cell.iterdir()}),
            "cell.json": merged(shape(json.loads((cell / "cell.json").read_text())) for cell in cells),
            "rows.jsonl": merged(shape(row) for cell in cells for row in lines(cell / "rows.jsonl")),
            "probes.jsonl": merged(shape(row) for cell in cells for row in lines(cell / "probes.jsonl")),
            "table.json": shape(table),
        },
    )


# -- routes -----------------------------------------------------------------------------------------------------------


def contract(value: Any) -> Any:
    """An OpenAPI description without its texts for people."""
    if isinstance(value, dict):
        texts = ("description", "summary")
        return {k: contract(v) for k, v in value.items() if not (k in texts and isinstance(v, str))}
    return [contract(item) for item in value] if isinstance(value, list) else value


def test_routes_of_the_server(tmp_path: Path) -> None:
    server = InProcess(tmp_path / "bank.sqlite", verifier="vote")
    try:
        described = server.anyone().get("/openapi.json")
        assert described.status_code == 200
        same("openapi", contract(described.json()))
    finally:
        server.service.close()


# -- commands ---------------------------------------------------------------------------------------------------------


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, inner in sorted(getattr(command, "commands", {}).items()):
        yield from commands(inner, f"{name} {word}")


def plain(value: Any) -> Any:
    if callable(value):
        return "made when asked for"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def parameter(one: Any) -> dict[str, Any]:
    """What a user may type for it, without its help."""
    kind = one.type_descriptor.annotation if hasattr(one, "type_descriptor") else one.type.name
    return {
        "names": sorted(one.opts),
        "off": sorted(one.secondary_opts),
        "type": kind.__name__ if isinstance(kind, type) else str(kind),
        "metavar": one.metavar,
        "default": plain(one.default),
        "required": one.required,
        "multiple": one.multiple,
        "nargs": one.nargs,
        "flag": getattr(one, "is_flag", False),
        "environment": one.envvar,
        "hidden": getattr(one, "hidden", False),
    }


def test_commands_and_their_options() -> None:
    found = {
        name: {
            "arguments": [one.name for one in command.params if one.param_type_name == "argument"],
            "parameters": {one.name: parameter(one) for one in command.params},
        }
        for name, command in commands(typer.main.get_command(app), "tacit")
    }
    same("commands", found)
