"""Weighted cross-entropy over all voxels, or those with the highest loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from farvox.errors import UsageError
from farvox.labels import IGNORE


def class_weights(counts: torch.Tensor) -> torch.Tensor:
    """Class weights by the inverse square root of frequency: foreground 1 on average, background 0.5.

    As in Heinrich et al. 2019 (OBELISK-Net, Medical Image Analysis). A class without voxels has weight 1.

    >>> class_weights(torch.tensor([1000, 100, 25]))
    tensor([0.5000, 0.6667, 1.3333])

    Args:
        counts: (classes,) voxels of each class in the training set, background first.

    Returns:
        (classes,) float32.
    """
    inverse = counts.double().clamp(min=1).rsqrt()
    present = counts > 0
    present[0] = False
    weights = torch.ones_like(inverse)
    weights[present] = inverse[present] / inverse[present].mean()
    weights[0] = 0.5
    return weights.float()


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None, keep_fraction: float = 1.0
) -> torch.Tensor:
    """Mean cross-entropy over the fraction `keep_fraction` of voxels with the highest loss (top-k).

    Voxels labelled `IGNORE` are excluded. With weights it is the weighted mean, as in PyTorch; voxels are ranked by
    their weighted loss. Half-precision logits are converted to float32.

    Args:
        logits: (B, classes, I, J, K), before softmax.
        target: (B, I, J, K) class indices, any integer type.
        weights: (classes,) or None for equal weights.
        keep_fraction: Fraction of voxels of the whole batch, in (0, 1]; at least one voxel.

    Returns:
        Scalar; 0 if all voxels are ignored.

    Raises:
        UsageError: `keep_fraction` outside of (0, 1].
    """
    if not 0 < keep_fraction <= 1:
        raise UsageError(f"keep_fraction={keep_fraction} for the cross-entropy", allowed="more than 0, at most 1")
    valid = target != IGNORE
    index = target.long()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if weights is not None:
        weights = weights.to(logits)
    terms = F.cross_entropy(logits, index, weights, ignore_index=IGNORE, reduction="none")[valid]
    normalisers = torch.ones_like(terms) if weights is None else weights[index[valid]]
    if keep_fraction < 1 and len(terms):
        terms, hardest = terms.topk(max(1, round(keep_fraction * len(terms))), sorted=False)
        normalisers = normalisers[hardest]
    return terms.sum() / normalisers.sum().clamp(min=torch.finfo(terms.dtype).tiny)
