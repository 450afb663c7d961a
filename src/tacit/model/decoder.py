"""A lean forward pass of the common decoder (Llama, Qwen2, Qwen3): the same arithmetic in a third of the calls.

Builds on the cache, and on fused where there are compiled passes. On small batches a forward pass through transformers
spends most of its time between the matrix products: three projections where one would do, a mask converted in every
layer, norms and rotations in six calls each. Here the projections of one input are one product, over a weight whose
rows the model's own parameters view. The mask is made once, and padding can be left out of everything but attention.

Products on a CPU are oneDNN's, which comes with PyTorch and uses what the processor has; the library behind PyTorch's
own has half of the speed on some. A step multiplies a few rows by all weights. These are arranged for the caches each
time anew, or once, in a second copy. From two rows on, a row's sums do not depend on how many rows are beside it.

Only for frozen models: gradients reach the inputs, not the weights. Every other architecture takes transformers' way
(backbone.py), with the same results up to rounding; tests compare the two.

Below it, log-probs of given tokens from hidden states, without the logits of all of them. With a vocabulary of 150,000,
the logits of 16,384 tokens are 10 GB in float32. A softmax with its gradient holds them three times; here they are made
a part at a time. The backward pass needs the gradient of each token's log-prob in its hidden state, a row of the
model's width. It is computed in the forward pass, while the part's probabilities are at hand (as fused losses do; Hsu
et al., Liger Kernel, arXiv 2410.10989), so that nothing is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from tacit.model import fused
from tacit.model.cache import RaggedCache, round_up

if TYPE_CHECKING:
    from tacit.model.fused.model import Fused
    from tacit.model.fused.woven import Woven

MODEL_TYPES = frozenset({"llama", "qwen2", "qwen3"})

FLOATS_AT_ONCE = 1 << 25
"""Logits of one part: 128 MB in float32, of which two copies live at a time."""

ARRANGED_AT_MOST = 1 << 30
"""Weights of a model that are held twice, 4 GB; of larger ones the second copy may not fit."""
LEAST_ROWS = 16
"""Rows of a product through PyTorch at least: for fewer, matrix libraries take other paths, whose sums differ in the
last bit."""
LEAST_ONEDNN_ROWS = 2
"""The same for oneDNN: one row has a path of its own."""


def onednn(weight: Tensor) -> bool:
    """Whether products with a weight are oneDNN's: float32 on a CPU."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and weight.device.type == "cpu" and weight.dtype == torch.float32


def arranged(model: Any) -> bool:
    """Whether the weights of this model are to be arranged: not too many, all for oneDNN."""
    weights = [weight for weight in model.parameters() if weight.dim() == 2]
    return all(map(onednn, weights)) and sum(map(Tensor.numel, weights)) <= ARRANGED_AT_MOST


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias; ``weight`` may be the view of another, turned."""
    if not onednn(weight):
        return linear(x, weight, bias)
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made


class Product:
    """x @ weight.T + bias; gradients reach x alone.

    Args:
        weight: [out, in], frozen.
        bias: [out] or None.
        arrange: whether to hold the weights a second time, from the first product on.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, arrange: bool) -> None:
        self.weight, self.bias = weight, bias
        self._arrange = arrange

    def __call__(self, x: Tensor) -> Tensor:
        """[N, out] of [N, in]."""
        if torch.is_grad_enabled() and x.requires_grad:
            made: Tensor = _WithGradient.apply(x, self)  # type: ignore[no-untyped-call]
            return made
        return self._made(x)

    def _made(self, x: Tensor) -> Tensor:
        return product(x, self._laid if self._arrange else self.weight, self.bias)

    @cached_property
    def _laid(self) -> Tensor:
        with torch.no_grad():
            laid: Tensor = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), LEAST_ROWS)
        return laid


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, made_by: Product) -> Tensor:
        ctx.weight = made_by.weight
        return made_by._made(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return product(gradient.contiguous(), ctx.weight.t()), None


@dataclass(frozen=True, eq=False)
class _Block:
    """Weights of one layer.

    ``qkv`` and ``gate_up`` are the model's own projections, one below the other; ``head_norms`` [query heads + key
    heads, head_dim] repeats the norms of queries and keys for every head.
    """

    attention_norm: Tensor
    qkv: Product
    head_norms: Tensor | None
    out: Product
    mlp_norm: Tensor
    gate_up: Product
    down: Product


class Decoder:
    """See the module's docstring.

    Args:
        model: a frozen model for which ``supports`` is true, a causal LM or one with another head, which is left
            alone. Its projections become views of joined weights.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.eps = float(config.rms_norm_eps)
        self.rotary = model.model.rotary_emb
        self.norm: Tensor = model.model.norm.weight
        self._arrange = arranged(model)
        self.least_rows = LEAST_ONEDNN_ROWS if onednn(self.norm) else LEAST_ROWS
        head = model.get_output_embeddings()
        none = self.norm.new_zeros(0, len(self.norm))
        self.head = self._product(none) if head is None else self._product(head.weight, head.bias)
        self.blocks = [self._block(layer) for layer in model.model.layers]

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether the model is one of ours: a plain decoder with full attention and unadapted linear layers."""
        config = model.config
        if config.model_type not in MODEL_TYPES or getattr(config, "hidden_act", "") != "silu":
            return False
        sliding = "sliding_attention" in (getattr(config, "layer_types", None) or [])
        if sliding or getattr(config, "use_sliding_window", False) or getattr(config, "mlp_bias", False):
            return False
        if config._attn_implementation != "sdpa" or any(weight.requires_grad for weight in model.parameters()):
            return False
        plain = (module for name, module in model.named_modules() if name.endswith("_proj"))
        return all(type(module) is torch.nn.Linear for module in plain)

    def _block(self, layer: Any) -> _Block:
        attention, mlp = layer.self_attn, layer.mlp
        qkv, bias = _join(attention.q_proj, attention.k_proj, attention.v_proj)
        gate_up, _ = _join(mlp.gate_proj, mlp.up_proj)
        return _Block(
            layer.input_layernorm.weight,
            self._product(qkv, bias),
            self._head_norms(attention) if hasattr(attention, "q_norm") else None,
            self._product(attention.o_proj.weight, attention.o_proj.bias),
            layer.post_attention_layernorm.weight,
            self._product(gate_up),
            self._product(mlp.down_proj.weight),
        )

    def _product(self, weight: Tensor, bias: Tensor | None = None) -> Product:
        return Product(weight, bias, self._arrange)

    def _head_norms(self, attention: Any) -> Tensor:
        queries = attention.q_norm.weight.expand(self.heads, -1)
        return torch.cat([queries, attention.k_norm.weight.expand(self.kv_heads, -1)])

    def states(
        self,
        embeds: Tensor,
        positions: Tensor,
        cache: RaggedCache,
        *,
        cache_only: bool = False,
        real: Tensor | None = None,
    ) -> Tensor:
        """One forward pass over a ragged cache, up to what the head makes logits of.

        Args:
            embeds: [R, T, d] in the model's dtype.
            positions: [R, T] position and column of each.
            cache: announced by ``begin``; written at ``positions``.
            cache_only: leave out what only the logits need; what is returned then means nothing.
            real: indices [N] into the R x T inputs that matter; the rest is padding, whose keys stay zero.

        Returns:
            The last hidden states [R x T, d], or [N, d] for ``real``, normalised.
        """
        # Whole blocks of columns, so that a row's sums do not depend on how far its neighbours are (cache.py).
        columns = torch.arange(min(cache.capacity, round_up(int(positions.max()) + 1)), device=embeds.device)
        later = columns > positions[:, :, None]
        mask = torch.zeros(later.shape, dtype=embeds.dtype, device=embeds.device).masked_fill_(later, -torch.inf)
        return self._hidden(embeds, positions, cache, mask[:, None], real, cache_only)

    def _hidden(
        self, embeds: Tensor, positions: Tensor, cache: RaggedCache, mask: Tensor, real: Tensor | None, cache_only: bool
    ) -> Tensor:
        """Last hidden states [R x T or N, d], normalised; ``mask`` [R, 1, T, columns] is added to attention scores."""
        rows, width = positions.shape
        x = embeds.reshape(rows * width, -1)
        flat = positions.reshape(-1)
        row = torch.arange(rows, device=x.device).repeat_interleave(width)
        if real is not None:
            x, flat, row = x[real], flat[real], row[real]
        cos, sin = self.rotary(x, flat[None])
        half = self.head_dim // 2
        cos, sin = cos[0, :, None], torch.cat([-sin[0, :, None, :half], sin[0, :, None, half:]], dim=-1)
        heads, kv, dim = self.heads, self.kv_heads, self.head_dim
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            qkv = block.qkv(self._norm(x, block.attention_norm))
            qkv = qkv.view(-1, heads + 2 * kv, dim)
            both, value = qkv[:, : heads + kv], qkv[:, heads + kv :]
            if block.head_norms is not None:
                both = self._norm(both, block.head_norms)
            both = _rotate(both, cos, sin)
            keys, values = cache.put(number, row, flat, both[:, heads:], value)
            if cache_only and number == last:
                break
            query = both[:, :heads]
            if real is None:
                query = query.reshape(rows, width, heads, dim)
            else:
                query = query.new_zeros(rows * width, heads, dim).index_copy(0, real, query)
                query = query.view(rows, width, heads, dim)
            seen = mask.shape[-1]
            mixed = scaled_dot_product_attention(
                query.transpose(1, 2), keys[:, :, :seen], values[:, :, :seen], mask, enable_gqa=heads != kv
            )
            mixed = mixed.transpose(1, 2).reshape(rows * width, heads * dim)
            x = x + block.out(mixed if real is None else mixed[real])
            gate, up = block.gate_up(self._norm(x, block.mlp_norm)).chunk(2, dim=-1)
            x = x + block.down(silu(gate) * up)
            if cache.added is not None:
                x = x + cache.added[row, number]
        return self._norm(x, self.norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        # In float32 whatever the model's dtype, as transformers does it.
        if x.dtype == torch.float32:
            return rms_norm(x, x.shape[-1:], eps=self.eps) * weight
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * weight


def passes(decoder: Decoder | None, width: int) -> Fused | None:
    """Whole passes of a small model of this width, forward and backward."""
    if not _may_be(decoder):
        return None
    from tacit.model.fused.model import Fused

    return Fused(decoder, width) if Fused.supports(decoder, width) else None


def steps(decoder: Decoder | None, width: int) -> Woven | None:
    """Steps of generation of a larger one."""
    if not _may_be(decoder):
        return None
    from tacit.model.fused.woven import Woven

    return Woven(decoder, width) if Woven.supports(decoder, width) else None


def _may_be(decoder: Decoder | None) -> TypeGuard[Decoder]:
    """Whether it is a float32 model on the CPU; for others numba is not imported."""
    if decoder is None or decoder.norm.device.type != "cpu" or decoder.norm.element_size() != 4:
        return False
    return fused.available()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [N, H, D]; cos, sin [N, 1, D], the first half of sin negated."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat([second, first], dim=-1), sin)


def _join(*modules: Any) -> tuple[Tensor, Tensor | None]:
    """One weight (and bias) of several linear layers, whose own parameters become views of it."""
    joined: list[Tensor | None] = []
    for name in ("weight", "bias"):
        parts = [getattr(module, name) for module in modules]
        if parts[0] is None:
            joined.append(None)
            continue
        whole = torch.cat([part.detach() for part in parts])
        start = 0
        for part in parts:
            part.data = whole[start : start + len(part)]
            start += len(part)
        joined.append(whole)
    weight, bias = joined
    assert weight is not None
    return weight, bias


def token_logprobs(states: Tensor, head: Product, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(head(states) / temperature) at ``targets``; gradients reach ``states`` alone.

    Args:
        states: [N, d] in the model's dtype.
        head: the output head, [V, d].
        targets: int64 [N].
        temperature: above 0.

    Returns:
        float32 [N], natural logs.
    """
    result: Tensor = _TokenLogprobs.apply(states, head, targets, temperature)  # type: ignore[no-untyped-call]
    return result


def logprobs_and_slopes(
    states: Tensor, head: Product, targets: Tensor, temperature: float, *, wanted: bool = True
) -> tuple[Tensor, Tensor | None]:
    """What ``token_logprobs`` returns, and (if wanted) the gradient [N, d] of each in its own hidden state."""
    # Even parts: a short one at the end would take another path through the matrix library (backbone.py).
    weight = head.weight
    parts = max(1, -(-len(states) * len(weight) // FLOATS_AT_ONCE))
    chosen, slopes = [], []
    for part, ids in zip(states.tensor_split(parts), targets.tensor_split(parts), strict=True):
        logprobs, slope = _scored(head(part).float(), ids, temperature, wanted)
        chosen.append(logprobs)
        if wanted:
            slopes.append(product(slope.to(weight.dtype), weight.t()))
    return torch.cat(chosen), torch.cat(slopes) if wanted else None


def _scored(logits: Tensor, targets: Tensor, temperature: float, sloped: bool) -> tuple[Tensor, Tensor]:
    """Log-probs [N] of targets, and (if asked for) the gradients [N, V] of each, in place of the logits."""
    if logits.device.type == "cpu" and fused.available():
        from tacit.model.fused.forward import score_rows

        logprobs = logits.new_empty(len(logits))
        score_rows(
            logits.view(-1).numpy(), *logits.shape, float(temperature), targets.numpy(), sloped, logprobs.numpy()
        )
        return logprobs, logits
    found = torch.log_softmax(logits / temperature, dim=-1)
    chosen = found.gather(1, targets[:, None])[:, 0]
    if sloped:  # d log p_y / d logits = (onehot(y) - p) / temperature
        found.exp_().neg_()
        found[torch.arange(len(targets), device=targets.device), targets] += 1
        found.div_(temperature)
    return chosen, found


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Product, targets: Tensor, temperature: float) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        chosen, slopes = logprobs_and_slopes(states, head, targets, temperature, wanted=wanted)
        if wanted:
            ctx.save_for_backward(slopes)
        return chosen

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradient[:, None] * slopes).to(slopes.dtype), None, None, None
