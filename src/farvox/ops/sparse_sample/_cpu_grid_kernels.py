"""Numba kernels that sample an image around the positions of a regular grid, and their adjoints.

The README has the derivation. A *read* is one offset (a pair is two reads, the second one subtracted). Its lower corner
is voxel `low`, its upper corner `low + 1`, `frac` the distance from the lower one. A *slab* is the part of one channel
that a block of outputs can reach, zeros around it, cut into phases: (i, phase j, phase k, j, k), the last axis `pitch`
long. Rows of features have the same pitch, so that the reads of a whole plane are one contiguous run.
"""

from __future__ import annotations

import numpy as np

from farvox.ops.jit import kernel


@kernel
def _columns(low_k, size_k, phases_k, pitch):
    """For each phase, first and one past the last column in the image."""
    spans = np.empty((phases_k, 2), np.int64)
    for phase in range(phases_k):
        start = low_k + phase
        spans[phase, 0] = min(pitch, max(0, -(start // phases_k)))
        spans[phase, 1] = max(spans[phase, 0], min(pitch, (size_k - 1 - start) // phases_k + 1))
    return spans


@kernel
def split(image, low_i, low_j, low_k, slab):
    """Copy image (I, J, K) from voxel (low_i, low_j, low_k) on into phases; zeros outside."""
    planes, phases_j, phases_k, rows, pitch = slab.shape
    size_i, size_j, size_k = image.shape
    spans = _columns(low_k, size_k, phases_k, pitch)
    for i in range(planes):
        at_i = low_i + i
        for j in range(rows):
            for phase_j in range(phases_j):
                at_j = low_j + j * phases_j + phase_j
                if not (0 <= at_i < size_i and 0 <= at_j < size_j):
                    slab[i, phase_j, :, j] = 0
                    continue
                source = image[at_i, at_j]
                for phase_k in range(phases_k):
                    target = slab[i, phase_j, phase_k, j]
                    first, last = spans[phase_k]
                    start = low_k + phase_k
                    for k in range(first):
                        target[k] = 0
                    for k in range(first, last):
                        target[k] = source[start + k * phases_k]
                    for k in range(last, pitch):
                        target[k] = 0


@kernel
def unsplit_add(slab, low_i, low_j, low_k, image, from_i, to_i):
    """Add a slab to image planes from_i..to_i, the adjoint of `split`."""
    planes, phases_j, phases_k, rows, pitch = slab.shape
    _, size_j, size_k = image.shape
    spans = _columns(low_k, size_k, phases_k, pitch)
    for i in range(max(0, from_i - low_i), min(planes, to_i - low_i)):
        for j in range(rows):
            for phase_j in range(phases_j):
                at_j = low_j + j * phases_j + phase_j
                if not 0 <= at_j < size_j:
                    continue
                target = image[low_i + i, at_j]
                for phase_k in range(phases_k):
                    source = slab[i, phase_j, phase_k, j]
                    first, last = spans[phase_k]
                    start = low_k + phase_k
                    for k in range(first, last):
                        target[start + k * phases_k] += source[k]


@kernel
def _blend8(source, at, w, target):
    n = len(target)
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    s0, s1 = source[at[0] : at[0] + n], source[at[1] : at[1] + n]
    s2, s3 = source[at[2] : at[2] + n], source[at[3] : at[3] + n]
    s4, s5 = source[at[4] : at[4] + n], source[at[5] : at[5] + n]
    s6, s7 = source[at[6] : at[6] + n], source[at[7] : at[7] + n]
    for t in range(n):
        low = w0 * s0[t] + w1 * s1[t] + w2 * s2[t] + w3 * s3[t]
        target[t] = low + (w4 * s4[t] + w5 * s5[t] + w6 * s6[t] + w7 * s7[t])


@kernel
def _blend4(source, at, w, target):
    n = len(target)
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    s0, s1 = source[at[0] : at[0] + n], source[at[1] : at[1] + n]
    s2, s3 = source[at[2] : at[2] + n], source[at[3] : at[3] + n]
    for t in range(n):
        target[t] = (w0 * s0[t] + w1 * s1[t]) + (w2 * s2[t] + w3 * s3[t])


@kernel
def _dots4(run, source, at, d):
    """Dot products of a run with four others."""
    n = len(run)
    s0, s1 = source[at[0] : at[0] + n], source[at[1] : at[1] + n]
    s2, s3 = source[at[2] : at[2] + n], source[at[3] : at[3] + n]
    d0, d1, d2, d3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for t in range(n):
        value = run[t]
        d0 += value * s0[t]
        d1 += value * s1[t]
        d2 += value * s2[t]
        d3 += value * s3[t]
    d[0], d[1], d[2], d[3] = d0, d1, d2, d3


@kernel
def _axpy(weight, a, target):
    for t in range(len(a)):
        target[t] += weight * a[t]


@kernel
def _subtract(a, target):
    for t in range(len(a)):
        target[t] -= a[t]


@kernel
def _clear_columns(run, pitch, width, first):
    """Zero the samples of a run beyond the ends of its rows; it starts at column `first`, `width` columns are used."""
    start = width
    while start < len(run):
        for t in range(start, min(start + pitch - width, len(run))):
            run[t] = 0
        start += pitch


@kernel
def _corners(shape, i, low_j, low_k, frac_i, frac_j, frac_k, at, w):
    """Indices in the slab of the eight corners of output (j = 0, k = 0), and their weights: lower plane first."""
    _, phases_j, phases_k, rows, pitch = shape
    n = 0
    for a in range(2):
        weight_i = frac_i if a else 1 - frac_i
        for b in range(2):
            j = low_j + b
            weight_j = frac_j if b else 1 - frac_j
            for c in range(2):
                k = low_k + c
                # Floor division: a lower corner left of the slab's first voxel belongs to outputs that are not valid.
                plane = ((i + a) * phases_j + j % phases_j) * phases_k + k % phases_k
                at[n] = (plane * rows + j // phases_j) * pitch + k // phases_k
                w[n] = weight_i * weight_j * (frac_k if c else 1 - frac_k)
                n += 1


@kernel
def sample_runs(
    slab, first_k, order, low_i, frac_i, low_j, frac_j, valid_j, low_k, frac_k, valid_k, i0, i1, j0, j1, out
):
    """Features of one channel where steps along j and k are whole: out (K, (i1-i0)·(j1-j0)·pitch).

    first_k, order: offsets to read, see `Chunk`. low_i, frac_i: (R, I), -1 where nothing is read. low_j, low_k, frac_j,
    frac_k: (R,), of output 0, counted from the slab's first voxel. valid: (R, 2), outputs that touch the image.
    """
    pitch = slab.shape[4]
    reads, flat = order.shape[0], slab.reshape(-1)
    at, w = np.empty(8, np.int64), np.empty(8, np.float32)
    plane = (j1 - j0) * pitch
    spare = np.empty(plane, np.float32)
    for part in range(reads):
        for k in order[part]:
            r = (first_k + k) * reads + part
            ja, jb = max(j0, valid_j[r, 0]), min(j1, valid_j[r, 1])
            ka, kb = valid_k[r, 0], valid_k[r, 1]
            for i in range(i0, i1):
                whole = out[k, (i - i0) * plane : (i - i0 + 1) * plane]
                if low_i[r, i] < 0 or ja >= jb or ka >= kb:
                    if part == 0:
                        whole[:] = 0
                    continue
                _corners(slab.shape, low_i[r, i], low_j[r], low_k[r], frac_i[r, i], frac_j[r], frac_k[r], at, w)
                at += ja * pitch + ka
                first = (ja - j0) * pitch + ka
                last = (jb - 1 - j0) * pitch + kb
                run = whole[first:last] if part == 0 else spare[first:last]
                if frac_i[r, i] == 0:
                    _blend4(flat, at, w, run)
                else:
                    _blend8(flat, at, w, run)
                if kb - ka < pitch:
                    _clear_columns(run, pitch, kb - ka, ka)
                if part == 0:
                    whole[:first] = 0
                    whole[last:] = 0
                else:
                    _subtract(run, whole[first:last])


@kernel
def adjoint_runs(
    slab,
    first_k,
    order,
    low_i,
    frac_i,
    low_j,
    frac_j,
    valid_j,
    low_k,
    frac_k,
    valid_k,
    i0,
    i1,
    j0,
    j1,
    grad,
    slab_grad,
    moves,
):
    """Adjoint of `sample_runs`: adds to slab_grad (unless empty) and, in voxels, to moves (R, 3) (unless empty)."""
    pitch = slab.shape[4]
    reads, flat, flat_grad = order.shape[0], slab.reshape(-1), slab_grad.reshape(-1)
    at, w, d = np.empty(8, np.int64), np.empty(8, np.float32), np.zeros(8, np.float32)
    plane = (j1 - j0) * pitch
    spare = np.empty(plane, np.float32)
    for part in range(reads):
        for k in order[part]:
            r = (first_k + k) * reads + part
            ja, jb = max(j0, valid_j[r, 0]), min(j1, valid_j[r, 1])
            ka, kb = valid_k[r, 0], valid_k[r, 1]
            if ja >= jb or ka >= kb:
                continue
            sign = np.float32(1 - 2 * part)
            for i in range(i0, i1):
                if low_i[r, i] < 0:
                    continue
                fi, fj, fk = frac_i[r, i], frac_j[r], frac_k[r]
                _corners(slab.shape, low_i[r, i], low_j[r], low_k[r], fi, fj, fk, at, w)
                at += ja * pitch + ka
                first, last = (ja - j0) * pitch + ka, (jb - 1 - j0) * pitch + kb
                run = spare[first:last]
                run[:] = grad[k, (i - i0) * plane + first : (i - i0) * plane + last]
                if kb - ka < pitch:
                    _clear_columns(run, pitch, kb - ka, ka)
                n = len(run)
                if len(moves):
                    _dots4(run, flat, at[:4], d[:4])
                    _dots4(run, flat, at[4:], d[4:])
                    d *= sign
                    gi, gj = 1 - fj, 1 - fi
                    moves[r, 0] += gi * ((1 - fk) * (d[4] - d[0]) + fk * (d[5] - d[1]))
                    moves[r, 0] += fj * ((1 - fk) * (d[6] - d[2]) + fk * (d[7] - d[3]))
                    moves[r, 1] += gj * ((1 - fk) * (d[2] - d[0]) + fk * (d[3] - d[1]))
                    moves[r, 1] += fi * ((1 - fk) * (d[6] - d[4]) + fk * (d[7] - d[5]))
                    moves[r, 2] += gj * ((1 - fj) * (d[1] - d[0]) + fj * (d[3] - d[2]))
                    moves[r, 2] += fi * ((1 - fj) * (d[5] - d[4]) + fj * (d[7] - d[6]))
                if len(flat_grad):
                    for c in range(4 if fi == 0 else 8):
                        _axpy(sign * w[c], run, flat_grad[at[c] : at[c] + n])


@kernel
def sample_rows(slab, first_k, order, low_i, frac_i, low_j, frac_j, low_k, frac_k, valid_k, i0, i1, j0, j1, out):
    """Features of one channel for any steps: four rows are combined to one, which is sampled at two voxels per output.

    As `sample_runs`, with low_j, frac_j (R, J) and low_k, frac_k (R, K outputs); the slab has one phase an axis.
    """
    rows, pitch = slab.shape[3:]
    reads, flat = order.shape[0], slab.reshape(-1)
    at, w = np.empty(4, np.int64), np.empty(4, np.float32)
    row = np.empty(pitch, np.float32)
    width = low_k.shape[1]
    for part in range(reads):
        for k in order[part]:
            r = (first_k + k) * reads + part
            ka, kb = valid_k[r, 0], valid_k[r, 1]
            for i in range(i0, i1):
                for j in range(j0, j1):
                    start = ((i - i0) * (j1 - j0) + j - j0) * width
                    target = out[k, start : start + width]
                    if low_i[r, i] < 0 or low_j[r, j] < 0 or ka >= kb:
                        if part == 0:
                            target[:] = 0
                        continue
                    begin, end = low_k[r, ka], low_k[r, kb - 1] + 2
                    _row_corners(rows, pitch, low_i[r, i], low_j[r, j], frac_i[r, i], frac_j[r, j], begin, at, w)
                    _blend4(flat, at, w, row[begin:end])
                    if part == 0:
                        target[:ka] = 0
                        target[kb:] = 0
                        for t in range(ka, kb):
                            left, f = low_k[r, t], frac_k[r, t]
                            target[t] = row[left] + f * (row[left + 1] - row[left])
                    else:
                        for t in range(ka, kb):
                            left, f = low_k[r, t], frac_k[r, t]
                            target[t] -= row[left] + f * (row[left + 1] - row[left])


@kernel
def adjoint_rows(
    slab, first_k, order, low_i, frac_i, low_j, frac_j, low_k, frac_k, valid_k, i0, i1, j0, j1, grad, slab_grad, moves
):
    """Adjoint of `sample_rows`; results as `adjoint_runs`."""
    rows, pitch = slab.shape[3:]
    reads, flat, flat_grad = order.shape[0], slab.reshape(-1), slab_grad.reshape(-1)
    at, w, d = np.empty(4, np.int64), np.empty(4, np.float32), np.zeros(4, np.float32)
    row, fan_out = np.empty(pitch, np.float32), np.empty(pitch, np.float32)
    width = low_k.shape[1]
    for part in range(reads):
        for k in order[part]:
            r = (first_k + k) * reads + part
            ka, kb = valid_k[r, 0], valid_k[r, 1]
            if ka >= kb:
                continue
            sign = np.float32(1 - 2 * part)
            begin, end = low_k[r, ka], low_k[r, kb - 1] + 2
            for i in range(i0, i1):
                if low_i[r, i] < 0:
                    continue
                for j in range(j0, j1):
                    if low_j[r, j] < 0:
                        continue
                    start = ((i - i0) * (j1 - j0) + j - j0) * width
                    source = grad[k, start : start + width]
                    fi, fj = frac_i[r, i], frac_j[r, j]
                    _row_corners(rows, pitch, low_i[r, i], low_j[r, j], fi, fj, begin, at, w)
                    fan_out[begin:end] = 0
                    for t in range(ka, kb):
                        left, part_k = low_k[r, t], sign * source[t] * frac_k[r, t]
                        fan_out[left] += sign * source[t] - part_k
                        fan_out[left + 1] += part_k
                    run = fan_out[begin:end]
                    n = len(run)
                    if len(moves):
                        _dots4(run, flat, at, d)
                        moves[r, 0] += (1 - fj) * (d[2] - d[0]) + fj * (d[3] - d[1])
                        moves[r, 1] += (1 - fi) * (d[1] - d[0]) + fi * (d[3] - d[2])
                        _blend4(flat, at, w, row[begin:end])
                        along = np.float32(0)
                        for t in range(ka, kb):
                            along += source[t] * (row[low_k[r, t] + 1] - row[low_k[r, t]])
                        moves[r, 2] += sign * along
                    if len(flat_grad):
                        for c in range(4):
                            _axpy(w[c], run, flat_grad[at[c] : at[c] + n])


@kernel
def _row_corners(rows, pitch, i, j, frac_i, frac_j, begin, at, w):
    for a in range(2):
        for b in range(2):
            at[2 * a + b] = ((i + a) * rows + j + b) * pitch + begin
            w[2 * a + b] = (frac_i if a else 1 - frac_i) * (frac_j if b else 1 - frac_j)
