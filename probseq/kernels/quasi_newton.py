"""Minimisation of a smooth function of a few coordinates: BFGS, one evaluation at a time.

The caller evaluates the function where `advance` asks for it, so that the same steps serve a compiled loop and one in
Python: x = begin(...).trial; repeat: f, g = function(trial); advance(descent, f, g, ...), while the status is RUNNING.

Broyden, Fletcher, Goldfarb and Shanno's update of the inverse curvature (Nocedal and Wright 2006, Numerical
Optimization, equation 6.17), their line search for the strong Wolfe conditions (algorithms 3.5 and 3.6), and near the
minimum, where differences of values are rounding, the approximate conditions of Hager and Zhang (2005, A new conjugate
gradient method with guaranteed descent and an efficient line search, equation 1.7).
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel

RUNNING, CONVERGED, STALLED, EXHAUSTED = 0, 1, 2, 3

# Places of `Descent.counts` and `Descent.line`.
STATUS, ITERATIONS, EVALUATIONS, SEARCHED, FRESH = 0, 1, 2, 3, 4
VALUE, SLOPE, STEP, LOW, LOW_VALUE, LOW_SLOPE, HIGH, HIGH_VALUE, HIGH_SLOPE = 0, 1, 2, 3, 4, 5, 6, 7, 8

_ENOUGH, _FLATTER = 1e-4, 0.9
# Values nearer to each other than this, relative to their size or one, may differ by rounding only.
_ROUNDING = 4e-15
_MOST_TRIALS = 40
# No trial moves a coordinate farther than this times 1 + its size.
_FARTHEST = 4.0

Descent = namedtuple("Descent", ["point", "gradient", "direction", "trial", "inverse", "line", "counts"])
Descent.__doc__ = """Where a minimisation is.

point, gradient, direction, trial : (k,), the best point of the last finished line search, the slope there, where the
line search goes, and where the function is wanted next.
inverse : (k, k), inverse curvature. line : (9,), values and slopes along the direction. counts : (5,) int64.
"""


@kernel
def begin(x):
    """A descent from x (k,), where the first value is wanted."""
    k = x.size
    inverse = np.zeros((k, k))
    for i in range(k):
        inverse[i, i] = 1.0
    counts = np.zeros(5, dtype=np.int64)
    counts[FRESH] = 1
    line = np.zeros(9)
    line[VALUE] = np.inf
    return Descent(x.copy(), np.zeros(k), np.zeros(k), x.copy(), inverse, line, counts)


@kernel
def advance(descent, value, gradient, max_iter, tol):
    """Use the value and the gradient (k,) at ``descent.trial``; afterwards trial is the next place, or status says why
    there is none.

    CONVERGED: an iteration lowered the value, and the next is expected to lower it, by less than ``tol`` relative to
    its size or one. STALLED: no lower value was found along the steepest descent either.
    EXHAUSTED: after ``max_iter`` iterations. The minimum is then ``descent.point``, its value ``descent.line[VALUE]``.
    """
    counts, line = descent.counts, descent.line
    counts[EVALUATIONS] += 1
    if counts[EVALUATIONS] == 1:
        if not math.isfinite(value):
            counts[STATUS] = STALLED
            return
        line[VALUE] = value
        descent.gradient[:] = gradient
        _turn(descent)
        return
    counts[SEARCHED] += 1
    if _accepted(descent, value, gradient, max_iter, tol):
        return
    width = abs(line[HIGH] - line[LOW])
    if counts[SEARCHED] >= _MOST_TRIALS or width <= 1e-14 * abs(line[HIGH]):
        if counts[FRESH] == 1:
            counts[STATUS] = STALLED
            return
        descent.inverse[:] = 0.0
        for i in range(descent.point.size):
            descent.inverse[i, i] = 1.0
        counts[FRESH] = 1
        _turn(descent)
        return
    _aim(descent)


@kernel
def _accepted(descent, value, gradient, max_iter, tol):
    # Judge the trial: move there, or narrow the interval.
    line, counts = descent.line, descent.counts
    step, before, slope_before = line[STEP], line[VALUE], line[SLOPE]
    if not math.isfinite(value):
        line[HIGH], line[HIGH_VALUE], line[HIGH_SLOPE] = step, np.inf, 0.0
        return False
    slope = 0.0
    for i in range(gradient.size):
        slope += gradient[i] * descent.direction[i]
    lower = value <= before + _ENOUGH * step * slope_before
    near = value <= before + _ROUNDING * max(abs(before), 1.0)
    almost = near and slope <= (2.0 * _ENOUGH - 1.0) * slope_before
    if (lower or almost) and abs(slope) <= -_FLATTER * slope_before:
        _move(descent, value, gradient)
        counts[ITERATIONS] += 1
        _judge(descent, before - value, max_iter, tol)
        return True
    if not (lower or almost) or (value >= line[LOW_VALUE] and line[LOW] > 0.0):
        line[HIGH], line[HIGH_VALUE], line[HIGH_SLOPE] = step, value, slope
    else:
        if math.isnan(line[HIGH]):
            turned = slope >= 0.0
        else:
            turned = slope * (line[HIGH] - line[LOW]) >= 0.0
        if turned:
            line[HIGH], line[HIGH_VALUE], line[HIGH_SLOPE] = line[LOW], line[LOW_VALUE], line[LOW_SLOPE]
        line[LOW], line[LOW_VALUE], line[LOW_SLOPE] = step, value, slope
    return False


@kernel
def _move(descent, value, gradient):
    # BFGS: H <- (I - s y' / y's) H (I - y s' / y's) + s s' / y's.
    k = gradient.size
    s = descent.trial - descent.point
    y = gradient - descent.gradient
    curvature, size, bent = 0.0, 0.0, 0.0
    hy = np.zeros(k)
    for i in range(k):
        curvature += s[i] * y[i]
        for j in range(k):
            hy[i] += descent.inverse[i, j] * y[j]
        bent += y[i] * hy[i]
        size += y[i] * y[i]
    if curvature > 1e-300 and curvature > 1e-12 * math.sqrt(size) * abs(descent.line[STEP]):
        if descent.counts[FRESH] == 1:
            # The first guess has the right shape at best, the first step shows the size.
            ratio = curvature / bent
            descent.inverse[:] *= ratio
            hy *= ratio
            bent *= ratio
        weight = (1.0 + bent / curvature) / curvature
        for i in range(k):
            for j in range(k):
                descent.inverse[i, j] += weight * s[i] * s[j] - (hy[i] * s[j] + s[i] * hy[j]) / curvature
        descent.counts[FRESH] = 0
    descent.point[:] = descent.trial
    descent.gradient[:] = gradient
    descent.line[VALUE] = value


@kernel
def _judge(descent, decrease, max_iter, tol):
    # Whether to go on from the new point. Slopes say nothing: they vanish as well where a coordinate goes to infinity.
    counts = descent.counts
    least = max(tol, _ROUNDING) * max(abs(descent.line[VALUE] + decrease), abs(descent.line[VALUE]), 1.0)
    _turn(descent)
    if decrease <= least and -0.5 * descent.line[SLOPE] <= least:
        counts[STATUS] = CONVERGED
    elif counts[ITERATIONS] >= max_iter and counts[STATUS] == RUNNING:
        counts[STATUS] = EXHAUSTED


@kernel
def _turn(descent):
    # A new line search from the point, along -H g.
    k = descent.point.size
    line = descent.line
    slope, size = 0.0, 0.0
    for attempt in range(2):
        slope = 0.0
        for i in range(k):
            value = 0.0
            for j in range(k):
                value -= descent.inverse[i, j] * descent.gradient[j]
            descent.direction[i] = value
            slope += value * descent.gradient[i]
        if slope < 0.0 or attempt == 1:
            break
        descent.inverse[:] = 0.0
        for i in range(k):
            descent.inverse[i, i] = 1.0
        descent.counts[FRESH] = 1
    line[SLOPE] = slope
    line[LOW], line[LOW_VALUE], line[LOW_SLOPE] = 0.0, line[VALUE], slope
    line[HIGH] = np.nan
    descent.counts[SEARCHED] = 0
    if slope == 0.0:
        descent.counts[STATUS] = CONVERGED
        return
    step = 1.0
    if descent.counts[FRESH] == 1:
        for i in range(k):
            size += descent.direction[i] * descent.direction[i]
        step = min(1.0, 1.0 / math.sqrt(size))
    line[STEP] = step
    _limit(descent)


@kernel
def _limit(descent):
    # Shorten the step where it would go too far, and place the trial.
    step = descent.line[STEP]
    for i in range(descent.point.size):
        reach = _FARTHEST * (1.0 + abs(descent.point[i]))
        if abs(step * descent.direction[i]) > reach:
            step = reach / abs(descent.direction[i])
    if step <= descent.line[LOW]:
        step = descent.line[STEP]
    descent.line[STEP] = step
    for i in range(descent.point.size):
        descent.trial[i] = descent.point[i] + step * descent.direction[i]


@kernel
def _aim(descent):
    # The next trial of a line search: the minimum of a cubic, inside the interval or, before there is one, beyond.
    line = descent.line
    low, high = line[LOW], line[HIGH]
    if math.isnan(high):
        line[STEP] = 4.0 * low if low > 0.0 else 4.0 * line[STEP]
        _limit(descent)
        return
    width = high - low
    step = low + 0.25 * width
    if math.isfinite(line[HIGH_VALUE]):
        a = line[LOW_SLOPE] + line[HIGH_SLOPE] - 3.0 * (line[HIGH_VALUE] - line[LOW_VALUE]) / width
        inside = a * a - line[LOW_SLOPE] * line[HIGH_SLOPE]
        step = low + 0.5 * width
        if inside >= 0.0:
            root = math.copysign(math.sqrt(inside), width)
            bottom = line[HIGH_SLOPE] - line[LOW_SLOPE] + 2.0 * root
            if bottom != 0.0:
                step = high - width * (line[HIGH_SLOPE] + root - a) / bottom
    nearest, farthest = low + 0.1 * width, high - 0.1 * width
    step = min(max(step, min(nearest, farthest)), max(nearest, farthest))
    line[STEP] = step
    _limit(descent)
