"""Answers where they matter: a coarse grid of points first, finer ones where classes meet or the network is uncertain.

A network that answers each point on its own need not be asked everywhere; Heinrich, Oktay and Bouteldja ("OBELISK",
MIDL 2018, section 2.1) find landmarks with a twentieth of the samples. A volume is cut into blocks, each answered at
its centre. Blocks are halved along each axis and the new ones' scores interpolated. Where no class is then probable
enough, the network is asked, and so on down to single voxels. Between blocks of different classes scores are mixtures
of both, so borders are asked for. Blocks are also asked for where any neighbour of the larger ones was of another
class: so a vessel thinner than a block, seen in one, is found in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from farvox.types import Shape

Ask = Callable[[torch.Tensor], torch.Tensor]
"""(N, 3) places, fractional voxels → class probabilities (classes, N)."""

BLOCK_CONFIDENCE, CONFIDENCE = 0.99, 0.85
"""Interpolated probability of a class that is believed without asking, for blocks and for voxels. Blocks are few, and
what is missed among them is lost: a thin structure may show as a small doubt alone."""
_COARSEST = 4
"""Voxels along an edge of the largest blocks."""


@dataclass
class Samples:
    """How often a network was asked.

    Args:
        asked: Points.
        voxels: Voxels of the volumes they were asked for.
    """

    asked: int = 0
    voxels: int = 0

    @property
    def share(self) -> float:
        """Points asked, as a share of all voxels."""
        return self.asked / max(self.voxels, 1)


def block_sizes(spacing: Sequence[float]) -> list[Shape]:
    """Voxels of the blocks along I, J and K, level by level, the last of them single voxels.

    Args:
        spacing: Of the volume, mm. Blocks are as near to cubes as halving allows: along an axis whose voxels are long
            they have fewer of them.
    """
    finest = min(spacing)
    first = [
        next((size for size in (_COARSEST, _COARSEST // 2) if size * one < 1.5 * _COARSEST * finest), 1)
        for one in spacing
    ]
    levels = []
    while max(first) > 1:
        levels.append((first[0], first[1], first[2]))
        first = [max(1, size // 2) if size == max(first) else size for size in first]
    return [*levels, (1, 1, 1)]


def coarse_to_fine_inference(
    ask: Ask,
    shape: Shape,
    levels: Sequence[Shape],
    planes: int = 32,
    block_confidence: float = BLOCK_CONFIDENCE,
    confidence: float = CONFIDENCE,
    samples: Samples | None = None,
) -> Iterator[torch.Tensor]:
    """Class probabilities of a volume, in order along K, as `sliding_window_inference` gives them.

    Memory holds a few times classes × I × J × `planes`, and all scores of the largest blocks.

    Args:
        ask: The network.
        shape: Voxels of the volume.
        levels: Sizes of the blocks, as from `block_sizes`.
        planes: Voxels along K worked on together.
        block_confidence: Blocks are asked for where no class reaches this probability by interpolation.
        confidence: The same for voxels.
        samples: Counts the points that are asked.

    Yields:
        (classes, I, J, n) float32; the n add up to the volume's K.
    """
    samples = Samples() if samples is None else samples
    samples.voxels += shape[0] * shape[1] * shape[2]
    parts = _evaluate_all_blocks(ask, shape, levels[0], max(1, planes // levels[0][2]), samples)
    for coarse, fine in pairwise(levels):
        last = fine == levels[-1]
        parts = _refine_level(
            parts, ask, shape, (coarse, fine), confidence if last else block_confidence, not last, samples
        )
    return parts


def _evaluate_all_blocks(ask: Ask, shape: Shape, size: Shape, planes: int, samples: Samples) -> Iterator[torch.Tensor]:
    """Scores (classes, I', J', n) of all blocks of a size, asked for at once since they are few; n up to `planes`."""
    blocks = _blocks(shape, size)
    cells = torch.cartesian_prod(*(torch.arange(n) for n in blocks))
    samples.asked += len(cells)
    yield from ask(_centres(cells, size, shape)).unflatten(1, blocks).split(planes, -1)


def _refine_level(
    parts: Iterator[torch.Tensor],
    ask: Ask,
    shape: Shape,
    sizes: tuple[Shape, Shape],
    confidence: float,
    border: bool,
    samples: Samples,
) -> Iterator[torch.Tensor]:
    """Scores of blocks of the first size → those of the second: interpolated, and asked for where that is uncertain.

    With `border`, asked for also where one of 26 neighbours of the larger block is of another class.
    """
    factors = tuple(c // f for c, f in zip(*sizes, strict=True))
    i, j, k = _blocks(shape, sizes[1])
    before, start = None, 0
    for part, after in _lookahead(parts):
        # One plane of the neighbours on each side, the own outermost one at the ends.
        first = part[..., :1] if before is None else before
        last = part[..., -1:] if after is None else after[..., :1]
        before, stop = part[..., -1:], min(start + part.shape[-1] * factors[2], k)
        block = torch.cat((first, part, last), -1)
        scores = _upsample(block, factors)[:, :i, :j, : stop - start].contiguous()
        uncertain = scores.amax(0) < confidence
        if border:
            uncertain |= _repeat_blocks(_has_differing_neighbour(block), factors)[:i, :j, : stop - start]
        chosen = uncertain.flatten().nonzero()[:, 0]
        if len(chosen):
            cells = torch.stack(torch.unravel_index(chosen, (i, j, stop - start)), 1)
            cells[:, 2] += start
            scores.flatten(1).index_copy_(1, chosen, ask(_centres(cells, sizes[1], shape)))
            samples.asked += len(chosen)
        yield scores
        start = stop


def _has_differing_neighbour(block: torch.Tensor) -> torch.Tensor:
    """(classes, I, J, n + 2) → (I, J, n): whether one of a block's 26 neighbours is of another class."""
    label = block.argmax(0).to(torch.float32)[None, None]
    padding = (1, 1, 0)
    differs: torch.Tensor = F.max_pool3d(label, 3, 1, padding) + F.max_pool3d(-label, 3, 1, padding) > 0
    return differs[0, 0]


def _repeat_blocks(mask: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """(I, J, K), each block as often along each axis as it has parts."""
    for axis, factor in enumerate(factors):
        mask = mask.repeat_interleave(factor, axis)
    return mask


def _upsample(block: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """(classes, I, J, n + 2) → n enlarged planes, linear between the centres of blocks."""
    enlarged = F.interpolate(block[None], scale_factor=[float(f) for f in factors], mode="trilinear")[0]
    return enlarged[..., factors[2] : enlarged.shape[-1] - factors[2]]


def _blocks(shape: Shape, size: Shape) -> Shape:
    i, j, k = (-(-n // s) for n, s in zip(shape, size, strict=True))
    return i, j, k


def _centres(cells: torch.Tensor, size: Shape, shape: Shape) -> torch.Tensor:
    """(N, 3) places of blocks, voxels; blocks that end beyond the volume are answered on its last voxel at most."""
    sides = torch.tensor(size, dtype=torch.float32, device=cells.device)
    last = torch.tensor(shape, dtype=torch.float32, device=cells.device) - 1
    return torch.minimum(cells * sides + (sides - 1) / 2, last)


def _lookahead(parts: Iterator[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    current = next(parts)
    for following in parts:
        yield current, following
        current = following
    yield current, None
