"""The policy gradient of groups of rollouts: one loss for soft prompts, for adapters and for whole models.

Builds on backbone, cache and the threads of the in-process engine. For a group of N tokens in all, with advantages A_i,

    loss = - 1/N sum_i sum_t A_i log pi(y_it | prompt, y_i<t),

on-policy, so without ratio and clipping. Groups of one pass share every product; the prompt of a group is computed
once, and autograd sums the group's gradient into it. ``advantages``, ``descend`` and ``cap`` are the rest of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tacit.engines.base import Rollout
from tacit.engines.local import side_by_side, threads
from tacit.model.backbone import Backbone, prefill, prompt_embeddings
from tacit.model.cache import RaggedCache, round_up


@dataclass(frozen=True, eq=False)
class Group:
    """Rollouts of one problem.

    Attributes:
        ids: prompt token ids [T] int64.
        prompt: soft prompt [K, d] float32 that they were sampled under; None for the plain model.
        rollouts: the group.
        advantages: one per rollout.
        whole: tokens of the whole group, where this is a part of one.
    """

    ids: Tensor
    prompt: Tensor | None
    rollouts: Sequence[Rollout]
    advantages: Sequence[float]
    whole: int | None = None

    @property
    def total(self) -> int:
        """N, the tokens that the loss is a mean over."""
        if self.whole is not None:
            return self.whole
        return sum(len(rollout.token_ids) for rollout in self.rollouts)

    @property
    def longest(self) -> int:
        """Tokens of the longest rollout."""
        return max(len(rollout.token_ids) for rollout in self.rollouts)


def advantages(scores: Sequence[float]) -> list[float]:
    """What each reward of a group is above their mean."""
    mean = sum(scores) / len(scores)
    return [score - mean for score in scores]


def descend(optimizer: torch.optim.Optimizer, clip: float) -> float:
    """One step along the gradient, clipped to a norm of ``clip``; returns the norm that it had."""
    norm = torch.nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], clip)
    optimizer.step()
    optimizer.zero_grad()
    return float(norm)


@torch.no_grad()
def cap(prompt: Tensor, largest: float) -> None:
    """Hold a soft prompt's rows at or below a norm."""
    prompt.mul_((largest / prompt.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0))


def passes(groups: Sequence[Group], row_tokens: int) -> Iterator[list[Group]]:
    """Groups of similar length together, in passes of at most ``row_tokens`` padded tokens, but one rollout at least.

    Groups of one soft prompt stay together in their order. So its gradient is the same sum whatever else is learned
    beside it. Where they are too long for one pass, they take several of their own, whose gradients add up; a group may
    be split.
    """
    bundles: dict[int, list[Group]] = {}
    for place, group in enumerate(groups):
        bundles.setdefault(-1 - place if group.prompt is None else id(group.prompt), []).append(group)
    held: list[Group] = []
    for bundle in sorted(bundles.values(), key=lambda bundle: max(group.longest for group in bundle)):
        if _padded(bundle) > row_tokens:
            yield from _split(bundle, row_tokens)
            continue
        if held and _padded([*held, *bundle]) > row_tokens:
            yield held
            held = []
        held += bundle
    if held:
        yield held


def _split(bundle: Sequence[Group], row_tokens: int) -> Iterator[list[Group]]:
    """The rollouts of a bundle in order, as passes of their own."""
    held: list[Group] = []
    for group in bundle:
        for rollout, advantage in zip(group.rollouts, group.advantages, strict=True):
            one = Group(group.ids, group.prompt, [rollout], [advantage], group.total)
            if held and _padded([*held, one]) > row_tokens:
                yield held
                held = []
            if held and held[-1].ids is group.ids:  # of one group: its prompt is computed once a pass
                before = held.pop()
                one = replace(one, rollouts=[*before.rollouts, rollout], advantages=[*before.advantages, advantage])
            held.append(one)
    yield held


def prompt_gradients(
    backbone: Backbone, groups: Sequence[Group], temperature: float, *, row_tokens: int
) -> dict[int, Tensor]:
    """The gradient of every soft prompt in ``groups`` (all have one), by the ``id`` of the prompt.

    Args:
        backbone: the model sampled from.
        groups: of any number of problems.
        temperature: that they were sampled at.
        row_tokens: most padded tokens of a pass; see ``passes``.
    """
    found: dict[int, Tensor] = {}

    def add(prompt: Tensor, gradient: Tensor) -> None:
        found[id(prompt)] = found[id(prompt)] + gradient if id(prompt) in found else gradient

    rest = list(groups)
    if backbone.steps is not None:
        parts = [part for group in groups for piece in _split([group], row_tokens) for part in piece]
        work = [partial(_written_out, backbone, part, temperature) for part in parts]
        # Fewer groups than threads: each takes all of them for its products, which a small model's are too small for.
        apart = backbone.fused is not None or len(work) >= threads()
        written = side_by_side(work) if apart else [one() for one in work]
        for part, gradient in zip(parts, written, strict=True):
            if gradient is not None and part.prompt is not None:
                add(part.prompt, gradient)
        rest = [part for part, gradient in zip(parts, written, strict=True) if gradient is None]
    for held in passes(rest, row_tokens):
        loss = policy_loss(backbone, held, temperature)
        prompts = list({id(group.prompt): group.prompt for group in held if group.prompt is not None}.values())
        for prompt, gradient in zip(prompts, torch.autograd.grad(loss, prompts), strict=True):
            add(prompt, gradient)
    return found


@torch.no_grad()
def _written_out(backbone: Backbone, group: Group, temperature: float) -> Tensor | None:
    """The gradient of the group's soft prompt, by a pass without autograd; None where that would keep too much."""
    assert backbone.steps is not None and group.prompt is not None
    prompt = prompt_embeddings(backbone, group.ids[:-1], group.prompt)
    lengths = [len(rollout.token_ids) for rollout in group.rollouts]
    one = backbone.steps.group(len(prompt), lengths)
    if not one.fits:
        return None
    first = int(group.ids[-1])
    fed = [token for rollout in group.rollouts for token in (first, *rollout.token_ids[:-1])]
    targets = [token for rollout in group.rollouts for token in rollout.token_ids]
    weights = torch.tensor(group.advantages, dtype=torch.float32) / group.total
    return one.gradient(
        torch.cat([prompt, backbone.embed(torch.tensor(fed))]),
        len(group.prompt),
        torch.tensor(targets),
        weights.repeat_interleave(torch.tensor(lengths)),
        temperature,
    )


def _padded(groups: Sequence[Group]) -> int:
    return max(group.longest for group in groups) * sum(len(group.rollouts) for group in groups)


def policy_loss(backbone: Backbone, groups: Sequence[Group], temperature: float) -> Tensor:
    """The sum of the groups' losses, a scalar; gradients reach whatever asks for them.

    Args:
        backbone: the model sampled from.
        groups: of one pass.
        temperature: that they were sampled at.
    """
    embeds = [prompt_embeddings(backbone, group.ids[:-1], group.prompt) for group in groups]
    prefix = prefill(backbone, embeds, [group.prompt for group in groups])
    owner = [place for place, group in enumerate(groups) for _ in group.rollouts]
    tokens, weights, positions = _completions(groups, [len(prompt) for prompt in embeds], backbone.device)
    # Room is made before the prompt is repeated: it is one row, its rollouts are many.
    prefix.reserve(int(positions.max()) + 1)
    cache: RaggedCache = prefix.take(torch.tensor(owner, device=backbone.device))
    lengths = torch.tensor([len(rollout.token_ids) for group in groups for rollout in group.rollouts])
    real = (torch.arange(tokens.shape[1] - 1) < lengths[:, None]).flatten().nonzero()[:, 0].to(backbone.device)
    chosen = backbone.token_logprobs(
        backbone.embed(tokens[:, :-1]),
        positions,
        cache,
        real=real,
        targets=tokens[:, 1:].reshape(-1)[real],
        temperature=temperature,
    )
    logprobs = torch.zeros_like(weights).flatten().index_copy(0, real, chosen)
    return -(logprobs.view_as(weights) * weights).sum()


def _completions(
    groups: Sequence[Group], lengths: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rollouts as padded rows, each led by its prompt's last token.

    Returns:
        tokens [R, T + 1] int64; weights [R, T] float32, advantage / tokens of the group, 0 at padding;
        positions [R, T].
    """
    # A multiple of 8 keeps matrix shapes, and with them the order of sums, from depending on the batch (cache.py).
    width = round_up(max(group.longest for group in groups), 8)
    tokens, weights, positions = [], [], []
    for group, length in zip(groups, lengths, strict=True):
        total = group.total
        for rollout, advantage in zip(group.rollouts, group.advantages, strict=True):
            ids = list(rollout.token_ids)
            padding = width - len(ids)
            tokens.append([int(group.ids[-1]), *ids, *[0] * padding])
            weights.append([advantage / total] * len(ids) + [0.0] * padding)
            positions.append(range(length, length + width))
    return (
        torch.tensor(tokens, device=device),
        torch.tensor(weights, device=device),
        torch.tensor([list(row) for row in positions], device=device),
    )
