"""``tacit serve``: the memory behind OpenAI's API, learning in the background.

Builds on server.run, imported late; see there for what happens.
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from tacit.cli.common import BankOption, console
from tacit.config import LearnConfig, RecallConfig, Sampling, addresses_of
from tacit.errors import needed
from tacit.server.settings import Limits, ServeConfig

LEARNING = "Learning"
LEARN, RECALL, SAMPLING = LearnConfig(), RecallConfig(), Sampling()


def serve(
    model: Annotated[str, typer.Option(metavar="NAME", help="testbed, a folder, or a Hub id.")] = "testbed",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What clients call the model; NAME:tacit remembers.")
    ] = None,
    bank: BankOption = "tacit.sqlite",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 for any free one.")] = 8000,
    instruction: Annotated[
        str, typer.Option(metavar="TEXT", help="Appended to the last user message; belongs to the model's fingerprint.")
    ] = "",
    verifier: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="reward-model, vote, logprob or none; default: the best there is."),
    ] = None,
    reward_model: Annotated[
        str | None, typer.Option(metavar="PATH|HUBID", help="For the verifier reward-model.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Most new tokens in learning, and of requests that name no number.")
    ] = SAMPLING.max_tokens,
    floor: Annotated[float, typer.Option(metavar="X", help="Least similarity of a recalled memory.")] = RECALL.floor,
    key: Annotated[str, typer.Option(metavar="KIND", help="Kind of key that memories are found by.")] = RECALL.key,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Run the learner's process.", rich_help_panel=LEARNING)
    ] = True,
    learner_threads: Annotated[int, typer.Option(metavar="N", help="Its threads.", rich_help_panel=LEARNING)] = 1,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps a memory.", rich_help_panel=LEARNING)] = LEARN.steps,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all learning.", rich_help_panel=LEARNING)] = 0,
    max_in_flight: Annotated[
        int, typer.Option(metavar="N", help="Requests being answered at once; further ones get a 429.")
    ] = Limits().in_flight,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads of the engine.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "float32",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", metavar="URL", help="A vLLM server that samples, http://HOST:PORT/v1; may be repeated."
        ),
    ] = None,
) -> None:
    """Serve a model and its memories behind OpenAI's API; learn from the traffic that may be learned from.

    Clients ask NAME for the plain model and NAME:tacit for the one with memory. Without an API key (tacit keys create)
    it listens to this machine alone.
    """
    needed("serve", "tacit serve", "fastapi", "uvicorn", "prometheus_client")
    from tacit.server import run

    config = ServeConfig(
        model=model,
        name=name,
        bank=bank,
        host=host,
        port=port,
        seed=seed,
        instruction=instruction,
        verifier=verifier,
        reward_model=reward_model,
        learner=learn,
        learner_threads=learner_threads,
        threads=threads,
        device=device,
        dtype=dtype,
        engine=addresses_of(engine),
        limits=Limits(in_flight=max_in_flight, waiting=max_in_flight),
        sampling=Sampling(max_tokens=max_tokens),
        learn=LearnConfig(steps=steps),
        recall=RecallConfig(floor=floor, key=key),
    )
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    screen = console()
    run.serve(config, lambda line: screen.print(line, soft_wrap=True))
