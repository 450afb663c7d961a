"""``tacit serve``: the memory behind OpenAI's API, learning in the background.

Builds on options and the server's settings, and on server.run, imported late; see there for what happens.
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from tacit.cli.common import BankOption, console
from tacit.cli.options import Given, taking
from tacit.errors import needed
from tacit.server.settings import Limits, ServeConfig


@taking(ServeConfig, leave_out=("learner", "bank"))
def serve(
    given: Given,
    bank: BankOption = ServeConfig.bank,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Run the learner's process.", rich_help_panel="Learning")
    ] = True,
    max_in_flight: Annotated[
        int, typer.Option(metavar="N", help="Requests being answered at once; further ones get a 429.")
    ] = Limits().in_flight,
) -> None:
    """Serve a model and its memories behind OpenAI's API; learn from the traffic that may be learned from.

    Clients ask NAME for the plain model and NAME:tacit for the one with memory. Without an API key (tacit keys create)
    it listens to this machine alone. A bank knows how its memories are asked for: instruction and key need not be said.
    """
    needed("serve", "tacit serve", "fastapi", "uvicorn", "prometheus_client")
    from tacit.server import run

    limits = Limits(in_flight=max_in_flight, waiting=max_in_flight)
    config = given.settings(ServeConfig(learner=learn, limits=limits), bank=bank)
    config = given.settings(run.as_bound(config), bank=bank)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    screen = console()
    run.serve(config, lambda line: screen.print(line, soft_wrap=True))
