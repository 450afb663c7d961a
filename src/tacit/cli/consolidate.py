"""``tacit consolidate``: one memory for several that are alike, where it does no worse.

Builds on config at import, on runner and consolidation when called.
"""

from __future__ import annotations

from typing import Annotated

import typer

from tacit.cli.common import BankOption, JsonOption, NamespaceOption, emit, emit_json, opened_bank
from tacit.cli.run import LEARN, RECALL, RUN, SAMPLING, DeviceOption, DtypeOption, ModelOption, SeedOption
from tacit.config import LearnConfig, RecallConfig, RunConfig, Sampling


def consolidate(
    *,
    bank: BankOption,
    model: ModelOption = RUN.model,
    namespace: NamespaceOption = RUN.namespace,
    near: Annotated[float, typer.Option(metavar="X", help="Least similarity to the first of a cluster.")] = 0.8,
    least: Annotated[int, typer.Option(metavar="N", help="Fewest memories of a cluster.")] = 3,
    most: Annotated[int, typer.Option(metavar="N", help="Most memories of a cluster.")] = 6,
    steps: Annotated[int, typer.Option(metavar="N", help="Learning steps of the whole.")] = LEARN.steps,
    lr: Annotated[float, typer.Option(metavar="X", help="Learning rate: as in the run.")] = LEARN.lr,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens per answer.")] = SAMPLING.max_tokens,
    key: Annotated[str, typer.Option(metavar="KIND", help="last, input, hidden, kv: as in the run.")] = RECALL.key,
    seed: SeedOption = RUN.seed,
    device: DeviceOption = RUN.device,
    dtype: DtypeOption = RUN.dtype,
    json: JsonOption = False,
) -> None:
    """Train one memory for several that are alike and do each other's work; keep it if it does no worse.

    Its parts are retired, not deleted: `tacit memories activate` brings them back.
    """
    from tacit.experiments.run import build_agent, set_threads
    from tacit.methods.consolidation import consolidate as work

    config = RunConfig(
        model=model,
        bank=bank,
        seed=seed,
        namespace=namespace,
        verifier="none",
        device=device,
        dtype=dtype,
        sampling=Sampling(max_tokens=max_tokens),
        learn=LearnConfig(steps=steps, lr=lr),
        recall=RecallConfig(key=key),
    )
    set_threads(config)
    with opened_bank(bank, create=False) as opened:
        done = work(build_agent(config, opened), near=near, least=least, most=most)
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
