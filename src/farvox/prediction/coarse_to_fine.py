"""Coarse-to-fine evaluation of point networks: a coarse grid first, finer ones at borders and uncertain positions.

A point network need not be evaluated at every voxel; Heinrich, Oktay and Bouteldja ("OBELISK", MIDL 2018, section 2.1)
find landmarks with a twentieth of the samples. The volume is divided into blocks, and the network is evaluated at their
centres. Then blocks are halved along each axis and their probabilities are interpolated. Where no class is probable
enough, the network is evaluated again, and so on down to single voxels. Interpolated probabilities between blocks of
different classes are mixtures, so borders are evaluated. A block is also evaluated if a neighbour of its larger block
has another class, so that a vessel thinner than a block is followed from one block to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F

from farvox.types import Shape

Evaluate = Callable[[torch.Tensor], torch.Tensor]
"""(N, 3) positions, fractional voxels → class probabilities (classes, N)."""

BLOCK_CONFIDENCE, CONFIDENCE = 0.99, 0.85
"""Interpolated probability of a class that is accepted without evaluation, for blocks and for voxels. It is higher for
blocks: they are few, and a thin structure may appear as a small uncertainty only."""
_COARSEST = 4
"""Voxels along an edge of the largest blocks."""


@dataclass
class Samples:
    """Number of points at which networks were evaluated.

    Args:
        n_evaluated: Points.
        n_voxels: Voxels of the volumes.
    """

    n_evaluated: int = 0
    n_voxels: int = 0

    @property
    def fraction(self) -> float:
        """Evaluated points as a fraction of all voxels."""
        return self.n_evaluated / max(self.n_voxels, 1)


def block_sizes(spacing: Sequence[float]) -> list[Shape]:
    """Voxels of the blocks along I, J and K of each level; the last level has single voxels.

    Args:
        spacing: Voxel spacing, mm. Blocks are nearly cubes: they have fewer voxels along an axis of large spacing.
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
    evaluate: Evaluate,
    shape: Shape,
    levels: Sequence[Shape],
    planes: int = 32,
    block_confidence: float = BLOCK_CONFIDENCE,
    confidence: float = CONFIDENCE,
    samples: Samples | None = None,
) -> Iterator[torch.Tensor]:
    """Class probabilities of a volume in order along K, as from `sliding_window_inference`.

    Memory holds a few times classes × I × J × `planes`, and the probabilities of all largest blocks.

    Args:
        evaluate: The network.
        shape: Voxels of the volume.
        levels: Sizes of the blocks, as from `block_sizes`.
        planes: Voxels along K that are refined at a time.
        block_confidence: A block is evaluated if no class has this interpolated probability.
        confidence: The same for voxels.
        samples: Counts the evaluated points.

    Yields:
        (classes, I, J, n) float32; the n add up to the volume's K.
    """
    samples = Samples() if samples is None else samples
    samples.n_voxels += shape[0] * shape[1] * shape[2]
    parts = _evaluate_all_blocks(evaluate, shape, levels[0], max(1, planes // levels[0][2]), samples)
    for coarse, fine in pairwise(levels):
        last = fine == levels[-1]
        parts = _refine_level(
            parts, evaluate, shape, (coarse, fine), confidence if last else block_confidence, not last, samples
        )
    return parts


def _evaluate_all_blocks(
    evaluate: Evaluate, shape: Shape, size: Shape, planes: int, samples: Samples
) -> Iterator[torch.Tensor]:
    """Probabilities (classes, I', J', n) of all blocks of a size, which are few; n up to `planes`."""
    blocks = _blocks(shape, size)
    cells = torch.cartesian_prod(*(torch.arange(n) for n in blocks))
    samples.n_evaluated += len(cells)
    yield from torch.split(evaluate(_centres(cells, size, shape)).reshape(-1, *blocks), planes, -1)


def _refine_level(
    parts: Iterator[torch.Tensor],
    evaluate: Evaluate,
    shape: Shape,
    sizes: tuple[Shape, Shape],
    confidence: float,
    border: bool,
    samples: Samples,
) -> Iterator[torch.Tensor]:
    """Probabilities of blocks of the first size → of the second: interpolated, and evaluated where they are uncertain.

    With `border`, also evaluated where one of 26 neighbours of the larger block has another class.
    """
    factors = tuple(c // f for c, f in zip(*sizes, strict=True))
    i, j, k = _blocks(shape, sizes[1])
    before, start = None, 0
    for part, after in _lookahead(parts):
        # One plane of the neighbouring part on each side; at the ends, the outermost plane is repeated.
        first = part[..., :1] if before is None else before
        last = part[..., -1:] if after is None else after[..., :1]
        before, stop = part[..., -1:], min(start + part.shape[-1] * factors[2], k)
        block = torch.cat((first, part, last), -1)
        probabilities = _upsample(block, factors)[:, :i, :j, : stop - start].contiguous()
        uncertain = probabilities.amax(0) < confidence
        if border:
            uncertain |= _repeat_blocks(_has_differing_neighbour(block), factors)[:i, :j, : stop - start]
        positions = uncertain.flatten().nonzero()[:, 0]
        if len(positions):
            cells = torch.stack(torch.unravel_index(positions, (i, j, stop - start)), 1)
            cells[:, 2] += start
            probabilities.flatten(1).index_copy_(1, positions, evaluate(_centres(cells, sizes[1], shape)))
            samples.n_evaluated += len(positions)
        yield probabilities
        start = stop


def _has_differing_neighbour(block: torch.Tensor) -> torch.Tensor:
    """(classes, I, J, n + 2) → (I, J, n): whether one of a block's 26 neighbours has another class."""
    label = block.argmax(0).to(torch.float32)[None, None]
    padding = (1, 1, 0)
    differs: torch.Tensor = F.max_pool3d(label, 3, 1, padding) + F.max_pool3d(-label, 3, 1, padding) > 0
    return differs[0, 0]


def _repeat_blocks(mask: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """(I, J, K) with each block repeated along each axis, once for each of its parts."""
    for axis, factor in enumerate(factors):
        mask = mask.repeat_interleave(factor, axis)
    return mask


def _upsample(block: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """(classes, I, J, n + 2) → n upsampled planes, linear between the centres of blocks."""
    upsampled = F.interpolate(block[None], scale_factor=[float(f) for f in factors], mode="trilinear")[0]
    return upsampled[..., factors[2] : upsampled.shape[-1] - factors[2]]


def _blocks(shape: Shape, size: Shape) -> Shape:
    i, j, k = (-(-n // s) for n, s in zip(shape, size, strict=True))
    return i, j, k


def _centres(cells: torch.Tensor, size: Shape, shape: Shape) -> torch.Tensor:
    """(N, 3) centres of blocks, voxels, limited to the last voxel of the volume."""
    sides = torch.tensor(size, dtype=torch.float32, device=cells.device)
    last = torch.tensor(shape, dtype=torch.float32, device=cells.device) - 1
    return torch.minimum(cells * sides + (sides - 1) / 2, last)


def _lookahead(parts: Iterator[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    current = next(parts)
    for following in parts:
        yield current, following
        current = following
    yield current, None
