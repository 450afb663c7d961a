"""The frozen backbone: a Hugging Face causal LM that is asked, embedded and read, and never changed.

Builds on loading, prompts, inputs, decoder, cache, testbed (for its name) and transformers. It holds what belongs to
one model: tokenizer, prompt template, input embeddings, forward pass over a key/value cache, and the fingerprint
that ties a memory to it. The policy of the method is (this backbone + a soft prompt prepended as input embeddings), so
nothing here has gradients except, in learning, what flows back to those embeddings.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tacit import registry
from tacit.errors import ConfigError, ModelError
from tacit.model import decoder
from tacit.model.cache import RaggedCache, round_up
from tacit.model.decoder import LEAST_ROWS, Decoder, token_logprobs
from tacit.model.loading import Inputs, digest_state, load, parse_device, resolve_model
from tacit.model.prompts import RUN_ON, Prompt, Template, token_ids
from tacit.tasks.maths import MATHS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
"""Tokens that end a turn in the chat templates of common model families."""


class Backbone:
    """A frozen causal LM with its tokenizer and template.

    Attributes:
        model: the transformers model, in eval mode, all parameters frozen.
        tokenizer: its tokenizer.
        name: what the user called it.
        fingerprint: hex digest of weights + tokenizer + template; memories are valid for equal fingerprints only.
        hidden_size: d, the width of an input embedding.
        context: most tokens of a sequence, soft prompt included.
        embedding_std, embedding_norm: scalar standard deviation and mean row norm of the inputs that the model sees.
            Soft prompts start and learn at this scale, and their norms are capped against it.
        least_rows: rows of a product at least, so that a row has the same bits whatever is beside it.
        carrier: how memories enter the model: ``Prompt``, or what ``carrying`` was given.
        fused: compiled passes of a small model on the CPU, or None; they copy the weights, which therefore must not
            change. ``lean=False`` leaves them and the lean decoder out, for models that are trained.
        steps: what generates and makes gradients: ``fused``, the loops between products of a larger model, or None.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: Template | None = None,
        name: str = "model",
        weights_digest: str | None = None,
        *,
        lean: bool = True,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.template = template or Template()
        self.name = name
        matrix = model.get_input_embeddings().weight
        self.hidden_size = int(matrix.shape[1])
        self.vocab_size = int(matrix.shape[0])
        self.embedding_matrix: Tensor = matrix
        self._decoder = Decoder(model) if lean and Decoder.supports(model) else None
        self.least_rows = self._decoder.least_rows if self._decoder else LEAST_ROWS
        self.fused = decoder.passes(self._decoder, self.hidden_size)
        self.steps = self.fused or decoder.steps(self._decoder, self.hidden_size)
        self._inputs = Inputs(model.get_input_embeddings())
        self.embedding_std, self.embedding_norm = self._inputs.std, self._inputs.norm
        self.carrier = Prompt(self)
        self._weights = weights_digest or digest_state(model)
        self.fingerprint = self._fingerprint(self._weights)
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 31)
        layer_types = getattr(model.config, "layer_types", None) or []
        window = int(getattr(model.config, "sliding_window", None) or 0)
        # Some architectures name the kind of every layer; in others a window holds for all of them.
        self._mixed = "sliding_attention" in layer_types
        self._window = window if self._mixed or not layer_types else 0
        unsupported = set(layer_types) - {"full_attention", "sliding_attention"}
        if unsupported:
            raise ModelError(
                f"model {name} has layers of type {', '.join(sorted(unsupported))}, whose state is not a key/value "
                "cache; use a model whose layers are all attention layers"
            )

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: str = "float32",
        device: str = "auto",
        template: Template | None = None,
        revision: str | None = None,
    ) -> Backbone:
        """Load ``testbed`` (``testbed:C``), a folder of a model or of a LoRA adapter, a GGUF file, or a Hub id.

        Args:
            name: "testbed", "testbed:C", a path, or a Hub id such as "Qwen/Qwen2.5-Math-7B".
            dtype: "float32", "bfloat16" or "float16".
            device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", ...
            template: prompt template; by default the boxed-answer instruction, and none for the testbed.
            revision: Hub revision.

        Raises:
            ModelError: the model is not there or is not a causal LM with weights that can be read and a tokenizer.
            ConfigError: unknown dtype or device, or what reads GGUF files is not installed.
        """
        if dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        target = parse_device(device)
        path = None
        if name.partition(":")[0] == "testbed":
            from tacit.testbed import shipped

            path = shipped(name)
            template = template or Template(instruction="")
        model, tokenizer, digest = load(path or resolve_model(name, revision), name, DTYPES[dtype])
        return cls(model.to(target), tokenizer, template, name, digest)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding_matrix.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights (soft prompts are float32 always, and cast on the way in)."""
        return self.embedding_matrix.dtype

    @cached_property
    def embedding_mean(self) -> Tensor:
        """Mean row [d] of the inputs that the model sees, float32: the direction that they share."""
        return self._inputs.mean()

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a rollout: those configured, and the end of a turn where the chat template has one.

        Base models with a chat template (Qwen2.5-Math-7B) name the end of a text alone. They would run on into a turn
        of their own making.
        """
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        template = str(getattr(self.tokenizer, "chat_template", None) or "")
        known = self.tokenizer.get_added_vocab()
        ids = [*ids, *(known[token] for token in TURN_ENDS if token in known and token in template)]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: a text has at least its length divided by this in tokens, unless the
        tokenizer drops some of it (white space)."""
        return max(map(len, self.tokenizer.get_vocab()))

    # -- text ---------------------------------------------------------------------------------------------------

    def encode(self, problem: str, examples: Sequence[tuple[str, str]] = ()) -> Tensor:
        """Token ids [T] (int64, on CPU) of the prompt for a problem.

        It may be longer than the model's context; whoever asks the model says so.

        Args:
            problem: the problem text.
            examples: worked (problem, solution) pairs shown before it, for in-context learning.
        """
        ids = token_ids(self.tokenizer, self.template.turns(problem, examples), self.template.system)
        if not ids:
            raise ModelError(f"the tokenizer of {self.name} makes no tokens of the problem {problem[:60]!r}")
        return torch.tensor(ids, dtype=torch.int64)

    def opening(self) -> Tensor:
        """Token ids with which the prompt of every problem begins."""
        one, other = self.encode("a"), self.encode("7")
        least = min(len(one), len(other))
        return one[: int((one[:least] == other[:least]).cumprod(0).sum())]

    def example_ids(self, problem: str, solution: str) -> Tensor | None:
        """Token ids [T] that a worked example adds before a problem; None if the template does more than add them."""
        plain = self.encode("?").tolist()
        shown = self.encode("?", [(problem, solution)]).tolist()
        added = len(shown) - len(plain)
        for place in range(len(plain)):
            if shown[:place] == plain[:place] and shown[place + added :] == plain[place:]:
                return torch.tensor(shown[place : place + added], dtype=torch.int64)
        return None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    # -- tensors ------------------------------------------------------------------------------------------------

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings [..., d] of token ids [...], in the model's dtype."""
        embedded: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded

    def forward(
        self,
        embeds: Tensor,
        positions: Tensor,
        cache: RaggedCache,
        *,
        all_logits: bool = True,
        real: Tensor | None = None,
    ) -> Tensor:
        """One forward pass over a ragged cache.

        Args:
            embeds: [R, T, d] input embeddings.
            positions: [R, T] position of each in its own sequence, which is also its column in the cache; a query sees
                the columns up to its own.
            cache: keys and values of what came before; extended in place of the columns ``positions``.
            all_logits: False if only the cache matters; what is returned then means nothing.
            real: indices [N] into the R x T inputs; the others are padding, of which nothing is asked.

        Returns:
            logits [R, T, V], or [N, V] for ``real``.
        """
        capacity = cache.begin(positions)
        if self._decoder is not None:
            states = self._decoder.states(embeds.to(self.dtype), positions, cache, cache_only=not all_logits, real=real)
            if not all_logits:
                return states[:0]
            found: Tensor = self._decoder.head(states)
            return found if real is not None else found.view(*positions.shape, -1)
        columns = torch.arange(capacity, device=embeds.device)
        visible = columns <= positions[:, :, None]
        near = visible & (columns > positions[:, :, None] - self._window) if self._window else visible
        mask = self._as_mask(near, embeds.dtype)
        if self._mixed:
            mask = {"full_attention": self._as_mask(visible, embeds.dtype), "sliding_attention": mask}
        with self.carrier.adding(self, cache.added):
            out = self.model(
                inputs_embeds=embeds.to(self.dtype),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=0 if all_logits else 1,
            )
        logits: Tensor = out.logits
        return logits.flatten(0, 1)[real] if all_logits and real is not None else logits

    def token_logprobs(
        self,
        embeds: Tensor,
        positions: Tensor,
        cache: RaggedCache,
        *,
        real: Tensor,
        targets: Tensor,
        temperature: float,
    ) -> Tensor:
        """Natural-log probabilities of tokens, with gradients; never more than a part of the logits at once.

        Args:
            embeds, positions, cache, real: as for ``forward``.
            targets: token id [N] after each of ``real``.
            temperature: divides the logits.

        Returns:
            float32 [N].
        """
        if self._decoder is None or self._decoder.head.bias is not None:
            logits = self.forward(embeds, positions, cache, real=real).float()
            return torch.log_softmax(logits / temperature, dim=-1).gather(1, targets[:, None])[:, 0]
        cache.begin(positions)
        states = self._decoder.states(embeds.to(self.dtype), positions, cache, real=real)
        return token_logprobs(states, self._decoder.head, targets, temperature)

    def _as_mask(self, visible: Tensor, dtype: torch.dtype) -> Any:
        if self.model.config._attn_implementation == "sdpa":
            return visible[:, None]
        return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]

    def new_cache(self, memories: Sequence[Tensor | None] = ()) -> RaggedCache:
        """An empty key/value cache for this model, of rows with these memories."""
        added = self.carrier.added(self, memories) if memories else None
        return RaggedCache(int(self.model.config.num_hidden_layers), added)

    @torch.no_grad()
    def hidden_states(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Hidden states of token ids [T] at every layer boundary: (layers + 1) tensors [T, d], embeddings first."""
        out = self.model(input_ids=ids[None].to(self.device), output_hidden_states=True, use_cache=False)
        return tuple(h[0] for h in out.hidden_states)

    def layer_states(self, ids: Tensor, layer: int) -> Tensor:
        """``hidden_states(ids)[layer]``, without the layers above, and in a compiled pass where there is one."""
        if self.fused is not None and 0 <= layer < self.fused.layers and len(ids) > 1:
            one = self.fused.group(len(ids) - 1, [1])
            if one.fits:
                return one.inputs(self.embed(ids), layer)
        whole = self.model.get_decoder()
        if not 0 < layer < len(getattr(whole, "layers", ())) or not hasattr(whole, "norm"):
            return self.hidden_states(ids)[layer]
        part = copy.copy(whole)  # what is above that layer is left out; all weights are shared
        part._modules = {**whole._modules, "layers": whole.layers[:layer], "norm": torch.nn.Identity()}
        with torch.no_grad():
            states: Tensor = part(input_ids=ids[None].to(self.device), use_cache=False).last_hidden_state[0]
        return states

    @torch.no_grad()
    def key_values(self, ids: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of token ids [T], one tensor [heads, T, head_dim] per layer each."""
        cache = self.new_cache()
        self.forward(self.embed(ids)[None], torch.arange(len(ids), device=self.device)[None], cache, all_logits=False)
        return [k[0, :, : len(ids)] for k in cache.keys], [v[0, :, : len(ids)] for v in cache.values]

    # -- identity -----------------------------------------------------------------------------------------------

    def _fingerprint(self, weights: str) -> str:
        digest = hashlib.sha256(weights.encode())
        for token, index in sorted(self.tokenizer.get_vocab().items()):
            digest.update(f"{index}:{token}\n".encode("utf-8", "surrogatepass"))
        chat = getattr(self.tokenizer, "chat_template", None)
        asked = self.template
        parts = [chat, asked.instruction, asked.system]
        if asked.task != MATHS.name or asked.examples:  # memories of mathematics are older than tasks
            parts += [asked.task, asked.examples]
        if self.carrier.name != Prompt.name:  # prompts are older than other carriers
            parts += [self.carrier.name]
        template = f"({', '.join(map(repr, parts))})"
        digest.update(template.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a response."""
        return (*self.template.stop, *(() if getattr(self.tokenizer, "chat_template", None) else RUN_ON))

    def asked(self, template: Template) -> Backbone:
        """The same model, asked in another way: a backbone with another fingerprint that shares everything else."""
        other = copy.copy(self)
        other.template = template
        other.fingerprint = other._fingerprint(self._weights)
        return other

    def carrying(self, carrier: str) -> Backbone:
        """The same model with memories of this kind (model/carriers.py): a backbone with another fingerprint that
        shares everything else.

        Raises:
            ModelError: it cannot have such memories.
        """
        if carrier == self.carrier.name:
            return self
        other = copy.copy(self)
        other.carrier = registry.get("carrier", carrier)(self)
        other.fused = other.steps = None  # compiled passes know prompts alone
        other.fingerprint = other._fingerprint(self._weights)
        return other

    def checksum(self) -> str:
        """Digest of every parameter as it is now; equal before and after any run (invariant 1)."""
        return digest_state(self.model)


def prompt_embeddings(backbone: Backbone, ids: Tensor, soft_prompt: Tensor | None) -> Tensor:
    """[K + T, d] embeddings of token ids after what the model reads of a memory, in its dtype; gradients flow."""
    return backbone.carrier.read(backbone.embed(ids), soft_prompt)


def prefill(
    backbone: Backbone,
    prompts: Sequence[Tensor],
    memories: Sequence[Tensor | None],
    before: RaggedCache | None = None,
    start: int = 0,
) -> RaggedCache:
    """The cache of ragged prompts [T_i, d] with their memories, padded on the right (padding is overwritten or never
    read): what rollouts, and a gradient pass over rollouts, start from. ``before``: one row, of whose first ``start``
    columns all prompts are the continuation."""
    width = max(-(-backbone.least_rows // len(prompts)), *(len(prompt) for prompt in prompts))
    # A multiple of 8, as far as there are positions: attention over other numbers of queries rounds in other ways.
    width = max(width, min(round_up(width, 8), backbone.context - start))
    padded = torch.stack([torch.nn.functional.pad(prompt, (0, 0, 0, width - len(prompt))) for prompt in prompts])
    if before is None:
        cache = backbone.new_cache(memories)
    else:
        cache = before.take(torch.zeros(len(prompts), dtype=torch.int64, device=padded.device))
        cache.reserve(start + width)
    positions = torch.arange(start, start + width, device=padded.device).expand(len(prompts), -1)
    lengths = torch.tensor([max(1, len(prompt)) for prompt in prompts], device=padded.device)
    real = (positions - start < lengths[:, None]).flatten().nonzero()[:, 0]
    every = len(real) < backbone.least_rows
    backbone.forward(padded, positions, cache, all_logits=False, real=None if every else real)
    return cache
