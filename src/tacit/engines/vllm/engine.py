"""An engine on other machines: vLLM servers that are sent prompt embeddings.

Builds on backbone, the engine protocol, wire and pool. The model is also here, for embeddings, learning
and keys; the servers do the sampling. A memory is only another prompt, so nothing has to be synchronised: a server is
started once and never told of what is learned.

Which tokens are drawn. A server started with ``--logits-processors tacit.engines.vllm.draw:TacitDraws`` draws with
Tacit's random numbers: a rollout is then what ``LocalEngine`` draws for the same seed. The rare exception is a token
where float rounding decides. Other servers draw with numbers of their own from a seed each rollout brings: two servers
of one version and one hardware agree as far as batching changes no logits. vLLM promises that with
``VLLM_BATCH_INVARIANT=1`` alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from tacit.config import Settings
from tacit.engines.base import METER, Engine, Request, Rollout, check, greeting
from tacit.engines.vllm.pool import Pool, Server, address
from tacit.engines.vllm.session import VLLMSession
from tacit.engines.vllm.wire import ARGUMENTS, MOST_ALTERNATIVES, Growing, body, forced, pieces, prompt, rescored, whole
from tacit.errors import ConfigError, EngineError
from tacit.model.backbone import Backbone
from tacit.model.prompts import Prompt
from tacit.registry import register

T = TypeVar("T")

PROBED = 8
"""Tokens of a probe."""

NEAR = {torch.float32: 0.02}
"""Largest mean difference, in nats, between log-probs of a model here and at a server, where both compute in float32;
``ROUGHLY`` in other dtypes."""

ROUGHLY = 0.3


@dataclass(frozen=True)
class Ability:
    """What a server does besides sampling.

    Attributes:
        draws: with Tacit's random numbers.
        logprobs: what it reports: "raw" (of temperature 1 and of all tokens), "processed" (of what was drawn from), or
            "other".
        context: most tokens of a sequence.
    """

    draws: bool
    logprobs: str
    context: int


class VLLMEngine(Engine):
    """Generates with vLLM servers. Thread-safe; close it after use.

    Args:
        backbone: the model that the servers serve.
        addresses: of the servers, as in "http://host:8000/v1".
        outstanding: most rollouts asked for at once; further ones wait here and not at the servers.
        patience: seconds for which a request is tried again, on any server, before it fails.
        timeout: seconds of silence after which a server counts as failed.
        key: for servers that want one; by default what TACIT_ENGINE_API_KEY holds.

    Attributes:
        draws: "tacit" if rollouts are drawn with Tacit's random numbers, else "vllm".

    Raises:
        ConfigError: no address, or none that is one, or aiohttp is missing.
        EngineError: a server is not there, serves another model, or takes no embeddings.
    """

    def __init__(
        self,
        backbone: Backbone,
        addresses: Sequence[str],
        *,
        outstanding: int = 256,
        patience: float = 120.0,
        timeout: float = 600.0,
        key: str | None = None,
    ) -> None:
        urls = list(dict.fromkeys(address(text) for text in addresses))
        if not urls:
            raise ConfigError("--engine names no address; give it as http://HOST:PORT/v1")
        if backbone.carrier.name != Prompt.name:
            raise ConfigError(
                f"vLLM servers take soft prompts, no memories of the carrier {backbone.carrier.name}; leave --engine "
                "out, or use another bank"
            )
        self.backbone = backbone
        self._ability: Ability | None = None
        self._seen: list[Ability] = []
        key = key if key is not None else os.environ.get("TACIT_ENGINE_API_KEY")
        self.pool = Pool(urls, self._meet, outstanding=outstanding, patience=patience, timeout=timeout, key=key)
        ids = backbone.encode("What is 3 + 4, and what is the largest of 2, 9 and 7?")
        room = max(1, backbone.context - PROBED - 4)
        self._probe = Request(ids[-room:], temperature=0.0, max_tokens=PROBED)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="tacit-vllm", daemon=True)
        self._thread.start()
        try:
            self.run(self.pool.meet_all())
        except BaseException:
            self.close()
            raise
        modes = {one.logprobs for one in self._seen}
        self._ability = Ability(
            all(one.draws for one in self._seen),
            modes.pop() if len(modes) == 1 else "other",
            min(one.context for one in self._seen),
        )

    @property
    def ability(self) -> Ability:
        """What all the servers can do."""
        assert self._ability is not None
        return self._ability

    @property
    def draws(self) -> str:
        """See ``Engine.draws``: "tacit" or "vllm"."""
        return "tacit" if self.ability.draws else "vllm"

    @property
    def context(self) -> int:
        """See ``Engine.context``: that of the model, or less where a server was given less room."""
        return min(self.backbone.context, self.ability.context)

    def generate(self, requests: Sequence[Request]) -> list[list[Rollout]]:
        """See ``Engine.generate``. If one of the requests fails, the others are dropped, at the servers too.

        Raises:
            EngineError: a request is malformed, or no server answers it.
        """
        for number, request in enumerate(requests):
            self.check(f"request {number}", request)
        heads = [prompt(self.backbone, request) for request in requests]
        groups = self.run(self._generate(requests, heads))
        METER.add(sum(len(rollout.token_ids) for group in groups for rollout in group))
        return [
            rescored(self.backbone, request, group) if self.differs(request) else group
            for request, group in zip(requests, groups, strict=True)
        ]

    def session(self) -> VLLMSession:
        """Requests that come and go, streamed; see ``Session``."""
        return VLLMSession(self)

    def close(self) -> None:
        """Drop all connections, and with them what the servers are still working on."""
        with suppress(RuntimeError):  # closed before
            self.run(self.pool.close())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()

    def check(self, what: str, request: Request) -> None:
        """EngineError, in one sentence that begins with ``what``, unless servers can serve the request."""
        check(self.backbone, self.context, what, request)
        if request.grammar:
            raise EngineError(
                f"{what} has a form to follow, which needs the engine of this process; leave out --engine"
            )

    def differs(self, request: Request) -> bool:
        """Whether what the servers report for this request are not the log-probs of what it is drawn from."""
        if request.top > MOST_ALTERNATIVES:
            return True
        plain = request.temperature in (0.0, 1.0) and not request.narrow
        return {"raw": not plain, "processed": forced(request, self.ability.draws)}.get(self.ability.logprobs, True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the event loop and wait; ended early, the work is cancelled."""
        if self.loop.is_closed():
            work.close()
            raise RuntimeError("the engine has been closed")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # -- generating -----------------------------------------------------------------------------------------------

    async def _generate(self, requests: Sequence[Request], heads: Sequence[dict[str, Any]]) -> list[list[Rollout]]:
        # Greedy rollouts are all the same one.
        wanted = [
            (request, head, index)
            for request, head in zip(requests, heads, strict=True)
            for index in range(request.n if request.temperature else 1)
        ]
        tasks = [asyncio.create_task(self._rollout(*one)) for one in wanted]
        try:
            found = iter(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
        return [
            [next(found) for _ in range(request.n)] if request.temperature else [next(found)] * request.n
            for request in requests
        ]

    async def _rollout(self, request: Request, head: dict[str, Any], index: int) -> Rollout:
        asked = body(self.backbone, request, head, index, draws=self.ability.draws, stream=bool(request.stop))
        if not request.stop:
            answer = await self.pool.complete(asked)
            return whole(self.backbone, request, answer.get("choices") or [])
        growing = Growing(self.backbone, request)

        def hear(choices: Sequence[Any]) -> bool:
            if not choices:
                growing.held.clear()
            for choice in choices:
                for piece in pieces(choice, request.top):
                    growing.add(piece)
                    if growing.rollout is not None:
                        return True
            return False

        await self.pool.stream(asked, hear)
        assert growing.rollout is not None
        return growing.rollout

    # -- meeting --------------------------------------------------------------------------------------------------

    async def _meet(self, server: Server) -> None:
        """Find out whether a server serves this model, takes embeddings, and what else it does."""
        listed = (await self.pool.get(server, "/models")).get("data") or [{}]
        held = next((one for one in listed if one.get("parent") is None), listed[0])
        model = server.model = held.get("id")
        try:
            ability = await self._ask(server, int(held.get("max_model_len") or self.backbone.context))
            least = self._ability
            if least is not None and ((least.draws and not ability.draws) or least.logprobs != ability.logprobs):
                raise EngineError(
                    f"the vLLM server at {server.url} has come back with other flags (--logits-processors, "
                    "--logprobs-mode); start it with those it had"
                )
        except BaseException:
            server.model = None
            raise
        server.model = model
        self._seen.append(ability)

    async def _ask(self, server: Server, context: int) -> Ability:
        plain = self._probe
        noise = torch.randn(4, self.backbone.hidden_size, generator=torch.Generator().manual_seed(0))
        soft = replace(plain, soft_prompt=noise * self.backbone.embedding_std)
        # Token ids first: embeddings of another width can end a server.
        for request in (plain, soft):
            try:
                found = await self._one(server, request)
            except EngineError as error:
                if request is soft or "vocab" not in str(error).lower():
                    raise
                raise self._other(server, "its vocabulary is smaller") from None
            apart = await self._apart(request, found)
            if not apart <= NEAR.get(self.backbone.dtype, ROUGHLY):
                raise self._other(server, f"log-probs differ by {apart:.2f}")
        hello = await self._tokens(
            server, {**prompt(self.backbone, plain), "vllm_xargs": {ARGUMENTS: '{"hello":true}'}}
        )
        draws = hello == [greeting(position, self.backbone.vocab_size) for position in range(PROBED)]
        # Without a seed: its own numbers will do.
        warm = replace(plain, temperature=2.0, seeds=(0,))
        drawn = await self._one(server, warm, draws=False, seed=None)
        as_raw = await self._apart(replace(warm, temperature=1.0), drawn)
        as_processed = await self._apart(warm, drawn)
        mode, apart = ("raw", as_raw) if as_raw <= as_processed else ("processed", as_processed)
        return Ability(draws, mode if apart <= NEAR.get(self.backbone.dtype, ROUGHLY) else "other", context)

    async def _one(self, server: Server, request: Request, *, draws: bool = False, **changed: Any) -> Rollout:
        asked = body(self.backbone, request, prompt(self.backbone, request), 0, draws=draws, stream=False)
        return whole(self.backbone, request, (await self.pool.send(server, asked | changed)).get("choices") or [])

    async def _tokens(self, server: Server, asked: dict[str, Any]) -> list[int]:
        asked = body(self.backbone, self._probe, asked, 0, draws=False, stream=False) | {"stop_token_ids": []}
        choices = (await self.pool.send(server, asked)).get("choices") or [{}]
        return [piece.token_id for piece in pieces(choices[0], 0)]

    async def _apart(self, request: Request, found: Rollout) -> float:
        """Mean difference between the log-probs of a rollout and those computed here."""
        [here] = await asyncio.to_thread(rescored, self.backbone, request, [found])
        differences = [abs(a - b) for a, b in zip(here.logprobs, found.logprobs, strict=True)]
        return sum(differences) / len(differences)

    def _other(self, server: Server, why: str) -> EngineError:
        return EngineError(
            f"the vLLM server at {server.url} serves {server.model}, which is not {self.backbone.name} ({why}); start "
            "it with the same weights and dtype, or give its model as --model"
        )


@register("engine", "vllm")
def open_vllm(backbone: Backbone, settings: Settings) -> VLLMEngine:
    """The engine of the servers whose addresses the settings have."""
    return VLLMEngine(backbone, settings.engine)
