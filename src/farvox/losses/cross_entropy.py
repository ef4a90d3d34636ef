"""Weighted cross-entropy over voxels, all of them or only the hardest."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from farvox.errors import UsageError
from farvox.labels import IGNORE


def class_weights(counts: torch.Tensor) -> torch.Tensor:
    """Weights by the inverse square root of frequency: foreground 1 on average, background 0.5.

    The rule of Heinrich et al. 2019 (OBELISK-Net, Medical Image Analysis). A class without a voxel gets weight 1.

    Args:
        counts: (classes,) voxels of each class in the training set, background first.

    Returns:
        (classes,) float32.
    """
    rare = counts.double().clamp(min=1).rsqrt()
    seen = counts > 0
    seen[0] = False
    weights = torch.ones_like(rare)
    weights[seen] = rare[seen] / rare[seen].mean()
    weights[0] = 0.5
    return weights.float()


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None, keep_fraction: float = 1.0
) -> torch.Tensor:
    """Mean cross-entropy of the hardest `keep_fraction` of all voxels in the batch (online hard example mining).

    Voxels labelled `IGNORE` take no part. With weights it is the weighted mean, as torch has it; hardness is the
    weighted loss. Half-precision logits are computed in float32.

    Args:
        logits: (B, classes, I, J, K), before softmax.
        target: (B, I, J, K) class indices, any integer type.
        weights: (classes,) or None for equal weights.
        keep_fraction: Fraction of voxels kept, in (0, 1]; at least one voxel stays.

    Returns:
        Scalar; 0 where every voxel is ignored.

    Raises:
        UsageError: `keep_fraction` outside (0, 1].
    """
    if not 0 < keep_fraction <= 1:
        raise UsageError(f"keep_fraction={keep_fraction} for the cross-entropy", allowed="more than 0, at most 1")
    valid = target != IGNORE
    index = target.long()
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if weights is not None:
        weights = weights.to(scores)
    terms = F.cross_entropy(scores, index, weights, ignore_index=IGNORE, reduction="none")[valid]
    shares = torch.ones_like(terms) if weights is None else weights[index[valid]]
    if keep_fraction < 1 and len(terms):
        terms, hardest = terms.topk(max(1, round(keep_fraction * len(terms))), sorted=False)
        shares = shares[hardest]
    return terms.sum() / shares.sum().clamp(min=torch.finfo(terms.dtype).tiny)
