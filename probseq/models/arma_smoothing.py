"""What all the data say about single values of an ARMA series: those that are missing, and those that stand out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from probseq.distributions.params import Params, take_draw
from probseq.errors import EmptyDataError, UnsupportedError
from probseq.kernels.arima import difference
from probseq.kernels.arma import innovations
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch

__all__ = ["DECAY", "KINDS", "Missing", "Standing", "missing_values", "outlier_scores"]

# Numbers that may lie in memory at once for columns of single steps.
_ROOM = 50_000_000
DECAY = 0.7
"""How much of a temporary change is left after a step (Chen and Liu 1993)."""
KINDS = {"additive": 0.0, "temporary": DECAY, "level": 1.0}
"""Kinds of outliers by what is left of them after a step; the fourth, "innovational", moves one innovation."""


class Missing(NamedTuple):
    """Steps of one sequence without a value (m,), and the normal law of their values under each draw.

    mean : (D, m). cov : (D, m, m), in squared units of the data.
    """

    steps: np.ndarray
    mean: np.ndarray
    cov: np.ndarray


class Standing(NamedTuple):
    """How a change of each kind at each step would stand out in one sequence, (kind, t); NaN where nothing is seen.

    size : its estimate, in units of the data. error : the standard error of that.
    """

    size: np.ndarray
    error: np.ndarray


class _Whitened:
    """One sequence under one draw, divided by its innovations: Delta(B) y less its mean, and columns beside it.

    A missing value counts as zero with an unknown addition: the likelihood of the whole series is then that of the seen
    values, with the additions as coefficients of one column a step.
    """

    def __init__(self, model: ARMAModel, params: Params, levels: np.ndarray, seen: np.ndarray) -> None:
        ar, ma = (c[0].numpy() for c in model.polynomials(params))
        self.lags, self.ar, self.ma = model.lags, np.ascontiguousarray(ar), np.ascontiguousarray(ma)
        self.size = levels.size
        self.response = self.columns(np.where(seen, levels, 0.0)[None], float(model._means(params)[0]))[0]

    def columns(self, x: np.ndarray, mean: float = 0.0) -> np.ndarray:
        """Rows (c, t) of levels as rows (c, t - m) of white noise, if they were the series."""
        w = difference(np.ascontiguousarray(x), self.lags.differences) - mean
        e, f, _ = innovations(self.lags.ar, self.ar, self.lags.ma, self.ma, w, False)
        return e / np.sqrt(f)

    def steps(self, steps: np.ndarray) -> np.ndarray:
        """White rows of a unit at each of some steps."""
        x = np.zeros((len(steps), self.size))
        x[np.arange(len(steps)), steps] = 1.0
        return self.columns(x)


def missing_values(model: ARMAModel, params: Params, batch: Batch) -> list[Missing]:
    r"""The joint law of the missing values of every sequence given all that were seen, exact.

    With the series y_0 + D w, where y_0 has zeros and D ones where values are missing, and white rows of both (divided
    by the innovations of the model), w ~ N(-(D'D)^{-1} D'y_0, scale^2 (D'D)^{-1}).

    Parameters
    ----------
    model : ARMAModel
    params : (D, ...), the draws
    batch : Batch of new sequences

    Raises
    ------
    EmptyDataError
        If so little of a sequence is seen that its missing values may be anything.
    UnsupportedError
        If more numbers than fit into memory were needed.

    References
    ----------
    Brubacher and Wilson (1976), Interpolating time series with application to the estimation of holiday effects,
    Applied Statistics 25; Ljung (1989), A note on the estimation of missing values in time series.
    """

    def answer(white: _Whitened, scale: float, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        steps = np.flatnonzero(~seen)
        if len(steps) == 0:
            return np.zeros(0), np.zeros((0, 0))
        _check_room(len(steps), white.size)
        rows = white.steps(steps)
        gram = rows @ rows.T
        values, vectors = np.linalg.eigh(gram)
        if not values[0] > 1e-13 * values[-1]:
            raise EmptyDataError(
                got=f"{len(steps)} missing of {white.size} values",
                expected="enough seen values for the missing ones to have a law",
                remedy="Pass a longer series, or fewer missing steps.",
            )
        inverse = (vectors / values) @ vectors.T
        return -inverse @ (rows @ white.response), scale**2 * inverse

    found = []
    shifts = (batch.x[..., 0] - _levels(model, params, batch)).numpy()
    for i, (seen, each) in enumerate(_every(model, params, batch, answer)):
        means, covs = zip(*each)
        steps = np.flatnonzero(~seen)
        found.append(Missing(steps, np.stack(means) + shifts[:, i, steps], np.stack(covs)))
    return found


def outlier_scores(model: ARMAModel, params: Params, batch: Batch, scale: list[float] | None = None) -> list[Standing]:
    r"""Estimates of an addition to one step, to an innovation, of one that fades and of one that stays, at every step.

    With white rows d of a change at t and y of the series (missing values are further columns), size = d'y / d'd and
    error = scale / sqrt(d'd). Changes that fade by ``DECAY`` a step, or stay, are sums over the steps from t on.

    Parameters
    ----------
    model, params, batch
        As in `missing_values`; one draw.
    scale : one number a sequence, or None
        Standard deviations of the innovations in place of the model's.

    References
    ----------
    Chen and Liu (1993), Joint estimation of model parameters and outlier effects in time series, JASA 88.
    """
    place = iter(range(batch.n))

    def answer(white: _Whitened, own: float, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i = next(place)
        return _scores(white, own if scale is None else scale[i], seen)

    return [Standing(*each[0]) for _, each in _every(model, params, batch, answer)]


def _scores(white: _Whitened, scale: float, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t, n = white.size, white.response.size
    absent = np.flatnonzero(~seen)
    _check_room(len(absent), t)
    basis, _ = np.linalg.qr(white.steps(absent).T) if len(absent) else (np.zeros((n, 0)), None)
    y = white.response - basis @ (basis.T @ white.response)
    size, error = np.full((4, t), np.nan), np.full((4, t), np.nan)
    running = {kind: np.zeros(n) for kind in KINDS}
    block = max(1, min(t, 4_000_000 // max(t, 1)))
    for stop in range(t, 0, -block):
        begin = max(0, stop - block)
        rows = white.steps(np.arange(begin, stop))
        for step in range(stop - 1, begin - 1, -1):
            for k, (kind, rest) in enumerate(KINDS.items()):
                d = running[kind] = rows[step - begin] + rest * running[kind] if rest else rows[step - begin]
                free = d - basis @ (basis.T @ d) if len(absent) else d
                power = free @ free
                # The first levels of a differenced series are free: a shift of all of them is no change.
                if seen[step] and power > 1e-10 * max(d @ d, 1e-300) and power > 1e-12:
                    size[k, step] = free @ y / power
                    error[k, step] = scale / np.sqrt(power)
    late = np.arange(t - n, t)
    power = 1.0 - (basis**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        size[3, late] = np.where(seen[late], y / power, np.nan)
        error[3, late] = np.where(seen[late], scale / np.sqrt(power), np.nan)
    return size, error


def _every(
    model: ARMAModel,
    params: Params,
    batch: Batch,
    answer: Callable[[_Whitened, float, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> list[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
    """``answer`` for each sequence and draw, with what is seen of the sequence."""
    found = []
    n_draws = len(params["scale"])
    with torch.no_grad():
        draws = [take_draw(params, slice(d, d + 1)) for d in range(n_draws)]
        levels = _levels(model, params, batch).numpy()
        for i in range(batch.n):
            t = int(batch.lengths[i])
            seen = batch.seen[i, :t, 0].numpy()
            if t <= model.n_differences or not seen.any():
                raise EmptyDataError(
                    got=f"{int(seen.sum())} seen of {t} values",
                    expected=f"more than {model.n_differences} steps, the number of differences",
                    remedy="Pass a longer series.",
                )
            each = [
                answer(_Whitened(model, p, level[i, :t], seen), float(p["scale"][0]), seen)
                for p, level in zip(draws, levels)
            ]
            found.append((seen, each))
    return found


def _levels(model: ARMAModel, params: Params, batch: Batch) -> torch.Tensor:
    """Values less what covariates, line and waves add, (D, n, t)."""
    with torch.no_grad():
        return model._levels(params, batch, torch.zeros(len(params["scale"]), batch.n, dtype=torch.long))


def _check_room(n_columns: int, n_steps: int) -> None:
    if n_columns * n_steps > _ROOM:
        raise UnsupportedError(
            got=f"{n_columns} missing values in a series of {n_steps} steps",
            expected=f"at most {_ROOM // n_steps} of them",
            remedy="Cut the series into shorter ones.",
        )
