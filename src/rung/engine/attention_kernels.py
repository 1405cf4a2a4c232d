"""Attention of one block of queries and keys, its gradients, and how blocks are merged under one softmax.

On a CPU a block without a mask or a cap is PyTorch's own flash kernel, which never writes the scores to memory. Any
other block is written out. Knows nothing of trees, windows and caches: masks say what is not seen.
Sources: Dao et al., FlashAttention (2022), for merging and for the backward pass; Gemma Team, Gemma 2 (2024), for
capped scores; Xiao et al., StreamingLLM (2024), for sinks.
"""

from __future__ import annotations

import torch

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_BACK = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def block_type(rows: torch.Tensor) -> torch.dtype:
    """The type of blocks: float32 on CPUs, since the flash kernel's backward pass is three times slower in bfloat16."""
    return torch.float32 if rows.device.type == "cpu" else rows.dtype


def is_flash(query: torch.Tensor) -> bool:
    """Whether blocks without a mask or a cap go through the flash kernel."""
    return query.device.type == "cpu" and _FLASH is not None and _FLASH_BACK is not None


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float,
    causal: bool = False,
    unseen: torch.Tensor | None = None,
    cap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one block, and the log-sums of its scores.

    query: (N, H, Q, D); key, value: (N, H, K, D), or (1, H, K, D) for all.
    causal: Q = K, and no token sees a later one. unseen: true where a query does not see a key; its shape ends in
    (Q, K). A query that sees nothing gets 0 and the log-sum -inf. cap: scores become cap * tanh(score / cap).
    Returns (N, H, Q, D) and (N, H, Q, 1), in float32; the flash kernel's output has query's type.
    """
    key, value = (rows.expand(len(query), -1, -1, -1) for rows in (key, value))
    if unseen is None and cap is None and is_flash(query):
        out, logsum = _FLASH(query, key, value, 0.0, causal, scale=scaling)  # type: ignore[misc]
        return out, logsum[..., None]
    scores = _hide(scores_of(query, key, scaling, cap), causal, unseen)
    return softmax(scores, value, nothing_seen=unseen is not None)


def attend_back(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsum: torch.Tensor,
    *,
    scaling: float,
    causal: bool = False,
    unseen: torch.Tensor | None = None,
    cap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One block's part of the gradients towards query, key and value.

    grad, out: (N, H, Q, D) and logsum: (N, H, Q, 1), of the attention to all blocks together. The others are as in
    `attend`. Gradients towards keys and values are returned for each of the N.
    """
    key, value = (rows.expand(len(query), -1, -1, -1) for rows in (key, value))
    if unseen is None and cap is None and is_flash(query):
        sums = logsum[..., 0]
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _FLASH_BACK(  # type: ignore[misc]
            grad, query, key, value, out, sums, 0.0, causal, scale=scaling
        )
        return found
    scores = scores_of(query, key, scaling, cap)
    # d cap * tanh(s / cap) / ds = 1 - tanh(s / cap)^2
    slope = (scores / cap).square_().neg_().add_(1.0) if cap is not None else None
    weights = _hide(scores, causal, unseen).sub_(logsum).exp_().to(query.dtype)
    delta = (grad * out).sum(-1, keepdim=True)
    to_scores = (grad @ value.mT).sub_(delta).mul_(weights).mul_(scaling)
    if slope is not None:
        to_scores.mul_(slope)
    return to_scores @ key, to_scores.mT @ query, weights.mT @ grad


def scores_of(query: torch.Tensor, key: torch.Tensor, scaling: float, cap: float | None) -> torch.Tensor:
    """Scores of all pairs, (…, Q, K) in float32. query: (…, Q, D); key: (…, K, D)."""
    scores: torch.Tensor = (query @ key.mT).float().mul_(scaling)
    return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)


def _hide(scores: torch.Tensor, causal: bool, unseen: torch.Tensor | None) -> torch.Tensor:
    """The scores with -inf where a query does not see a key, in place."""
    if causal:
        length = scores.shape[-1]
        unseen = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu_(1)
    return scores if unseen is None else scores.masked_fill_(unseen, float("-inf"))


def softmax(
    scores: torch.Tensor, values: torch.Tensor, *, nothing_seen: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted values (…, Q, D) and log-sums (…, Q, 1), in float32. scores: (…, Q, K), float32, overwritten.

    values: (…, K, D). What several blocks add up to is rounded to their type once, at the end.
    nothing_seen: there may be queries whose scores are all -inf; they get 0 and the log-sum -inf.
    """
    highest = scores.amax(-1, keepdim=True)
    if nothing_seen:
        highest.clamp_(min=torch.finfo(highest.dtype).min)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)  # at least 1 where anything is seen
    divisor = total.clamp(min=1.0) if nothing_seen else total
    return (weights.to(values.dtype) @ values).float().div_(divisor), total.log_().add_(highest)


def merge(out: torch.Tensor, logsum: torch.Tensor, part: torch.Tensor, part_sum: torch.Tensor) -> None:
    """Takes one more block of keys into outputs (T, H, D) and their log-sums (T, H, 1), in place and in float32.

    part_sum may be -inf where a query sees none of these keys; logsum is finite.
    """
    total = torch.logaddexp(logsum, part_sum)
    out.mul_((logsum - total).exp_()).addcmul_(part, (part_sum - total).exp_())
    logsum.copy_(total)


def merge_sinks(out: torch.Tensor, logsum: torch.Tensor, sinks: torch.Tensor) -> None:
    """Takes a score per head, (H,), into the softmax's denominator, in place. There is no value behind it."""
    total = torch.logaddexp(logsum, sinks.float()[:, None])
    out.mul_((logsum - total).exp_())
    logsum.copy_(total)


def sinks_back(grad: torch.Tensor, out: torch.Tensor, logsum: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """Gradient towards the sinks, (H,). grad, out: (T, H, D) and logsum: (T, H, 1), of the whole attention."""
    weights = (sinks.float()[:, None] - logsum).exp_()
    delta = (grad * out).float().sum(-1, keepdim=True)
    return -(weights * delta).sum((0, 2)).to(sinks.dtype)


def grouped(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """(T, H, W) to (group, Hkv, T, W), without copying; keys have groups of one."""
    apart: torch.Tensor = rows.unflatten(1, (heads, -1))
    return apart.permute(2, 1, 0, 3)


def ungrouped(grouped: torch.Tensor) -> torch.Tensor:
    """(group, Hkv, T, W) to (T, H, W)."""
    return grouped.permute(2, 1, 0, 3).flatten(1, 2)
