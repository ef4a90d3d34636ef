"""Points whole voxels apart are read in runs: the same answers as point by point and as the reference, borders too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from farvox.ops import SampleGrid, sparse_conv, sparse_sample
from farvox.ops.sparse_sample import _cpu_lattice, _cpu_points
from farvox.ops.sparse_sample._cpu_lattice import Lattice, find_lattice


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def voxels(*spans: range, shift: float = 0.0) -> torch.Tensor:
    """(S, d) voxels of a box, last axis fastest."""
    axes = torch.meshgrid(*(torch.tensor(list(span), dtype=torch.float32) for span in spans), indexing="ij")
    return torch.stack(axes, -1).reshape(-1, len(spans)) + shift


def normalised(positions: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return (2 * positions + 1) / torch.tensor(shape) - 1


@pytest.mark.parametrize("shape", [(13, 9, 11), (6, 1, 7), (5, 8, 1), (3, 2, 40), (9, 12)])
@pytest.mark.parametrize("shift", [0.0, 0.5, 0.3, -4.0, 3.0])
@pytest.mark.parametrize(("channels", "pairs", "step"), [(1, True, 1), (3, False, 1), (3, False, 2), (1, True, 4)])
def test_runs_give_the_references_answers(
    shape: tuple[int, ...], shift: float, channels: int, pairs: bool, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, dims = noise(2, channels, *shape), len(shape)
    offsets = 0.5 * noise(40, 2, dims, seed=1) if pairs else 0.5 * noise(40, dims, seed=1)
    offsets[0], offsets[1], offsets[2], offsets[3] = float("nan"), float("inf"), 1e9, 0
    offsets[4] = 2 / torch.tensor(shape)  # whole voxels
    found = []

    def seen(*arguments: Any) -> Lattice | None:
        found.append(find_lattice(*arguments))
        return found[-1]

    monkeypatch.setattr(_cpu_points, "find_lattice", seen)
    monkeypatch.setattr(_cpu_lattice, "_LARGEST_COPY", 1000)  # offsets are far larger here than they are learned
    positions = voxels(*(range(-2, size + 3, step) for size in shape), shift=shift)
    points = normalised(positions, shape).expand(2, -1, -1)
    weight = noise(6, channels * 40, seed=2) / 10
    answer = sparse_conv(image, offsets, weight, points=points, backend="cpu")
    torch.testing.assert_close(
        answer, sparse_conv(image, offsets, weight, points=points, backend="reference"), rtol=0, atol=3e-5
    )
    features = sparse_sample(image, offsets, points=points, backend="cpu")
    torch.testing.assert_close(
        features, sparse_sample(image, offsets, points=points, backend="reference"), rtol=0, atol=3e-5
    )
    short = (shape[-1] + 5) / step < 2
    assert short or all(lattice is not None for lattice in found)


def test_voxels_of_any_part_are_answered_as_on_the_whole_grid() -> None:
    shape = (20, 14, 37)
    image, offsets, weight = noise(1, 1, *shape), 0.2 * noise(50, 2, 3), noise(8, 50) / 7
    dense = sparse_conv(image, offsets, weight, grid=SampleGrid(shape), backend="cpu").unflatten(2, shape)
    chosen = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.85
    points = normalised(chosen.nonzero().float(), shape)[None]
    answer = sparse_conv(image, offsets, weight, points=points, backend="cpu")
    torch.testing.assert_close(answer[0], dense[0][:, chosen], rtol=0, atol=3e-5)


def test_gradients_are_the_references() -> None:
    shape = (7, 6, 20)
    image, offsets, weight = noise(1, 2, *shape), 0.3 * noise(10, 3), noise(4, 20)
    points = normalised(voxels(range(-1, 8), range(6), range(-1, 21)), shape)[None]
    found = []
    for backend in ("cpu", "reference"):
        leaves = [t.clone().requires_grad_() for t in (image, offsets + 0.013, weight)]
        out = sparse_conv(*leaves, points=points, backend=backend)
        out.backward(noise(*out.shape, seed=5))
        found.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_makes_runs() -> None:
    image, reads = torch.zeros(1, 40, 40, 40), noise(3, 2000).numpy()
    rows = voxels(range(3, 9), range(2, 8), range(10, 16), shift=0.25).numpy()

    def found(positions: np.ndarray, offsets: np.ndarray = reads) -> Lattice | None:
        return find_lattice(image, positions, offsets, 2)

    for step in (1, 2, 3, 4):
        lattice = found(rows * step)
        assert lattice is not None
        sampled = lattice.sample(slice(0, 36))
        assert sampled is not None
        assert sampled.shape == (1, 1000, 36)
    assert found(rows * 5) is None  # too far apart
    assert found(rows[::-1]) is None
    assert found(rows[:, ::-1]) is None
    assert found(rows * 1e9) is None
    assert found(rows + np.linspace(0, 0.01, len(rows), dtype=np.float32)[:, None]) is None
    assert found(rows[:10]) is None  # too few
    assert found(rows[:0]) is None
    assert found(rows * 3, 12 * reads) is None  # would take too large a copy
    rows[5] = np.nan
    assert found(rows) is None
