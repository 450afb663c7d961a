"""The frozen backbone: a Hugging Face causal LM that is asked, embedded and read, and never changed.

Builds on errors, testbed (for the name ``testbed``) and transformers. It holds what belongs to one model: tokenizer,
prompt template, input embeddings, forward pass over a key/value cache, and the fingerprint that ties a memory to it.
The policy of the method is (this backbone + a soft prompt prepended as input embeddings), so nothing here has
gradients except, in learning, what flows back to those embeddings.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from tacit.cache import RaggedCache
from tacit.decoder import Decoder
from tacit.errors import ConfigError, ModelError
from tacit.logprobs import token_logprobs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
"""Tokens that end a turn in the chat templates of common model families."""
FULL_HASH_BYTES = 2 << 30  # weights beyond this are hashed by samples: 15 GB would take half a minute at every start


@dataclass(frozen=True)
class Template:
    """How a problem becomes a prompt.

    Attributes:
        instruction: appended to the problem ("" for none).
        system: system message, for chat templates ("" for none).
    """

    instruction: str = BOXED
    system: str = ""


class Backbone:
    """A frozen causal LM with its tokenizer and template.

    Attributes:
        model: the transformers model, in eval mode, all parameters frozen.
        tokenizer: its tokenizer.
        name: what the user called it.
        fingerprint: hex digest of weights + tokenizer + template; memories are valid for equal fingerprints only.
        hidden_size: d, the width of an input embedding.
        context: most tokens of a sequence, soft prompt included.
        embedding_std, embedding_norm: scalar standard deviation and mean row norm of the input embedding matrix, the
            scale at which soft prompts start and against which their norms are capped.
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
        self.embedding_std = float(matrix.float().std())
        self.embedding_norm = float(matrix.float().norm(dim=1).mean())
        self.fingerprint = self._fingerprint(weights_digest or _digest_state(model))
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
        """Load ``testbed``, a local directory, or a Hub id.

        Args:
            name: "testbed", a path, or a Hub id such as "Qwen/Qwen2.5-Math-7B".
            dtype: "float32", "bfloat16" or "float16".
            device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", ...
            template: prompt template; by default the boxed-answer instruction, and none for the testbed.
            revision: Hub revision.

        Raises:
            ModelError: the model is not there or is not a causal LM with safetensors weights and a tokenizer.
            ConfigError: unknown dtype or device.
        """
        if dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        target = parse_device(device)
        if name == "testbed":
            from tacit.testbed import model_path

            directory = model_path()
            template = template or Template(instruction="")
        else:
            directory = resolve_model(name, revision)
        model, tokenizer = _load_pretrained(directory, name, DTYPES[dtype])
        return cls(model.to(target), tokenizer, template, name, _digest_files(directory))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding_matrix.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights (soft prompts are float32 always, and cast on the way in)."""
        return self.embedding_matrix.dtype

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a rollout: those configured, and the end of a turn where the chat template has one.

        Base models with a chat template (Qwen2.5-Math-7B) name the end of a text alone, and would run on into a turn of
        their own making.
        """
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids = configured if isinstance(configured, list) else [configured]
        template = str(getattr(self.tokenizer, "chat_template", None) or "")
        known = self.tokenizer.get_added_vocab()
        ids = [*ids, *(known[token] for token in TURN_ENDS if token in known and token in template)]
        return frozenset(i for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    # -- text ---------------------------------------------------------------------------------------------------

    def encode(self, problem: str, examples: Sequence[tuple[str, str]] = ()) -> Tensor:
        """Token ids [T] (int64, on CPU) of the prompt for a problem.

        Args:
            problem: the problem text.
            examples: worked (problem, solution) pairs shown before it, for in-context learning.
        """
        asked = self._user_turn(problem)
        if getattr(self.tokenizer, "chat_template", None):
            messages = [{"role": "system", "content": self.template.system}] if self.template.system else []
            for shown, solution in examples:
                messages += [
                    {"role": "user", "content": self._user_turn(shown)},
                    {"role": "assistant", "content": solution},
                ]
            messages.append({"role": "user", "content": asked})
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            shots = "".join(f"Problem: {self._user_turn(p)}\nSolution: {s}\n\n" for p, s in examples)
            ids = self.tokenizer(f"{shots}Problem: {asked}\nSolution:")["input_ids"]
        if not ids:
            raise ModelError(f"the tokenizer of {self.name} makes no tokens of the problem {problem[:60]!r}")
        return torch.tensor(ids, dtype=torch.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _user_turn(self, problem: str) -> str:
        return "\n".join(part for part in (problem, self.template.instruction) if part)

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
            return self._decoder.forward(embeds.to(self.dtype), positions, cache, cache_only=not all_logits, real=real)
        columns = torch.arange(capacity, device=embeds.device)
        visible = columns <= positions[:, :, None]
        near = visible & (columns > positions[:, :, None] - self._window) if self._window else visible
        mask = self._as_mask(near, embeds.dtype)
        if self._mixed:
            mask = {"full_attention": self._as_mask(visible, embeds.dtype), "sliding_attention": mask}
        out = self.model(
            inputs_embeds=embeds.to(self.dtype),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=0 if all_logits else 1,
        )
        logits: Tensor = out.logits
        return logits if real is None else logits.flatten(0, 1)[real]

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
        return token_logprobs(states, self._decoder.head.weight, targets, temperature)

    def _as_mask(self, visible: Tensor, dtype: torch.dtype) -> Any:
        if self.model.config._attn_implementation == "sdpa":
            return visible[:, None]
        return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]

    def new_cache(self) -> RaggedCache:
        """An empty key/value cache for this model."""
        return RaggedCache(int(self.model.config.num_hidden_layers))

    @torch.no_grad()
    def hidden_states(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Hidden states of token ids [T] at every layer boundary: (layers + 1) tensors [T, d], embeddings first."""
        out = self.model(input_ids=ids[None].to(self.device), output_hidden_states=True, use_cache=False)
        return tuple(h[0] for h in out.hidden_states)

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
        template = (getattr(self.tokenizer, "chat_template", None), self.template.instruction, self.template.system)
        digest.update(repr(template).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]

    def checksum(self) -> str:
        """Digest of every parameter as it is now; equal before and after any run (invariant 1)."""
        return _digest_state(self.model)


def trainable_share(config: Any, tokens: int) -> tuple[int, float]:
    """What a memory trains of a model, from its configuration alone (no weights are made).

    Args:
        config: a transformers configuration of a causal LM.
        tokens: K, rows of the soft prompt.

    Returns:
        Parameters of one soft prompt (K x d), and their share of the model's parameters in 0..1.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    trained = tokens * int(model.get_input_embeddings().weight.shape[1])
    return trained, trained / sum(parameter.numel() for parameter in model.parameters())


def _digest_state(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest_files(directory: Path) -> str:
    """Digest of the weight files, independent of the dtype they are loaded in."""
    files = sorted(directory.glob("*.safetensors"))
    total = sum(file.stat().st_size for file in files)
    digest = hashlib.sha256(str(total).encode())
    for file in files:
        size = file.stat().st_size
        block = 1 << 20
        stride = block if total <= FULL_HASH_BYTES else max(block, size // 256)
        with file.open("rb") as handle:
            for offset in range(0, size, stride):
                handle.seek(offset)
                digest.update(handle.read(block))
    return digest.hexdigest()


def parse_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device} was asked for, but this machine has no CUDA; use --device cpu or auto")
    return target


def resolve_model(name: str, revision: str | None) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} is a folder without config.json, so no Hugging Face model; give a model's folder")
        return path
    if path.exists():
        raise ModelError(f"model {name} is a file; give the folder that holds config.json and the weights")
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"no model at {name}; give an existing folder, a Hub id like Qwen/Qwen2.5-0.5B, or testbed")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
            )
        )
    except Exception as error:  # the client raises many kinds, none of which a user should have to know
        raise ModelError(
            f"no folder {name} here, and the Hub did not give a model of that name "
            f"({type(error).__name__}); check the name, or download it first and give its folder"
        ) from error


def _load_pretrained(directory: Path, name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not list(directory.glob("*.safetensors")):
        raise ModelError(f"model {name} has no *.safetensors weights; convert it first (pickled weights are not read)")
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(directory)
            model = AutoModelForCausalLM.from_pretrained(
                directory, dtype=dtype, use_safetensors=True, attn_implementation="sdpa"
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"model {name} cannot be loaded as a causal language model: {reason}") from error
    return model, tokenizer


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars and warnings of transformers inside: they would stand in the middle of our own progress."""
    from transformers.utils import logging as theirs

    quiet = logging.getLogger("transformers")
    level, bars = quiet.level, theirs.is_progress_bar_enabled()
    quiet.setLevel(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        quiet.setLevel(level)
        if bars:
            theirs.enable_progress_bar()
