"""``tacit consolidate``: one memory for several that are alike, where it does no worse.

Builds on options at import, on assembly and methods.consolidation when called.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tacit.cli.common import BankOption, JsonOption, emit, emit_json, opened_bank
from tacit.cli.options import Given, taking
from tacit.cli.run import OF_A_STREAM
from tacit.config import RunConfig


@taking(RunConfig, leave_out=(*OF_A_STREAM, "bank", "verifier", "reward_model"))
def consolidate(
    given: Given,
    bank: BankOption,
    near: Annotated[float, typer.Option(metavar="X", help="Least similarity to the first of a cluster.")] = 0.8,
    least: Annotated[int, typer.Option(metavar="N", help="Fewest memories of a cluster.")] = 3,
    most: Annotated[int, typer.Option(metavar="N", help="Most memories of a cluster.")] = 6,
    json: JsonOption = False,
) -> None:
    """Train one memory for several that are alike and do each other's work; keep it if it does no worse.

    Its parts are retired, not deleted: `tacit memories activate` brings them back.
    """
    from tacit.assembly import as_bound, assembled
    from tacit.methods.consolidation import consolidate as work

    config = given.settings(RunConfig(verifier="none"), bank=bank)
    with opened_bank(bank, create=False) as opened:
        config = given.settings(as_bound(config, opened, [config.namespace]))
        with assembled(config, opened) as agent:
            done = work(agent, near=near, least=least, most=most)
    if json:
        emit_json(
            [
                {
                    "memory_id": one.memory.id,
                    "kept": one.kept,
                    "parts": list(one.parts),
                    "whole": one.whole,
                    "apart": one.apart,
                    "tokens": one.tokens,
                }
                for one in done
            ]
        )
        return
    for one in done:
        what = f"{one.memory.id} takes the place of" if one.kept else "not kept, for"
        emit(f"{what} {len(one.parts)} memories: right by their labels {one.whole:.2f}, they {one.apart:.2f}")
    if not done:
        emit("no new cluster of memories that do each other's work")
