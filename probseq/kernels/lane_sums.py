"""Sums over the steps and the lanes of blocks: expected transitions, moments, statistics, and weights by code."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lanes import LANES, add_totals, load, splat, spread, where_seen
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.tracks import Block


@kernel
def add_pairs(left: np.ndarray, right: np.ndarray, count: int, pairs: np.ndarray) -> None:
    """sum_t,lane left_ti right_t+1,j over the first ``count`` rows, to ``pairs`` (i / 2, j / 4, 2 x 4 flat).

    Two by four states at a time: 16 sums of 512 bits in registers, six vectors read for eight products.
    """
    width = left.shape[1]
    for i in range(0, width, 2):
        for j in range(0, width, 4):
            a = splat(0.0)
            b = splat(0.0)
            c = splat(0.0)
            d = splat(0.0)
            e = splat(0.0)
            f = splat(0.0)
            g = splat(0.0)
            h = splat(0.0)
            for t in range(count):
                place = (t * width + i) * LANES
                one = load(left, place)
                two = load(left, place + LANES)
                place = ((t + 1) * width + j) * LANES
                value = load(right, place)
                a = a + one * value
                e = e + two * value
                value = load(right, place + LANES)
                b = b + one * value
                f = f + two * value
                value = load(right, place + 2 * LANES)
                c = c + one * value
                g = g + two * value
                value = load(right, place + 3 * LANES)
                d = d + one * value
                h = h + two * value
            add_totals(pairs, (i // 2 * (width // 4) + j // 4) * 8, a, b, c, d, e, f, g, h)


@kernel
def unpacked_pairs(pairs: np.ndarray, counts: np.ndarray) -> None:
    """counts (s, s) += the tiles of `add_pairs`."""
    for i in range(counts.shape[0]):
        for j in range(counts.shape[1]):
            counts[i, j] += pairs[i // 2, j // 4, i % 2 * 4 + j % 4]


@kernel
def add_normal_sums(mean: np.ndarray, x: np.ndarray, missing: bool, gamma: np.ndarray, count: int, sums: np.ndarray):
    """Sums of gamma times the powers 0, 1, 2 of x - mean, to ``sums`` (state / 4, variable, 16 flat).

    Deviations from the current mean keep the variance exact when the mean is large against it.
    """
    n_variables, width = mean.shape
    nothing = splat(0.0)
    for j in range(0, width, 4):
        zeroth = (nothing, nothing, nothing, nothing)
        for k in range(n_variables):
            # Without holes the sums of gamma are the same for all variables.
            anew = missing or k == 0
            if anew:
                zeroth = (nothing, nothing, nothing, nothing)
            first = (nothing, nothing, nothing, nothing)
            second = (nothing, nothing, nothing, nothing)
            centres = (
                spread(mean, k * width + j),
                spread(mean, k * width + j + 1),
                spread(mean, k * width + j + 2),
                spread(mean, k * width + j + 3),
            )
            for t in range(count):
                point = load(x, (t * n_variables + k) * LANES)
                place = (t * width + j) * LANES
                weights = (
                    load(gamma, place),
                    load(gamma, place + LANES),
                    load(gamma, place + 2 * LANES),
                    load(gamma, place + 3 * LANES),
                )
                if missing:
                    weights = (
                        where_seen(point, weights[0], nothing),
                        where_seen(point, weights[1], nothing),
                        where_seen(point, weights[2], nothing),
                        where_seen(point, weights[3], nothing),
                    )
                    point = where_seen(point, point, nothing)
                gaps = (point - centres[0], point - centres[1], point - centres[2], point - centres[3])
                moved = (weights[0] * gaps[0], weights[1] * gaps[1], weights[2] * gaps[2], weights[3] * gaps[3])
                if anew:
                    zeroth = (
                        zeroth[0] + weights[0],
                        zeroth[1] + weights[1],
                        zeroth[2] + weights[2],
                        zeroth[3] + weights[3],
                    )
                first = (first[0] + moved[0], first[1] + moved[1], first[2] + moved[2], first[3] + moved[3])
                second = (
                    second[0] + moved[0] * gaps[0],
                    second[1] + moved[1] * gaps[1],
                    second[2] + moved[2] * gaps[2],
                    second[3] + moved[3] * gaps[3],
                )
            place = (j // 4 * n_variables + k) * 16
            a, b, c, d = first
            e, f, g, h = second
            add_totals(sums, place, a, b, c, d, e, f, g, h)
            a, b, c, d = zeroth
            add_totals(sums, place + 8, a, b, c, d, nothing, nothing, nothing, nothing)


@kernel
def unpacked_moments(sums: np.ndarray, moments: np.ndarray) -> None:
    """moments (3, variables, s) += the tiles of `add_normal_sums`."""
    for k in range(moments.shape[1]):
        for j in range(moments.shape[2]):
            moments[0, k, j] += sums[j // 4, k, 8 + j % 4]
            moments[1, k, j] += sums[j // 4, k, j % 4]
            moments[2, k, j] += sums[j // 4, k, 4 + j % 4]


@kernel
def add_statistic_sums(x: np.ndarray, gamma: np.ndarray, count: int, sums: np.ndarray) -> None:
    """Sums of gamma times statistics x (step, statistic, lane), to ``sums`` (state / 4, statistic / 2, 8 flat)."""
    n_statistics, width = x.shape[1], gamma.shape[1]
    for j in range(0, width, 4):
        for k in range(0, n_statistics, 2):
            other = min(k + 1, n_statistics - 1)
            a = splat(0.0)
            b = splat(0.0)
            c = splat(0.0)
            d = splat(0.0)
            e = splat(0.0)
            f = splat(0.0)
            g = splat(0.0)
            h = splat(0.0)
            for t in range(count):
                one = load(x, (t * n_statistics + k) * LANES)
                two = load(x, (t * n_statistics + other) * LANES)
                place = (t * width + j) * LANES
                weight = load(gamma, place)
                a = a + one * weight
                e = e + two * weight
                weight = load(gamma, place + LANES)
                b = b + one * weight
                f = f + two * weight
                weight = load(gamma, place + 2 * LANES)
                c = c + one * weight
                g = g + two * weight
                weight = load(gamma, place + 3 * LANES)
                d = d + one * weight
                h = h + two * weight
            add_totals(sums, (j // 4 * sums.shape[1] + k // 2) * 8, a, b, c, d, e, f, g, h)


@kernel
def unpacked_statistics(sums: np.ndarray, totals: np.ndarray) -> None:
    """totals (statistics, s) += the tiles of `add_statistic_sums`."""
    for k in range(totals.shape[0]):
        for j in range(totals.shape[1]):
            totals[k, j] += sums[j // 4, k // 2, k % 2 * 4 + j % 4]


@kernel
def add_code_sums(emission: LogEmission, block: Block, gamma: np.ndarray, totals: np.ndarray) -> None:
    """totals (codes, s) += gamma of the steps with each code."""
    for lane, i, size, q, t in block.runs[: block.n_runs[0]]:
        for k in range(size):
            code = emission.codes[q, t + k]
            for j in range(totals.shape[1]):
                totals[code, j] += gamma[i + k, j, lane]
