"""``tacit compare``: methods x data x seeds x orders, and the table of them.

Builds on compare and comparison_report when called. Flags override the TOML file; what settings mean is said in
compare_config.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tacit.cli.common import console, emit, emit_json
from tacit.errors import ConfigError

QUICK: dict[str, Any] = {"limit": 24, "window": 6, "seeds": (0,), "probes": False}
"""The small form: every method, minutes instead of an hour."""
SHORT = 40
"""Characters of a docstring's first sentence that says too little by itself."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise ConfigError(f"--seeds is {text!r}; give whole numbers, as in 0,1,2") from None


def compare(
    *,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder; what is finished there is kept.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE.toml", help="A file, or a shipped one's name.")] = None,
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="Default: all methods.")] = None,
    data: Annotated[str | None, typer.Option(metavar="A,B", help="Default: testbed:A,testbed:B.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="Default: 0,1,2.")] = None,
    orders: Annotated[str | None, typer.Option(metavar="A,B", help="shuffled, blocked, reversed.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Problems per stream; default 60, 0: all.")] = None,
    window: Annotated[int | None, typer.Option(metavar="W", help="Problems per window; default 12.")] = None,
    jobs: Annotated[int | None, typer.Option(metavar="J", help="Processes; default 2.")] = None,
    model: Annotated[str | None, typer.Option(metavar="testbed|PATH|HUBID", help="A causal language model.")] = None,
    reward_model: Annotated[str | None, typer.Option(metavar="PATH|HUBID", help="A process reward model.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="TYPE", help="float32, bfloat16, float16.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 ...")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Most new tokens per answer.")] = None,
    method_file: Annotated[str | None, typer.Option(metavar="FILE.py", help="Registers methods of your own.")] = None,
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

    Every method has the same engine, template, sampler and scorer. An interrupted comparison continues with the same
    command. Exits with 1 if a method failed on a whole stream.
    """
    from tacit.experiments.compare_config import CompareConfig, load

    if list_all:
        _list(method_file, json_output)
        return
    plan = load(config) if config else CompareConfig()
    given: dict[str, Any] = dict(QUICK) if quick else {}
    lists = {"methods": methods, "data": data, "orders": orders}
    given |= {name: _words(value) for name, value in lists.items() if value is not None}
    if seeds is not None:
        given["seeds"] = _numbers(seeds)
    plain = {
        "limit": limit,
        "window": window,
        "jobs": jobs,
        "model": model,
        "reward_model": reward_model,
        "dtype": dtype,
        "device": device,
    }
    given |= {name: value for name, value in plain.items() if value is not None}
    if max_tokens is not None:
        given["sampling"] = replace(plan.sampling, max_tokens=max_tokens)
    if method_file is not None:
        given["files"] = (*plan.files, method_file)
    plan = replace(plan, **given)
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

    began, screen, earlier = time.monotonic(), console(), 0

    def show(cell: Cell, record: dict[str, Any], done: int, total: int, kept: bool) -> None:
        nonlocal earlier
        earlier += kept
        left = ""
        if done < total and not kept:
            rate = (time.monotonic() - began) / (done - earlier)
            left = f", about {rate * (total - done) / 60:.0f} min left"
        state = f"{record['seconds']:.0f} s" if record["status"] == "done" else f"FAILED: {record['error']}"
        state += ", kept" if kept else ""
        name = f"{cell.label} on {cell.data}, {cell.order}, seed {cell.seed}"
        screen.print(f"{done} of {total}: {name}: {state}{left}", soft_wrap=True, highlight=False, markup=False)

    records = run(plan, out, show)
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


def _list(method_file: str | None, json_output: bool) -> None:
    """Methods, with the first sentence of what they say of themselves, and the comparisons that are shipped."""
    from tacit.experiments.compare_config import shipped
    from tacit.methods import base

    if method_file is not None:
        base.load_file(method_file)
    methods = {name: _says(base.get(name)) for name in base.names()}
    if json_output:
        emit_json({"methods": methods, "comparisons": shipped()})
        return
    for title, entries in (("methods", methods), ("comparisons, for --config", shipped())):
        width = max((len(name) for name in entries), default=0)
        emit(f"{title}:")
        for name, text in entries.items():
            emit(f"  {name:{width}}  {text}")


def _says(method: type[Any]) -> str:
    """The first sentence of a method's docstring; a short one behind the title of its module."""
    said, _, _ = " ".join((method.__doc__ or "").split()).partition(". ")
    if len(said) > SHORT:
        return said.rstrip(".")
    title, _, _ = (sys.modules[method.__module__].__doc__ or "").partition(":")
    title = title.partition(". ")[0].partition(" (")[0].strip()
    return f"{title}: {said[:1].lower()}{said[1:]}".rstrip(".")
