"""Run a comparison: every method on every stream, each in a cell of its own, resumable, with failures kept.

Builds on compare_config, the methods and scoring. A cell is (label, data, order, seed). Its folder gets rows.jsonl,
probes.jsonl and, last and at once, cell.json; a cell without cell.json is done again, from the start and with the same
result. A problem on which a method fails is wrong, not missing; so is every problem of a cell that fails.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.util
import os
import re
import resource
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from tacit import registry
from tacit.assembly import build_verifier, load_backbone, open_engine, set_threads, task_of
from tacit.config import TESTBED, Settings, filled
from tacit.engines.base import METER, Engine
from tacit.errors import ConfigError, TacitError
from tacit.experiments.compare_config import CompareConfig
from tacit.experiments.report.cells import Cell
from tacit.experiments.run_folder import PARTS, completed, not_ours, write_atomically
from tacit.experiments.scoring import Grader, Truths, asked, counted, readable
from tacit.experiments.streams import fresh, labelled, load, ordered, same
from tacit.judges.verifiers import Verifier
from tacit.methods.base import Method, Reply, World
from tacit.model import presets
from tacit.problem import Problem
from tacit.seeds import generator

Row = dict[str, Any]
REPLAYED = 24
"""Problems of the stream that are answered again at its end."""
PROBES = 24
"""Fresh problems of each data source answered at the end of a stream."""

Progress = Callable[[Cell, dict[str, Any], int, int, bool], None]
"""(cell, its cell.json, cells done, cells in all, whether it was done by an earlier call)."""


def compare(
    config: CompareConfig, out: str | Path, progress: Progress | None = None, tell: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Run all cells that are not done yet; returns every cell's record, in the order of the table. ``tell`` is called
    with a line where something was chosen for the model because nobody said it.

    Raises:
        ConfigError: a setting, or a folder with cells of another plan.
    """
    folder = Path(out)
    cells = [
        Cell(label, data, order, seed)
        for label in config.labels()
        for data in config.data
        for order in config.orders
        for seed in config.seeds
    ]
    tasks = set()
    for data in config.data:  # a missing file is told now, not cell by cell
        found = load(config, data, config.seeds[0], config.limit)
        tasks.add(found.task)
        for order in config.orders:
            ordered(found, order, data)
    for data in config.training.values():
        load(config, data, config.seeds[0], 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); choose another --out") from None
    not_ours(folder, "cells", "table.json", "report.html")
    config = _fit(config, tasks, tell)

    @cache
    def stream(data: str, order: str, seed: int) -> list[Problem]:
        return ordered(load(config, data, seed, config.limit), order, data)

    done = {cell: record for cell in cells if (record := finished(cell, config, folder, stream))}
    for number, (cell, record) in enumerate(done.items(), start=1):
        if progress:
            progress(cell, record, number, len(cells), True)
    # Slow cells first would be better balanced, but seeds side by side let a reader look at full rows early.
    todo = [cell for cell in cells if cell not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.jobs, mp_context=context, initializer=_die_with_parent) as pool:
        running = {pool.submit(run_cell, config, cell, folder): cell for cell in todo}
        try:
            while running:
                ready, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    cell = running.pop(future)
                    done[cell] = future.result()
                    if progress:
                        progress(cell, done[cell], len(done), len(cells), False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [done[cell] for cell in cells]


def _fit(config: CompareConfig, tasks: set[str], tell: Callable[[str], None] | None) -> CompareConfig:
    """A comparison in which nothing is unsaid: the model is loaded for it, unless it is the testbed or all is said."""
    config = presets.known(config)
    if all(filled(part, TESTBED) is part for part in (config.sampling, config.learn, config.recall)):
        return config
    asked = config.task or (min(tasks) if len(tasks) == 1 else None)
    backbone = load_backbone(replace(config, task=asked, device="cpu"))
    config = presets.fit(config, backbone)
    if tell:
        tell(presets.said(backbone, config.sampling, config.learn))
    return config


def _die_with_parent() -> None:
    """A killed comparison takes its workers along: an orphan would go on for hours, and write into a folder that the
    next one works in."""
    parent = multiprocessing.parent_process()

    def wait_for_the_end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def finished(
    cell: Cell, config: CompareConfig, out: Path, stream: Callable[[str, str, int], list[Problem]]
) -> dict[str, Any] | None:
    """The record of a cell that is done, None if it is not; ``stream`` of data, order and seed gives its problems.

    Raises:
        ConfigError: it was done with other settings, or on other problems.
    """
    file = cell.folder(out) / "cell.json"
    if not file.exists():
        return None
    asked_now = stream(cell.data, cell.order, cell.seed)
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        held = completed(record["settings"])
        alike = same(asked_now, file.parent)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{file} is damaged; delete its folder and run again") from None
    wanted = config.settings(cell.label)
    changed = sorted(name for name in {*held, *wanted} if held.get(name) != wanted.get(name))
    if changed:
        raise ConfigError(
            f"{file.parent} was made with another {', '.join(changed)}; choose another --out, or delete that folder"
        )
    if not alike:
        raise ConfigError(
            f"{file.parent} is of other problems than {cell.data} has now; choose another --out, or delete that folder"
        )
    return record


@lru_cache(maxsize=1)
def _engine(settings: Settings) -> Engine:
    """The engine with its model, kept from cell to cell of a process and closed at its end."""
    engine = open_engine(settings, load_backbone(settings))
    multiprocessing.util.Finalize(engine, engine.close, exitpriority=1)
    return engine


@lru_cache(maxsize=1)
def _verifier(settings: Settings) -> Verifier | None:
    return build_verifier(settings)


def run_cell(config: CompareConfig, cell: Cell, out: Path) -> dict[str, Any]:
    """Run one cell to its end and write it; never raises for what a method does."""
    registry.load(config.plugins)
    set_threads(config, products=True)
    method_class, settings, options = config.resolve(cell.label)
    settled = config.settings(cell.label)
    folder = cell.folder(out)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = load(config, cell.data, cell.seed, config.limit)
    config = replace(config, task=config.task or found.task)
    task = task_of(config)
    stream = ordered(readable(found, task, cell.data), cell.order, cell.data)
    training = labelled(config, cell, stream) if method_class.uses_labels else []
    # Learning settings are the method's; a method may have others without another engine.
    shared = Settings(**{part.name: getattr(config, part.name) for part in fields(Settings) if part.name not in PARTS})
    engine, verifier = _engine(shared), _verifier(shared)
    began, tokens, marks = time.perf_counter(), METER.tokens, _Watermark()
    rows: list[Row] = []
    probes: list[Row] = []
    record: dict[str, Any] = {**vars(cell), "method": method_class.name, "uses_labels": method_class.uses_labels}
    error = None
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            method = method_class(
                World(
                    engine.backbone,
                    engine,
                    cell.seed,
                    Path(scratch),
                    tuple(problem.blind() for problem in stream),
                    tuple(problem.blind() for problem in training),
                    Truths([*stream, *training], task) if method_class.uses_labels else None,
                    verifier,
                    settings.sampling,
                    settings.learn,
                    settings.recall,
                    options,
                    task,
                )
            )
            with contextlib.closing(method):
                method.prepare()
                record["tokens_prepare"] = METER.tokens - tokens
                record["seconds_prepare"] = time.perf_counter() - began
                apart = config.keeps_apart(method_class)
                while ahead := stream[len(rows) : len(rows) + config.window]:
                    rows += _window(method, len(rows), ahead, apart)
                if config.probes and method_class.probed:
                    probes = _probes(method, config, stream, cell)
                record |= {"trainable": method.trainable, "gradient_steps": method.gradient_steps}
        except Exception as problem:  # a method may fail in any way; the comparison goes on
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
            (folder / "error.txt").write_text(traceback.format_exc())
            held = {row["id"] for row in rows}
            rows += [
                _row(at, Grader(one, task), Reply((None,), None), failed=error)
                for at, one in enumerate(stream)
                if one.id not in held
            ]
    record |= {
        "n": len(rows),
        "status": "failed" if error else "done",
        "error": error,
        "unanswered": counted(map(asked, rows)),
        "tokens": METER.tokens - tokens,
        "seconds": time.perf_counter() - began,
        "peak_memory": marks.read(),
        "settings": settled,
    }
    _write(folder, rows, probes, record)
    return record


def _window(method: Method, start: int, problems: Sequence[Problem], apart: bool) -> list[Row]:
    """Answer, mark, learn, as many as are strangers if ``apart``. What fails alone, too, is wrong."""
    began, tokens = time.perf_counter(), METER.tokens
    if apart:
        try:
            problems = problems[: method.strangers([problem.blind() for problem in problems])]
        except TacitError:
            problems = problems[:1]  # what fails, fails alone
    blind = [problem.blind() for problem in problems]
    replies, failures = _answers(method, blind)
    answered = METER.tokens
    graders = {problem.id: Grader(problem, method.world.task) for problem in problems}
    rows = [
        _row(start + at, graders[problem.id], replies.get(problem.id, Reply((None,), None)), failures.get(problem.id))
        for at, problem in enumerate(problems)
    ]
    learnable = [problem for problem in blind if problem.id in replies]
    try:
        lessons = method.learn(learnable, [replies[problem.id] for problem in learnable])
    except TacitError as error:
        lessons = None
        for row in rows:
            row["notes"]["learning_failed"] = str(error)
    for problem, lesson in zip(learnable, lessons or (), strict=bool(lessons)):
        row = next(row for row in rows if row["id"] == problem.id)
        row["lesson"] = {
            "label": lesson.label,
            "label_correct": None if lesson.label is None else graders[problem.id].right(lesson.label),
            "kept": lesson.kept,
            "why": lesson.why,
            **lesson.notes,
        }
    for row in rows:
        row["tokens_answer"] = (answered - tokens) / len(rows)
        row["tokens_learn"] = (METER.tokens - answered) / len(rows)
        row["seconds"] = (time.perf_counter() - began) / len(rows)
    return rows


def _answers(method: Method, problems: Sequence[Problem]) -> tuple[dict[str, Reply], dict[str, str]]:
    try:
        return dict(zip((p.id for p in problems), method.answer(problems), strict=True)), {}
    except TacitError as error:
        if len(problems) == 1:
            return {}, {problems[0].id: str(error)}
    replies: dict[str, Reply] = {}
    failures: dict[str, str] = {}
    for problem in problems:
        one, failed = _answers(method, [problem])
        replies, failures = replies | one, failures | failed
    return replies, failures


def _row(position: int, grader: Grader, reply: Reply, failed: str | None = None) -> Row:
    def arm(answers: Sequence[str | None], greedy: str | None) -> Row:
        marked = grader.arm(answers, greedy, tokens=0)
        del marked["tokens"]
        return marked

    return {
        **grader.head(position),
        **arm(reply.answers, reply.greedy_answer),
        "failed": failed,
        "notes": dict(reply.notes),
        "arms": {name: arm(*answers) for name, answers in reply.arms.items()},
        "lesson": None,
    }


def _probes(method: Method, config: CompareConfig, stream: Sequence[Problem], cell: Cell) -> list[Row]:
    """With everything frozen: earlier problems again, and fresh ones of every source."""
    rng = generator(cell.seed, cell.data, "replay")
    chosen = sorted(rng.choice(len(stream), size=min(REPLAYED, len(stream)), replace=False))
    asked = [("replay", cell.data, [stream[at] for at in chosen])]
    asked += [("transfer", data, fresh(data, stream, cell.seed, PROBES, "probes")) for data in config.data]
    probes = []
    for kind, data, problems in asked:
        if kind == "transfer" and method.uses_labels:
            continue  # an oracle knows the stream and its training set, nothing else
        replies, failures = _answers(method, [problem.blind() for problem in problems]) if problems else ({}, {})
        for at, problem in enumerate(problems):
            row = _row(
                at,
                Grader(problem, method.world.task),
                replies.get(problem.id, Reply((None,), None)),
                failures.get(problem.id),
            )
            probes.append({"kind": kind, "learned": len(stream), "data": data, **row})
    return probes


class _Watermark:
    """Peak memory of this process since it was made, in bytes (on CUDA that of the device)."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int:
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            return int(torch.cuda.max_memory_allocated())
        with contextlib.suppress(OSError, AttributeError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            assert found is not None
            return int(found[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write(folder: Path, rows: Sequence[Row], probes: Sequence[Row], record: dict[str, Any]) -> None:
    for name, lines in (("rows.jsonl", rows), ("probes.jsonl", probes)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    write_atomically(folder / "cell.json", json.dumps(record, indent=2))
