"""Windows: an identity network comes back unchanged, constants stay constant, slabs arrive in order and early."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farvox.prediction.sliding_window import sliding_window_inference, window_starts, window_weights

sizes = st.integers(1, 21)


@given(st.integers(1, 200), st.integers(1, 60), st.floats(0, 0.9))
def test_windows_cover_the_axis_and_overlap_enough(extra: int, window: int, overlap: float) -> None:
    size = window + extra
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == size - window
    steps = [b - a for a, b in pairwise(starts)]
    assert all(0 < step <= max(1, int(window * (1 - overlap))) + 1 for step in steps)
    assert all(step <= window for step in steps)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(sizes, sizes, sizes),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.integers(1, 3),
)
def test_an_identity_network_returns_its_input(
    shape: tuple[int, int, int], window: tuple[int, int, int], overlap: float, batch: int
) -> None:
    volume = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    parts = sliding_window_inference(lambda w: w, lambda a, b: volume[..., a:b], shape, window, overlap, batch)
    torch.testing.assert_close(torch.cat(list(parts), -1), volume)


def test_where_windows_disagree_the_blend_is_their_weighted_mean() -> None:
    calls = iter(range(100))
    shape, window = (4, 4, 6), (4, 4, 4)
    parts = sliding_window_inference(
        lambda w: torch.full((1, 1, *window), float(next(calls))),
        lambda a, b: torch.zeros(1, 4, 4, b - a),
        shape,
        window,
    )
    blended = torch.cat(list(parts), -1)[0, 0, 0]
    weights = window_weights(window)[0, 0]
    middle = weights[:2] / (weights[:2] + weights[2:])
    torch.testing.assert_close(blended, torch.cat((torch.zeros(2), middle, torch.ones(2))))


def test_a_plain_mean_weighs_overlapping_windows_alike() -> None:
    calls = iter(range(100))
    shape, window = (2, 2, 8), (2, 2, 4)
    parts = sliding_window_inference(
        lambda w: torch.full((1, 1, *window), float(next(calls))),
        lambda a, b: torch.zeros(1, 2, 2, b - a),
        shape,
        window,
        overlap=0.5,
        blend="mean",
    )
    blended = torch.cat(list(parts), -1)[0, 1, 1]
    assert blended.tolist() == [0, 0, 0.5, 0.5, 1.5, 1.5, 2, 2]  # windows 0, 1 and 2 begin at 0, 2 and 4


def test_a_slab_is_handed_on_before_the_rest_is_read() -> None:
    read: list[int] = []

    def slab(start: int, stop: int) -> torch.Tensor:
        read.append(stop)
        return torch.zeros(1, 8, 8, stop - start)

    parts = sliding_window_inference(lambda w: w, slab, (8, 8, 64), (8, 8, 8), overlap=0.5)
    first = next(parts)
    assert first.shape[-1] == 4
    assert max(read) == 8
    assert first.shape[-1] + sum(part.shape[-1] for part in parts) == 64


@pytest.mark.parametrize("window", [(3, 5, 7), (8, 8, 8)])
def test_weights_are_a_gaussian_with_a_standard_deviation_of_a_quarter(window: tuple[int, int, int]) -> None:
    weights = window_weights(window)
    squared = sum(((axis - (n - 1) / 2) / (n / 4)) ** 2 for axis, n in zip(np.indices(window), window, strict=True))
    np.testing.assert_allclose(weights.numpy(), np.maximum(np.exp(-squared / 2), 0.01), rtol=1e-5)
    assert weights.min() >= 0.01
    middle = weights[tuple(slice((n - 1) // 2, n // 2 + 1) for n in window)]
    assert (middle == weights.max()).all()
    torch.testing.assert_close(weights, weights.flip(0, 1, 2))
