"""``tacit compare``: methods x data x seeds x orders, and the table of them.

Builds on options and compare_config at import, on compare and its report when called.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tacit import registry
from tacit.cli.common import console, emit, emit_json, percent, show, table
from tacit.cli.options import Given, taking
from tacit.errors import ConfigError
from tacit.experiments.compare_config import CompareConfig, read

QUICK: dict[str, Any] = {"limit": 24, "window": 6, "seeds": (0,), "probes": False}
"""The small form: every method, minutes instead of an hour."""
SHORT = 40
"""Characters of a docstring's first sentence that says too little by itself."""


@taking(CompareConfig, read=read)
def compare(
    given: Given,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder; what is finished there is kept.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="24 problems, one seed: minutes.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print table.json (or the plan).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do and need.")] = False,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="For --dry-run: h100, h200, a100 ...")] = None,
    tokens_per_answer: Annotated[
        float | None, typer.Option(metavar="N", help="For --dry-run: mean length of an answer.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Only list methods and shipped comparisons.")] = False,
) -> None:
    """Compare methods on the same streams: accuracy with intervals, harm, and what each one spent.

    Every method has the same engine, template, sampler and scorer. --config takes a shipped comparison's name as well
    as a file. An interrupted comparison continues with the same command. Exits with 1 if a method failed on a whole
    stream.
    """
    if list_all:
        registry.load(given.flags.get("plugins", ()))
        _list(json_output)
        return
    more = {name: value for name, value in QUICK.items() if quick and name not in given.flags}
    plan = given.settings(CompareConfig(), **more)
    if dry_run:
        _dry_run(plan, gpu, tokens_per_answer, json_output)
        return
    if gpu is not None or tokens_per_answer is not None:
        raise ConfigError("--gpu and --tokens-per-answer are for --dry-run; leave them out, or add it")
    if out is None:
        raise ConfigError("--out DIR is missing: the folder for results (--dry-run and --list need none)")
    from tacit.experiments.compare import compare as run
    from tacit.experiments.report import comparison as comparison_report
    from tacit.experiments.report.cells import Cell
    from tacit.experiments.scoring import HELP, MOST

    began, screen, earlier, told = time.monotonic(), console(), 0, False

    def show(cell: Cell, record: dict[str, Any], done: int, total: int, kept: bool) -> None:
        nonlocal earlier, told
        earlier += kept
        left = ""
        if done < total and not kept:
            rate = (time.monotonic() - began) / (done - earlier)
            left = f", about {rate * (total - done) / 60:.0f} min left"
        state = f"{record['seconds']:.0f} s" if record["status"] == "done" else f"FAILED: {record['error']}"
        state += ", kept" if kept else ""
        if (share := (record.get("unanswered") or {}).get("share")) and share > MOST:
            state += f", {percent(share)} of the responses without an answer" + (f" (try {HELP})" if not told else "")
            told = True
        name = f"{cell.label} on {cell.data}, {cell.order}, seed {cell.seed}"
        screen.print(f"{done} of {total}: {name}: {state}{left}", soft_wrap=True, highlight=False, markup=False)

    records = run(plan, out, show, lambda line: screen.print(line, soft_wrap=True))
    table = comparison_report.write_comparison(out, records)
    if json_output:
        emit_json(table)
    else:
        emit(comparison_report.as_text(table))
        emit(f"{out / 'report.html'}")
    if table["failed"]:
        screen.print(f"failed, and counted as wrong: {', '.join(sorted(set(table['failed'])))}", soft_wrap=True)
        raise typer.Exit(1)


def _dry_run(plan: Any, gpu: str | None, tokens_per_answer: float | None, json_output: bool) -> None:
    from tacit.experiments.plan import dry_run

    figures = dry_run.dry_run(plan, gpu, tokens_per_answer)
    if json_output:
        emit_json(figures)
    else:
        emit(dry_run.as_text(figures))


def _list(json_output: bool) -> None:
    """Methods, with the first sentence of what they say of themselves, and the comparisons that are shipped."""
    from tacit.experiments.compare_config import shipped

    methods = {name: _says(registry.get("method", name)) for name in sorted(registry.names("method"))}
    if json_output:
        emit_json({"methods": methods, "comparisons": shipped()})
        return
    for title, entries in (("methods", methods), ("comparisons, for --config", shipped())):
        listed = table((title, "what it does"))
        for name, text in entries.items():
            listed.add_row(name, text.replace("``", "`"))
        show(listed)


def _says(method: type[Any]) -> str:
    """The first sentence of a method's docstring; a short one behind the title of its module."""
    said, _, _ = " ".join((method.__doc__ or "").split()).partition(". ")
    if len(said) > SHORT:
        return said.rstrip(".")
    title, _, _ = (sys.modules[method.__module__].__doc__ or "").partition(":")
    title = title.partition(". ")[0].partition(" (")[0].strip()
    return f"{title}: {said[:1].lower()}{said[1:]}".rstrip(".")
