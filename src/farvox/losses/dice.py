"""Soft Dice loss, one value per class over the whole batch."""

from __future__ import annotations

import torch

from farvox.labels import IGNORE


def soft_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 − mean soft Dice over the foreground classes that are present in the target of the batch.

    Sums are over the whole batch, before the ratio. Classes that are absent from the target are excluded: their Dice is
    0 for any prediction. False positives of such classes only count in the cross-entropy, with which this term is
    usually summed.

    Args:
        logits: (B, classes, I, J, K), before softmax; half precision is converted to float32.
        target: (B, I, J, K) class indices, any integer type; voxels labelled `IGNORE` are excluded.

    Returns:
        Scalar in [0, 1]; 0 without foreground.
    """
    classes = logits.shape[1]
    # Sums over a batch need float32, and autocast would compute the products below in half precision.
    with torch.autocast(logits.device.type, enabled=False):
        probability = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1).flatten(2)  # (B, c, N)
        index = target.flatten(1).long()
        valid = index != IGNORE
        index = index.masked_fill(~valid, 0)
        at_target = probability.gather(1, index[:, None]).squeeze(1) * valid  # (B, N)
        zeros = probability.new_zeros(classes)
        overlap = zeros.index_add(0, index.flatten(), at_target.flatten())
        reference = zeros.index_add(0, index.flatten(), valid.flatten().to(zeros))
        predicted = torch.einsum("bcn,bn->c", probability, valid.to(zeros))
        present = reference[1:] > 0
        dice = 2 * overlap[1:] / (predicted + reference)[1:].clamp(min=1e-6)
        return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
