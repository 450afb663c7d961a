"""``tacit bank``: banks as a whole, whichever database they are in: copied, tended, and summed up.

Builds on the bank, when called.
"""

from __future__ import annotations

import sys
import time
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from tacit.cli.common import (
    DEFAULT_NAMESPACE,
    JsonOption,
    NamespaceOption,
    console,
    counted,
    emit,
    emit_json,
    one_line,
    opened_bank,
    show,
    table,
)
from tacit.errors import ConfigError

if TYPE_CHECKING:
    from tacit.bank.tending.plan import Rule
    from tacit.bank.tending.work import Tended

app = typer.Typer(
    no_args_is_help=True, help="Copy banks between SQLite and PostgreSQL; tend one, and see what it holds."
)

PAUSE = 10.0
"""Seconds between lines of progress where there is no terminal."""


@app.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Address of the bank to copy.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Address of an empty bank, or where one is to be made.")],
    json: JsonOption = False,
) -> None:
    """Copy a bank whole, in order, into another one, and compare the two. The same command goes on where it ended."""
    from tacit.bank import copy_bank, shown_address

    meter = _Meter()
    try:
        copied = copy_bank(source, target, progress=meter)
    finally:
        meter.end()
    if json:
        emit_json({"memories": copied.memories, "stored": copied.stored, "already": copied.already})
        return
    kept = "was there already" if copied.already else f"{copied.stored} of them copied now"
    memories = counted(copied.memories, "memory", "memories")
    emit(f"{shown_address(target)} holds the {memories} of {shown_address(source)}, verified ({kept})")


@app.command("tend")
def tend(
    bank: Annotated[str, typer.Argument(metavar="BANK", help="Address of the bank.")],
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; list what would go, and why.")] = False,
    keep: Annotated[int | None, typer.Option(metavar="N", help="Most active memories.")] = None,
    keep_bytes: Annotated[int | None, typer.Option(metavar="N", help="Most bytes of active memories.")] = None,
    near: Annotated[
        float | None,
        typer.Option(metavar="X", help="Near-duplicates: this share of the distance a quarter of pairs is within."),
    ] = None,
    idle: Annotated[
        int | None, typer.Option(metavar="N", help="Problems that come without a recall until a memory goes.")
    ] = None,
    undo_days: Annotated[
        float | None, typer.Option(metavar="X", help="Days until what went is deleted by a later tending.")
    ] = None,
    undo: Annotated[
        str | None, typer.Option(metavar="WHEN|last|ID", help="Bring back what that tending took, or went with ID.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Take harmful, useless and doubled memories out of use, and what is over a budget; or undo that.

    See docs/how-to.md, "Keep a bank small and good", for the rules and their defaults.
    """
    from tacit.bank.tending import work
    from tacit.bank.tending.plan import Rule

    given = {"keep": keep, "keep_bytes": keep_bytes, "near": near, "idle": idle}
    said = {name: value for name, value in {**given, "undo_days": undo_days}.items() if value is not None}
    if undo is not None and (said or dry_run):
        raise ConfigError("--undo brings back a tending as it was; give it without --dry-run and rules")
    rule = Rule(**said)  # type: ignore[arg-type]
    with opened_bank(bank, create=False) as opened:
        if undo is not None:
            name, count = work.undo(opened, namespace, undo)
            if json:
                emit_json({"undone": name, "memories": count})
            else:
                emit(f"{counted(count, 'memory', 'memories')} of tending {name} are as they were before it")
            return
        done = work.tend(opened, namespace, rule, dry_run=dry_run)
    if json:
        _show_json(done, dry_run)
    else:
        _show(done, rule, dry_run)


@app.command("stats")
def stats(
    bank: Annotated[str, typer.Argument(metavar="BANK", help="Address of the bank.")],
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    json: JsonOption = False,
) -> None:
    """Show a bank's kinds of memories: how many, how old, how used, their gain; what tending did and would do.

    A kind is what tending would take for near-duplicates if it looked less closely.
    """
    from rich.text import Text

    from tacit.bank.tending import stats, work

    with opened_bank(bank, create=False) as opened:
        found = stats.kinds(opened, namespace)
        did = work.ledger_of(opened, namespace)["entries"]
        plan = work.tend(opened, namespace, dry_run=True).plan
    if json:
        emit_json({"kinds": found, "tendings": did, "would": {"causes": plan.causes(), "active": plan.active}})
        return
    numbers = ("memories", "active", "age", "uses", "helped", "hurt", "gain", "tended", "would go")
    wide = console(sys.stdout).width >= 110
    kept = [name for name in numbers if wide or name not in ("active", "age", "helped", "tended")]
    listed = table(("kind", *kept, "problem"), kept, no_wrap=True)
    for one in found:
        age = "-" if one["age"] is None else "{}-{}".format(*one["age"])
        gain = "-" if one["gain"] is None else f"{one['gain']:+.0%}"
        counts = (len(one["memories"]), one["states"].get("active", 0), age, one["uses"], one["helped"], one["hurt"])
        numbered = dict(zip(numbers, map(str, (*counts, gain, one["tended"], one["would_go"])), strict=True))
        problem = Text(one_line(one["problem"])[:40], no_wrap=True, overflow="ellipsis")
        listed.add_row(one["memories"][0][:12], *(numbered[name] for name in kept), problem)
    memories = counted(sum(len(one["memories"]) for one in found), "memory", "memories")
    said = f"{memories} of {counted(len(found), 'kind', 'kinds')} in namespace {namespace!r}; ages in problems"
    show(*([listed] if found else []), said)
    for one in did[-5:]:
        causes = ", ".join(f"{count:,} {cause}" for cause, count in one["retired"].items()) or "nothing"
        emit(f"tended {one['name']}: {causes}" + ("; undone" if "undone" in one else ""))
    emit(f"tending now would leave {plan.active[1]:,} of {plan.active[0]:,} active memories")


def _show_json(done: Tended, dry_run: bool) -> None:
    plan = done.plan
    emit_json(
        {
            "name": None if dry_run else done.name,
            "causes": plan.causes(),
            "active": plan.active,
            "bytes": plan.size,
            "expected_benefit_kept": plan.kept,
            "deleted": done.freed,
            "file_bytes_given_back": done.shrunk,
            "memories": [{"id": one.id, "state": str(one.state), "why": one.why} for one in plan.gone],
        }
    )


def _show(done: Tended, rule: Rule, dry_run: bool) -> None:
    plan = done.plan
    for one in plan.gone if dry_run else ():
        emit(f"{one.id}, {one.state}\n{fill(one_line(one.why), 80, initial_indent='  ', subsequent_indent='  ')}")
    causes = ", ".join(f"{count:,} {cause}" for cause, count in plan.causes().items()) or "nothing"
    emit(f"{'would go' if dry_run else 'gone':<10} {causes}")
    emit(f"{'active':<10} {plan.active[0]:,} before, {plan.active[1]:,} after")
    emit(f"{'bytes':<10} {plan.size[0]:,} before, {plan.size[1]:,} after")
    emit(f"{'benefit':<10} {plan.kept:.1%} of what is expected is left by the budget")
    what = "would be deleted" if dry_run else f"deleted, the file gave back {done.shrunk:,} bytes"
    emit(f"{'deleted':<10} {done.freed:,} of earlier tendings {what}")
    if plan.gone and not dry_run:
        emit(f"{'undo':<10} tacit bank tend BANK --undo {done.name}, within {rule.undo_days:g} days")


class _Meter:
    """Says on stderr how far a copy is: in place on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.last = time.monotonic()
        self.open = False

    def __call__(self, doing: str, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.last < (0.1 if self.terminal else PAUSE) and not (self.terminal and done == of):
            return
        self.last = now
        sys.stderr.write(f"\r\033[K{doing} {done:,} of {of:,}" if self.terminal else f"{doing} {done:,} of {of:,}\n")
        sys.stderr.flush()
        self.open = self.terminal

    def end(self) -> None:
        if self.open:
            sys.stderr.write("\n")
