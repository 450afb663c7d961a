"""``tacit bank``: banks as a whole, whichever database they are in.

Builds on the bank, when called.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from tacit.cli.common import JsonOption, counted, emit, emit_json

app = typer.Typer(no_args_is_help=True, help="Copy banks between SQLite and PostgreSQL.")

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
