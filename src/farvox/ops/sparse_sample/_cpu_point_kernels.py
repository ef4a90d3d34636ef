"""Numba kernels that sample an image around free points, and their adjoint, point by point.

The image is one flat array with a step for each axis and for the channels, so that channels can be outermost (as
stored: nothing to copy for few points) or innermost (neighbours in memory, for many). The indices of all samples of a
point are computed first, with SIMD and without branches: a corner outside the image keeps a legal index and gets
weight zero.
"""

from __future__ import annotations

import numpy as np

from farvox.ops.jit import kernel


@kernel
def _locate(position, offsets, size, step, index, up, weights, slopes):
    """Along one axis: adds the lower corner to `index`; step to the upper one; weights of both, their slopes."""
    zero, one = np.float32(0), np.float32(1)
    last = np.int32(size - 1)
    for r in range(len(offsets)):
        x = position + offsets[r]
        inside = (x > -one) & (x < np.float32(size))  # false for NaN
        x = x if inside else zero
        # Just below the last voxel's far side x + 1 is rounded up.
        low = min(np.int32(x + one) - np.int32(1), last)
        frac = x - np.float32(low)
        has_low, has_up = inside & (low >= 0), inside & (low < last)
        slopes[0, r] = -one if has_low else zero
        slopes[1, r] = one if has_up else zero
        weights[0, r] = one - frac if has_low else zero
        weights[1, r] = frac if has_up else zero
        start = max(low, np.int32(0))
        index[r] += start * step
        up[r] = (min(low + np.int32(1), last) - start) * step


@kernel
def _apply_transform(matrix, offsets, transformed):
    """transformed (3, R) = matrix (3, 3) · offsets (3, R)."""
    for a in range(3):
        x, y, z = matrix[a, 0], matrix[a, 1], matrix[a, 2]
        for r in range(offsets.shape[1]):
            transformed[a, r] = x * offsets[0, r] + y * offsets[1, r] + z * offsets[2, r]


@kernel
def _apply_transform_transposed(matrix, moves, total):
    """total (3, R) += transposed matrix · moves (3, R)."""
    for a in range(3):
        x, y, z = matrix[0, a], matrix[1, a], matrix[2, a]
        for r in range(moves.shape[1]):
            total[a, r] += x * moves[0, r] + y * moves[1, r] + z * moves[2, r]


@kernel
def sample_points(flat, sizes, steps, positions, offset_transforms, offsets, reads, out):
    """Sample at positions (T, 3) + offsets (3, reads · K), voxels: out (T, C, K).

    offset_transforms: (T, 3, 3), each multiplies the offsets of its position, or empty.
    steps: of channels, i, j and k in `flat`. The second reads of pairs, the second half of the offsets, are subtracted.
    """
    count = offsets.shape[1]
    index, up = np.empty(count, np.int64), np.empty((3, count), np.int64)
    weights, slopes = np.empty((3, 2, count), np.float32), np.empty((3, 2, count), np.float32)
    row = np.empty(count, np.float32)
    half = count // reads
    transformed = offsets.copy()
    for t in range(len(positions)):
        index[:] = 0
        if len(offset_transforms):
            _apply_transform(offset_transforms[t], offsets, transformed)
        for a in range(3):
            _locate(positions[t, a], transformed[a], sizes[a], steps[a + 1], index, up[a], weights[a], slopes[a])
        for c in range(out.shape[1]):
            for r in range(count):
                # Unsigned indices avoid the check for negative ones.
                b, j, k = np.uint64(index[r] + c * steps[0]), np.uint64(up[1, r]), np.uint64(up[2, r])
                j0, j1, k0, k1 = weights[1, 0, r], weights[1, 1, r], weights[2, 0, r], weights[2, 1, r]
                near = j0 * (k0 * flat[b] + k1 * flat[b + k]) + j1 * (k0 * flat[b + j] + k1 * flat[b + j + k])
                b += np.uint64(up[0, r])
                far = j0 * (k0 * flat[b] + k1 * flat[b + k]) + j1 * (k0 * flat[b + j] + k1 * flat[b + j + k])
                row[r] = weights[0, 0, r] * near + weights[0, 1, r] * far
            target = out[t, c]
            for n in range(half):
                target[n] = row[n]
            if reads == 2:
                for n in range(half):
                    target[n] -= row[half + n]


@kernel
def adjoint_points(flat, sizes, steps, positions, offset_transforms, offsets, reads, grad, flat_grad, moves):
    """Adjoint of `sample_points`: adds to flat_grad (unless empty) and, in voxels, to moves (3, R) (unless empty)."""
    count = offsets.shape[1]
    index, up = np.empty(count, np.int64), np.empty((3, count), np.int64)
    weights, slopes = np.empty((3, 2, count), np.float32), np.empty((3, 2, count), np.float32)
    half = count // reads
    transformed = offsets.copy()
    total = moves
    if len(offset_transforms):
        moves = np.empty(total.shape)
    for t in range(len(positions)):
        index[:] = 0
        if len(offset_transforms):
            _apply_transform(offset_transforms[t], offsets, transformed)
            moves[:] = 0
        for a in range(3):
            _locate(positions[t, a], transformed[a], sizes[a], steps[a + 1], index, up[a], weights[a], slopes[a])
        for c in range(grad.shape[1]):
            for r in range(count):
                g = grad[t, c, r] if r < half else -grad[t, c, r - half]
                first, j, k = np.uint64(index[r] + c * steps[0]), np.uint64(up[1, r]), np.uint64(up[2, r])
                j0, j1, k0, k1 = weights[1, 0, r], weights[1, 1, r], weights[2, 0, r], weights[2, 1, r]
                for upper in range(2):
                    b = first + np.uint64(up[0, r]) if upper else first
                    w = g * weights[0, upper, r]
                    if moves.shape[1]:
                        low, low_k = flat[b], flat[b + k]
                        high, high_k = flat[b + j], flat[b + j + k]
                        line, line_j = k0 * low + k1 * low_k, k0 * high + k1 * high_k
                        moves[0, r] += g * slopes[0, upper, r] * (j0 * line + j1 * line_j)
                        moves[1, r] += w * (slopes[1, 0, r] * line + slopes[1, 1, r] * line_j)
                        along = slopes[2, 0, r] * (j0 * low + j1 * high) + slopes[2, 1, r] * (j0 * low_k + j1 * high_k)
                        moves[2, r] += w * along
                    if len(flat_grad):
                        flat_grad[b] += w * j0 * k0
                        flat_grad[b + k] += w * j0 * k1
                        flat_grad[b + j] += w * j1 * k0
                        flat_grad[b + j + k] += w * j1 * k1
        if len(offset_transforms):
            _apply_transform_transposed(offset_transforms[t], moves, total)
