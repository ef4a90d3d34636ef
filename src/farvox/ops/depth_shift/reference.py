"""Shift of channels between neighbouring slices in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from farvox.errors import UsageError


def depth_shift(maps: torch.Tensor, slices: int, forward: int, backward: int) -> torch.Tensor:
    """Replace the last channels of each slice by those of its neighbours; the first ones stay.

    Slice k receives its `forward` channels from slice k − 1 and its last `backward` channels from slice k + 1, from the
    same channels. At the ends of a volume, they are zero.

    Args:
        maps: (B·slices, C, I, J), the slices of a volume one after another.
        slices: Slices of each volume.
        forward: Number of channels shifted to the next slice: those before the last `backward` ones.
        backward: Number of channels shifted to the previous slice: the last ones.

    Returns:
        (B·slices, C, I, J).

    Raises:
        UsageError: More channels to shift than the maps have, or maps that are not whole volumes.
    """
    if maps.ndim != 4 or slices < 1 or maps.shape[0] % slices:
        raise UsageError(
            f"maps of shape {tuple(maps.shape)} with {slices} slices per volume",
            allowed="(B·slices, C, I, J), whole volumes",
        )
    stay = maps.shape[1] - forward - backward
    if forward < 0 or backward < 0 or stay < 0:
        raise UsageError(f"shift of {forward} + {backward} channels", allowed=f"0 to {maps.shape[1]} channels in total")
    volumes = maps.unflatten(0, (-1, slices))  # (B, K, C, I, J)
    unchanged, onward, back = volumes.split((stay, forward, backward), 2)
    # Padding and cropping along K, the fourth axis from the end; F.pad counts axes from the last.
    onward = F.pad(onward[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    back = F.pad(back[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    return torch.cat((unchanged, onward, back), 2).flatten(0, 1)
