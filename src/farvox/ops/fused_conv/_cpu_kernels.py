"""Numba kernel of the fused convolution; see README.md for its order of computation."""

from __future__ import annotations

import numpy as np

from farvox.ops.jit import kernel


@kernel
def conv_planes(
    image,
    coarse,
    taps,
    bias,
    head,
    head_bias,
    slope,
    low_i,
    frac_i,
    low_j,
    frac_j,
    low_k,
    frac_k,
    first,
    last,
    rows,
    out,
):
    """Planes first..last of out (H or O, I, J, K), `rows` rows at a time.

    image (C, I, J, K), coarse (D, i, j, k), taps (O, D + C, 27), head (H, O) or empty; low, frac: positions of fine
    voxels between coarse ones.
    """
    size_j, size_k = image.shape[2:]
    outputs, channels = taps.shape[0], taps.shape[1]
    pitch = size_k + 2
    planes = np.zeros((3, channels, (rows + 2) * pitch), np.float32)
    sums = np.empty((outputs, rows * pitch), np.float32)
    line = np.empty(coarse.shape[3], np.float32)
    for start in range(0, size_j, rows):
        count = min(rows, size_j - start)
        for i in range(first - 1, last + 1):
            _load(
                image, coarse, low_i, frac_i, low_j, frac_j, low_k, frac_k, i, start, count, line, planes[(i + 3) % 3]
            )
            if i <= first:
                continue
            centre = i - 1
            run = count * pitch - 2
            for o in range(outputs):
                total = sums[o, :run]
                total[:] = bias[o]
                for a in range(3):
                    plane = planes[(centre + a + 2) % 3]
                    for c in range(channels):
                        _nine(plane[c], pitch, taps[o, c, 9 * a : 9 * a + 9], total)
                for t in range(run):
                    total[t] = total[t] if total[t] > 0 else slope * total[t]
            for j in range(count):
                span = slice(j * pitch, j * pitch + size_k)
                if len(head):
                    for h in range(len(head)):
                        target = out[h, centre, start + j]
                        target[:] = head_bias[h]
                        for o in range(outputs):
                            _axpy(head[h, o], sums[o, span], target)
                else:
                    for o in range(outputs):
                        out[o, centre, start + j] = sums[o, span]


@kernel
def _load(image, coarse, low_i, frac_i, low_j, frac_j, low_k, frac_k, i, start, count, line, plane):
    """Rows start - 1 to start + count of plane i, all channels, one zero before and after each row."""
    _, size_i, size_j, size_k = image.shape
    pitch = size_k + 2
    upsampled = coarse.shape[0]
    for row in range(count + 2):
        j = start + row - 1
        begin = row * pitch + 1
        if not (0 <= i < size_i and 0 <= j < size_j):
            plane[:, begin : begin + size_k] = 0
            continue
        for c in range(image.shape[0]):
            plane[upsampled + c, begin : begin + size_k] = image[c, i, j]
        if upsampled:
            ia, ja, fi, fj = low_i[i], low_j[j], frac_i[i], frac_j[j]
            ib, jb = min(ia + 1, coarse.shape[1] - 1), min(ja + 1, coarse.shape[2] - 1)
            top = coarse.shape[3] - 1
            for c in range(upsampled):
                _mix(coarse[c, ia, ja], coarse[c, ia, jb], coarse[c, ib, ja], coarse[c, ib, jb], fi, fj, line)
                target = plane[c, begin : begin + size_k]
                for k in range(size_k):
                    a = low_k[k]
                    target[k] = line[a] + frac_k[k] * (line[min(a + 1, top)] - line[a])


@kernel
def _mix(aa, ab, ba, bb, fi, fj, line):
    waa, wab, wba, wbb = (1 - fi) * (1 - fj), (1 - fi) * fj, fi * (1 - fj), fi * fj
    for t in range(len(line)):
        line[t] = waa * aa[t] + wab * ab[t] + wba * ba[t] + wbb * bb[t]


@kernel
def _nine(plane, pitch, w, total):
    """Add three rows' taps to every position of a run."""
    n = len(total)
    r0, r1, r2 = plane[: n + 2], plane[pitch : pitch + n + 2], plane[2 * pitch : 2 * pitch + n + 2]
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    for t in range(n):
        a = w0 * r0[t] + w1 * r0[t + 1] + w2 * r0[t + 2]
        b = w3 * r1[t] + w4 * r1[t + 1] + w5 * r1[t + 2]
        c = w6 * r2[t] + w7 * r2[t + 1] + w8 * r2[t + 2]
        total[t] += a + b + c


@kernel
def _axpy(weight, a, target):
    for t in range(len(a)):
        target[t] += weight * a[t]
