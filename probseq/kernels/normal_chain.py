"""Log emissions of a chain: a table, a table by code, or densities that are made block by block and never kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from probseq.kernels.compiler import kernel

# Up to so many states the densities are made state by state, along the steps.
_FEW_STATES = 48
_NONE = np.empty((0, 0, 0))
_NO_TABLE = np.empty((0, 0, 0, 0))
_NO_CODES = np.empty((0, 0), dtype=np.int64)


class LogEmission(NamedTuple):
    """log p(x_t | z_t = j) as a table, or as the parameters of independent normals or of an exponential family.

    A leading (draw) axis of length 1 stands for all draws; what does not apply is empty. ``table`` is (draw, n, t, s),
    or with ``codes`` (n, t) one row for each code, (draw, 1, code, s). For normals ``x`` is (n, t, d) with NaN for a
    missing coordinate, and mean, precision (1 / variance), constant (-log(2 pi variance) / 2) are (draw, d, s). For
    exponential families ``statistics`` is (n, t, f) and ``natural`` (draw, f, s); statistics may also stand beside a
    table, for their sums.
    """

    table: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    precision: np.ndarray
    constant: np.ndarray
    codes: np.ndarray
    statistics: np.ndarray
    natural: np.ndarray

    @property
    def n_steps(self) -> int:
        """Padded length of the sequences."""
        if self.table.size == 0 and (self.mean.size or self.natural.size):
            return self.x.shape[1] if self.mean.size else self.statistics.shape[1]
        return self.codes.shape[1] if len(self.codes) else self.table.shape[2]

    @property
    def sums_shape(self) -> tuple[int, int]:
        """Sums over the steps that an M-step needs of each state: powers and variables, statistics, or codes."""
        if self.mean.size:
            return 3, self.mean.shape[1]
        if len(self.codes):
            return 1, self.table.shape[2]
        return 1, self.statistics.shape[2]


def table_emission(log_emission: np.ndarray, statistics: np.ndarray | None = None) -> LogEmission:
    """Log emissions given as a table.

    Parameters
    ----------
    log_emission
        (draw or 1, n, t, s), nats; -inf where a state cannot emit the observation, 0 where nothing was observed.
    statistics
        (n, t, f), finite: what `summed_expectations` sums.
    """
    given = _NONE if statistics is None else plain(statistics)
    return LogEmission(plain(log_emission), _NONE, _NONE, _NONE, _NONE, _NO_CODES, given, _NONE)


def coded_emission(log_emission: np.ndarray, codes: np.ndarray) -> LogEmission:
    """log p(x_t | z_t = j) = log_emission_cj for the code c of step t.

    Parameters
    ----------
    log_emission
        (draw or 1, C, s), nats.
    codes
        (n, t) integers from 0 to C - 1.
    """
    table = plain(np.asarray(log_emission)[:, None])
    codes = plain(np.asarray(codes), np.int64)
    return LogEmission(table, _NONE, _NONE, _NONE, _NONE, codes, _NONE, _NONE)


def linear_emission(statistics: np.ndarray, natural: np.ndarray) -> LogEmission:
    """log p(x_t | z_t = j) = sum_f natural_jf statistics_tf, up to a term that is the same for all states.

    Parameters
    ----------
    statistics
        (n, t, f), finite; zero where nothing was observed.
    natural
        (draw or 1, s, f), finite.
    """
    turned = plain(np.swapaxes(np.asarray(natural), 1, 2))
    return LogEmission(_NO_TABLE, _NONE, _NONE, _NONE, _NONE, _NO_CODES, plain(statistics), turned)


def normal_emission(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> LogEmission:
    """log p(x_t | z_t = j) = sum over seen k of log N(x_tk; mean_jk, variance_jk).

    Parameters
    ----------
    x
        (n, t, d) observations, NaN where a coordinate is missing (it is integrated out, exactly).
    mean, variance
        (draw or 1, s, d), in units of x and their square; variance positive.
    """
    variance = np.asarray(variance, dtype=np.float64)
    turned = [np.swapaxes(a, 1, 2) for a in (np.asarray(mean), 1.0 / variance, -0.5 * np.log(2 * np.pi * variance))]
    return LogEmission(_NO_TABLE, plain(x), *(plain(a) for a in turned), _NO_CODES, _NONE, _NONE)


def plain(array: np.ndarray, kind: type = np.float64) -> np.ndarray:
    """The array in one memory layout, writable: each other layout would compile every kernel once more."""
    if array.flags.carray and array.dtype == kind:
        return array
    return np.require(array, dtype=kind, requirements=["C", "W"])


@kernel(fastmath={"contract"})
def fill_block(
    emission: LogEmission, draw: int, sequence: int, first: int, count: int, block: np.ndarray, peak: np.ndarray
) -> None:
    """block_i <- log emission of step first + i minus its maximum over states, peak_i <- that maximum."""
    size = block.shape[1]
    if emission.natural.size > 0:
        _fill_linear(emission, draw, sequence, first, count, block)
    elif emission.codes.shape[0] > 0:
        table = emission.table[draw % emission.table.shape[0], 0]
        for i in range(count):
            code = emission.codes[sequence, first + i]
            for j in range(size):
                block[i, j] = table[code, j]
    elif emission.mean.size == 0:
        table = emission.table[draw % emission.table.shape[0], sequence]
        for i in range(count):
            for j in range(size):
                block[i, j] = table[first + i, j]
    elif size > _FEW_STATES:
        _fill_normal(emission, draw, sequence, first, count, block)
    else:
        _fill_normal_turned(emission, draw, sequence, first, count, block, peak)
        return
    for i in range(count):
        top = block[i, 0]
        for j in range(size):
            top = block[i, j] if block[i, j] > top else top
        peak[i] = top
        if top > -np.inf:
            for j in range(size):
                block[i, j] -= top


@kernel(fastmath={"contract"})
def _fill_linear(emission: LogEmission, draw: int, sequence: int, first: int, count: int, block: np.ndarray) -> None:
    natural = emission.natural[draw % emission.natural.shape[0]]
    statistics = emission.statistics[sequence]
    for i in range(count):
        for j in range(block.shape[1]):
            block[i, j] = 0.0
        for f in range(natural.shape[0]):
            value = statistics[first + i, f]
            for j in range(block.shape[1]):
                block[i, j] += value * natural[f, j]


@kernel(fastmath={"contract"})
def _fill_normal(emission: LogEmission, draw: int, sequence: int, first: int, count: int, block: np.ndarray) -> None:
    size = block.shape[1]
    k = draw % emission.mean.shape[0]
    mean = emission.mean[k]
    precision = emission.precision[k]
    constant = emission.constant[k]
    x = emission.x[sequence]
    for i in range(count):
        for j in range(size):
            block[i, j] = 0.0
        for d in range(mean.shape[0]):
            value = x[first + i, d]
            if not math.isnan(value):
                for j in range(size):
                    gap = value - mean[d, j]
                    block[i, j] += constant[d, j] - 0.5 * gap * gap * precision[d, j]


@kernel(fastmath={"contract"})
def _fill_normal_turned(
    emission: LogEmission, draw: int, sequence: int, first: int, count: int, block: np.ndarray, peak: np.ndarray
) -> None:
    # For few states the steps are the long axis: sweeps over 64 steps, state by state, then turned into the block.
    size = block.shape[1]
    k = draw % emission.mean.shape[0]
    mean = emission.mean[k]
    precision = emission.precision[k]
    constant = emission.constant[k]
    x = emission.x[sequence]
    columns = np.empty((mean.shape[0], 64))
    sums = np.empty((size, 64))
    top = np.empty(64)
    for begin in range(0, count, 64):
        width = min(64, count - begin)
        for d in range(mean.shape[0]):
            for i in range(width):
                columns[d, i] = x[first + begin + i, d]
        for i in range(64):
            top[i] = -np.inf
        for j in range(size):
            row = sums[j]
            for i in range(64):
                row[i] = 0.0
            for d in range(mean.shape[0]):
                centre = mean[d, j]
                half = -0.5 * precision[d, j]
                offset = constant[d, j]
                column = columns[d]
                for i in range(64):
                    gap = column[i] - centre
                    value = offset + gap * gap * half
                    row[i] += 0.0 if math.isnan(value) else value
            for i in range(64):
                top[i] = row[i] if row[i] > top[i] else top[i]
        for i in range(width):
            peak[begin + i] = top[i]
            top[i] = top[i] if top[i] > -np.inf else 0.0
        for j in range(size):
            for i in range(width):
                block[begin + i, j] = sums[j, i] - top[i]


@kernel(fastmath={"contract"})
def add_sums(
    emission: LogEmission, draw: int, sequence: int, length: int, posterior: np.ndarray, sums: np.ndarray
) -> None:
    """sums (``sums_shape``, s) += posterior times the powers of deviations, the statistics, or by code."""
    size = posterior.shape[1]
    if emission.mean.size > 0:
        _add_normal_moments(emission, draw, sequence, length, posterior, sums)
    elif emission.codes.shape[0] > 0:
        for t in range(length):
            code = emission.codes[sequence, t]
            for j in range(size):
                sums[0, code, j] += posterior[t, j]
    else:
        for t in range(length if emission.statistics.size > 0 else 0):
            for f in range(emission.statistics.shape[2]):
                value = emission.statistics[sequence, t, f]
                for j in range(size):
                    sums[0, f, j] += value * posterior[t, j]


@kernel(fastmath={"contract"})
def _add_normal_moments(
    emission: LogEmission, draw: int, sequence: int, length: int, posterior: np.ndarray, moments: np.ndarray
) -> None:
    """moments_0, _1, _2 (d, s) += sum over steps where x_td is seen of posterior_tj (x_td - mean_dj)^0, ^1, ^2.

    Deviations from the current mean keep the variance exact when the mean is large against it.
    """
    size = posterior.shape[1]
    mean = emission.mean[draw % emission.mean.shape[0]]
    x = emission.x[sequence]
    weights = np.empty((size, 64))
    column = np.empty(64)
    for begin in range(0, length, 64):
        width = min(64, length - begin)
        for i in range(width):
            for j in range(size):
                weights[j, i] = posterior[begin + i, j]
        for d in range(mean.shape[0]):
            for i in range(width):
                column[i] = x[begin + i, d]
            for j in range(size):
                zeroth, first, second = _weighted_moments(weights[j, :width], column, mean[d, j])
                moments[0, d, j] += zeroth
                moments[1, d, j] += first
                moments[2, d, j] += second


@kernel(fastmath={"contract", "reassoc"})
def _weighted_moments(weights: np.ndarray, column: np.ndarray, centre: float) -> tuple[float, float, float]:
    zeroth = 0.0
    first = 0.0
    second = 0.0
    for i in range(weights.size):
        missing = math.isnan(column[i])
        gap = 0.0 if missing else column[i] - centre
        weight = 0.0 if missing else weights[i]
        zeroth += weight
        first += weight * gap
        second += weight * gap * gap
    return zeroth, first, second
