"""The GPU kernels of `triton.py`: sampling, sampling with weights, and one backward for both.

Every program holds a tile of rows (r = c·K + k, within its group) by output positions. A row or position beyond the end
gets an infinite coordinate, where no voxels are: the mask of the voxels inside the image serves everything.
2D images come with a first axis of size 1 that is never read; the names x0, a0, ... are then not used.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _cell(x, size, CORNERS: tl.constexpr):
    """Normalised coordinate → index of the lower voxel and weight of the upper one."""
    position = (x + 1) * (size - 1) * 0.5 if CORNERS else ((x + 1) * size - 1) * 0.5
    # At -2 neither voxel is inside. Replaced before the cast to int, which is undefined for NaN and 1e30.
    position = tl.where((position > -1) & (position < size), position, -2.0)
    low = tl.floor(position)
    return low.to(tl.int32), position - low


@triton.jit
def _inside(index, size):
    return (index >= 0) & (index < size)


@triton.jit
def _plane(image, inside, low1, a1, low2, a2, stride1, stride2, size1, size2):
    """Bilinear value and slopes (per voxel, along axes 1 and 2); voxels outside are zero and not loaded."""
    in10, in11 = inside & _inside(low1, size1), inside & _inside(low1 + 1, size1)
    in20, in21 = _inside(low2, size2), _inside(low2 + 1, size2)
    v00 = tl.load(image, mask=in10 & in20, other=0).to(tl.float32)
    v01 = tl.load(image + stride2, mask=in10 & in21, other=0).to(tl.float32)
    v10 = tl.load(image + stride1, mask=in11 & in20, other=0).to(tl.float32)
    v11 = tl.load(image + (stride1 + stride2), mask=in11 & in21, other=0).to(tl.float32)
    low, high = v00 * (1 - a2) + v01 * a2, v10 * (1 - a2) + v11 * a2
    return low * (1 - a1) + high * a1, high - low, (v01 - v00) * (1 - a1) + (v11 - v10) * a1


@triton.jit
def _read(
    image, x0, x1, x2, stride0, stride1, stride2, size0, size1, size2,
    DIMS: tl.constexpr, CORNERS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Interpolated values and their slopes per voxel; unused results are removed by the compiler.

    Args:
        image: Pointers to the first voxel of each row's channel, (R, 1).
        x0, x1, x2: Normalised coordinates, (R, S).
        stride0, stride1, stride2: Of the image, in elements.
        size0, size1, size2: Voxels along the axes.
        DIMS: 2 or 3.
        CORNERS: Whether ±1 are centres of corner voxels.
        WIDE: Whether one channel needs 64-bit indices.

    Returns:
        Value, slope0, slope1, slope2, each (R, S).
    """
    low1, a1 = _cell(x1, size1, CORNERS)
    low2, a2 = _cell(x2, size2, CORNERS)
    first = _index(low1, WIDE) * stride1 + _index(low2, WIDE) * stride2
    if DIMS == 2:
        everywhere = tl.full((1, 1), 1, tl.int1)
        value, slope1, slope2 = _plane(image + first, everywhere, low1, a1, low2, a2, stride1, stride2, size1, size2)
        return value, slope1, slope1, slope2
    low0, a0 = _cell(x0, size0, CORNERS)
    first += _index(low0, WIDE) * stride0
    near, near1, near2 = _plane(image + first, _inside(low0, size0), low1, a1, low2, a2, stride1, stride2, size1, size2)
    far, far1, far2 = _plane(
        image + (first + stride0), _inside(low0 + 1, size0), low1, a1, low2, a2, stride1, stride2, size1, size2
    )
    value = near * (1 - a0) + far * a0
    return value, far - near, near1 * (1 - a0) + far1 * a0, near2 * (1 - a0) + far2 * a0


@triton.jit
def _index(low, WIDE: tl.constexpr):
    return low.to(tl.int64) if WIDE else low


@triton.jit
def _spread_plane(image, value, inside, low1, a1, low2, a2, size1, size2):
    in10, in11 = inside & _inside(low1, size1), inside & _inside(low1 + 1, size1)
    in20, in21 = _inside(low2, size2), _inside(low2 + 1, size2)
    low, high = value * (1 - a1), value * a1
    tl.atomic_add(image, low * (1 - a2), mask=in10 & in20, sem="relaxed")
    tl.atomic_add(image + 1, low * a2, mask=in10 & in21, sem="relaxed")
    tl.atomic_add(image + size2, high * (1 - a2), mask=in11 & in20, sem="relaxed")
    tl.atomic_add(image + (size2 + 1), high * a2, mask=in11 & in21, sem="relaxed")


@triton.jit
def _spread(
    image, value, x0, x1, x2, size0, size1, size2, DIMS: tl.constexpr, CORNERS: tl.constexpr, WIDE: tl.constexpr
):
    """The adjoint of `_read`: adds values to the voxels that are sampled; `image` contiguous, float32."""
    low1, a1 = _cell(x1, size1, CORNERS)
    low2, a2 = _cell(x2, size2, CORNERS)
    first = _index(low1, WIDE) * size2 + _index(low2, WIDE)
    if DIMS == 2:
        everywhere = tl.full((1, 1), 1, tl.int1)
        _spread_plane(image + first, value, everywhere, low1, a1, low2, a2, size1, size2)
    else:
        low0, a0 = _cell(x0, size0, CORNERS)
        near, far = _index(low0, WIDE) * size1 * size2, _index(low0 + 1, WIDE) * size1 * size2
        in0, in1 = _inside(low0, size0), _inside(low0 + 1, size0)
        _spread_plane(image + (near + first), value * (1 - a0), in0, low1, a1, low2, a2, size1, size2)
        _spread_plane(image + (far + first), value * a0, in1, low1, a1, low2, a2, size1, size2)


@triton.jit
def _coordinates(table, row, live, DIMS: tl.constexpr):
    """Rows of a contiguous (n, DIMS) table as three vectors; infinite where masked."""
    last = table + (row * DIMS + (DIMS - 1))
    x2 = tl.load(last, mask=live, other=float("inf"))
    x1 = tl.load(last - 1, mask=live, other=float("inf"))
    x0 = tl.load(last - 2, mask=live, other=float("inf")) if DIMS == 3 else x1
    return x0, x1, x2


@triton.jit
def _features(
    image, offsets, row, live, p0, p1, p2, image_channel, stride0, stride1, stride2, size0, size1, size2,
    COUNT: tl.constexpr, DIMS: tl.constexpr, PAIRS: tl.constexpr, CORNERS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Samples of rows (R,) around positions p (S,): (R, S), float32."""
    READS: tl.constexpr = 2 if PAIRS else 1
    channel = image + (row // COUNT).to(tl.int64)[:, None] * image_channel
    offset = row % COUNT * READS
    o0, o1, o2 = _coordinates(offsets, offset, live, DIMS)
    value, _0, _1, _2 = _read(
        channel, p0[None, :] + o0[:, None], p1[None, :] + o1[:, None], p2[None, :] + o2[:, None],
        stride0, stride1, stride2, size0, size1, size2, DIMS, CORNERS, WIDE,
    )  # fmt: skip
    if PAIRS:
        o0, o1, o2 = _coordinates(offsets, offset + 1, live, DIMS)
        minus, _0, _1, _2 = _read(
            channel, p0[None, :] + o0[:, None], p1[None, :] + o1[:, None], p2[None, :] + o2[:, None],
            stride0, stride1, stride2, size0, size1, size2, DIMS, CORNERS, WIDE,
        )  # fmt: skip
        value -= minus
    return value


@triton.jit
def sample_kernel(
    out, image, offsets, positions,
    rows, n_positions, tiles, position_batch,
    image_batch, image_channel, stride0, stride1, stride2, size0, size1, size2,
    COUNT: tl.constexpr, DIMS: tl.constexpr, PAIRS: tl.constexpr, CORNERS: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """out (B, C·K, S); programs: (batch and tile of S, block of rows)."""
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    position = tl.program_id(0) % tiles * BLOCK_S + tl.arange(0, BLOCK_S)
    row = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    p0, p1, p2 = _coordinates(positions + batch * position_batch, position, position < n_positions, DIMS)
    value = _features(
        image + batch * image_batch, offsets, row, row < rows, p0, p1, p2, image_channel,
        stride0, stride1, stride2, size0, size1, size2, COUNT, DIMS, PAIRS, CORNERS, WIDE,
    )  # fmt: skip
    at = out + (batch * rows + row[:, None]) * n_positions + position[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (position < n_positions)[None, :])


@triton.jit
def conv_kernel(
    out, image, offsets, weight, positions,
    rows, outputs, groups, n_positions, tiles, position_batch,
    image_batch, image_channel, stride0, stride1, stride2, size0, size1, size2,
    COUNT: tl.constexpr, DIMS: tl.constexpr, PAIRS: tl.constexpr, CORNERS: tl.constexpr, WIDE: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """out (B, O, S); programs: (batch and tile of S, group and block of outputs); `rows`, `outputs` of one group."""
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    position = tl.program_id(0) % tiles * BLOCK_S + tl.arange(0, BLOCK_S)
    blocks = tl.cdiv(outputs, BLOCK_O)
    group = tl.program_id(1) // blocks
    output = tl.program_id(1) % blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    p0, p1, p2 = _coordinates(positions + batch * position_batch, position, position < n_positions, DIMS)
    weight_row = weight + (group * outputs + output)[:, None] * rows
    total = tl.zeros((BLOCK_O, BLOCK_S), tl.float32)
    for start in range(0, rows, BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        features = _features(
            image + batch * image_batch, offsets, group * rows + row, row < rows, p0, p1, p2, image_channel,
            stride0, stride1, stride2, size0, size1, size2, COUNT, DIMS, PAIRS, CORNERS, WIDE,
        )  # fmt: skip
        weights = tl.load(weight_row + row[None, :], mask=(output < outputs)[:, None] & (row < rows)[None, :], other=0)
        features = features.to(weights.dtype)
        total = tl.dot(weights.to(OPERAND), features.to(OPERAND), total, input_precision=PRECISION)
    at = out + ((batch * groups + group) * outputs + output[:, None]) * n_positions + position[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=(output < outputs)[:, None] & (position < n_positions)[None, :])


@triton.jit
def backward_kernel(
    image_grad, offset_parts, weight_parts, grad, image, offsets, weight, positions,
    rows, outputs, groups, batches, n_positions, tiles, run_tiles, position_batch,
    grad_batch, grad_row, grad_position,
    image_batch, image_channel, stride0, stride1, stride2, size0, size1, size2,
    COUNT: tl.constexpr, DIMS: tl.constexpr, PAIRS: tl.constexpr, CORNERS: tl.constexpr, WIDE: tl.constexpr,
    PRODUCT: tl.constexpr, FOR_IMAGE: tl.constexpr, FOR_OFFSETS: tl.constexpr, FOR_WEIGHT: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """All gradients in one pass over the image; programs: (run of tiles, group and block of rows, block of outputs).

    A run spans the batch, so that there are as many partial sums as runs for any batch size. Several blocks of outputs
    each add their part: every gradient is linear in `grad`. `PRODUCT` False is plain sampling, where
    `grad` is (B, C·K, S) already, in one group with one output.

    Writes `offset_parts` (output blocks · runs, C·K, reads, DIMS), per voxel, and `weight_parts` (runs, O, rows) in
    float32; adds to `image_grad` (B, C, *spatial).
    """
    READS: tl.constexpr = 2 if PAIRS else 1
    run = tl.program_id(0)
    blocks = tl.cdiv(rows, BLOCK_R)
    group = tl.program_id(1) // blocks
    row = tl.program_id(1) % blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    live = row < rows
    all_rows = rows * groups
    channel = ((group * rows + row) // COUNT).to(tl.int64)[:, None]
    offset = (group * rows + row) % COUNT * READS
    o0, o1, o2 = _coordinates(offsets, offset, live, DIMS)
    output = tl.program_id(2) * BLOCK_O + tl.arange(0, BLOCK_O)
    if PRODUCT:
        weights = tl.load(
            weight + (group * outputs + output)[None, :] * rows + row[:, None],
            mask=(output < outputs)[None, :] & live[:, None], other=0,
        ).to(OPERAND)  # (R, O)  # fmt: skip
        grad_index = (group * outputs + output).to(tl.int64)[:, None] * grad_row
        grad_live = (output < outputs)[:, None]
    else:
        grad_index = row.to(tl.int64)[:, None] * grad_row
        grad_live = live[:, None]
    # Summed over positions only after the loop: reducing across threads once instead of once a tile.
    slope0 = tl.zeros((BLOCK_R, BLOCK_S), tl.float32)
    slope1, slope2, minus0, minus1, minus2 = slope0, slope0, slope0, slope0, slope0
    weight_total = tl.zeros((BLOCK_O, BLOCK_R), tl.float32)
    for tile in range(run * run_tiles, tl.minimum((run + 1) * run_tiles, batches * tiles)):
        batch = (tile // tiles).to(tl.int64)
        position = tile % tiles * BLOCK_S + tl.arange(0, BLOCK_S)
        p0, p1, p2 = _coordinates(positions + batch * position_batch, position, position < n_positions, DIMS)
        grads = tl.load(
            grad + batch * grad_batch + grad_index + position.to(tl.int64)[None, :] * grad_position,
            mask=grad_live & (position < n_positions)[None, :], other=0,
        )  # fmt: skip
        if PRODUCT:
            feature_grad = tl.dot(weights, grads.to(OPERAND), input_precision=PRECISION)  # (R, S)
        else:
            feature_grad = grads.to(tl.float32)
        volume = image + batch * image_batch + channel * image_channel
        volume_grad = image_grad + (batch * (all_rows // COUNT) + channel) * size0 * size1 * size2
        x0, x1, x2 = p0[None, :] + o0[:, None], p1[None, :] + o1[:, None], p2[None, :] + o2[:, None]
        features, d0, d1, d2 = _read(
            volume, x0, x1, x2, stride0, stride1, stride2, size0, size1, size2, DIMS, CORNERS, WIDE
        )
        if FOR_OFFSETS:
            slope0 += feature_grad * d0
            slope1 += feature_grad * d1
            slope2 += feature_grad * d2
        if FOR_IMAGE:
            _spread(volume_grad, feature_grad, x0, x1, x2, size0, size1, size2, DIMS, CORNERS, WIDE)
        if PAIRS:
            m0, m1, m2 = _coordinates(offsets, offset + 1, live, DIMS)
            x0, x1, x2 = p0[None, :] + m0[:, None], p1[None, :] + m1[:, None], p2[None, :] + m2[:, None]
            second, d0, d1, d2 = _read(
                volume, x0, x1, x2, stride0, stride1, stride2, size0, size1, size2, DIMS, CORNERS, WIDE
            )
            features -= second
            if FOR_OFFSETS:
                minus0 -= feature_grad * d0
                minus1 -= feature_grad * d1
                minus2 -= feature_grad * d2
            if FOR_IMAGE:
                _spread(volume_grad, -feature_grad, x0, x1, x2, size0, size1, size2, DIMS, CORNERS, WIDE)
        if FOR_WEIGHT:
            transposed = tl.trans(features.to(weight.dtype.element_ty)).to(OPERAND)  # (S, R)
            weight_total = tl.dot(grads.to(OPERAND), transposed, weight_total, input_precision=PRECISION)
    if FOR_OFFSETS:
        part = (tl.program_id(2) * tl.num_programs(0) + run).to(tl.int64) * all_rows + group * rows + row
        at = offset_parts + part * (READS * DIMS)
        if DIMS == 3:
            tl.store(at, tl.sum(slope0, 1), mask=live)
        tl.store(at + (DIMS - 2), tl.sum(slope1, 1), mask=live)
        tl.store(at + (DIMS - 1), tl.sum(slope2, 1), mask=live)
        if PAIRS:
            if DIMS == 3:
                tl.store(at + 3, tl.sum(minus0, 1), mask=live)
            tl.store(at + (2 * DIMS - 2), tl.sum(minus1, 1), mask=live)
            tl.store(at + (2 * DIMS - 1), tl.sum(minus2, 1), mask=live)
    if FOR_WEIGHT:
        line = (run.to(tl.int64) * groups + group) * outputs + output[:, None]
        at = weight_parts + line * rows + row[None, :]
        tl.store(at, weight_total, mask=(output < outputs)[:, None] & live[None, :])
