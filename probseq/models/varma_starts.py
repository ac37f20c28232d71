"""Where the search for a vector ARMA model begins: least squares, and Hannan and Rissanen's two stages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.errors import DataError, EmptyDataError

__all__ = ["LinearStart", "least_squares", "mended", "regression_residuals", "two_stages"]

# Spectral radius that a start has at most.
_RADIUS = 0.97
# A direction with less than this share of the variance of its variables is none.
_SINGULAR = 1e-13


class LinearStart(NamedTuple):
    """ar (p, k, k), ma (q, k, k) and the covariance (k, k) of the innovations."""

    ar: np.ndarray
    ma: np.ndarray
    covariance: np.ndarray


def mended(x: np.ndarray, seen: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Values (n, t, k) with linear interpolation over gaps, zero behind the end: good enough to start from."""
    whole = np.zeros_like(x)
    means = np.where(seen.any((0, 1)), np.where(seen, x, 0.0).sum((0, 1)) / np.maximum(seen.sum((0, 1)), 1), 0.0)
    for i, length in enumerate(lengths.tolist()):
        steps = np.arange(length)
        for j in range(x.shape[2]):
            at = steps[seen[i, :length, j]]
            whole[i, :length, j] = np.interp(steps, at, x[i, at, j]) if at.size else means[j]
    return whole


def regression_residuals(
    x: np.ndarray, u: np.ndarray, lengths: np.ndarray, constant: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of values (n, t, k) on a constant and covariates (n, t, m): residuals, mean (k,), beta (m, k)."""
    inside = np.arange(x.shape[1]) < lengths[:, None]
    columns = np.concatenate([np.ones((*x.shape[:2], int(constant))), u], -1)
    beta = np.zeros((columns.shape[-1], x.shape[-1]))
    if columns.shape[-1]:
        sizes = np.sqrt((columns[inside] ** 2).sum(0)).clip(1e-300)
        beta = np.linalg.lstsq(columns[inside] / sizes, x[inside], rcond=1e-12)[0] / sizes[:, None]
    residuals = np.where(inside[..., None], x - columns @ beta, 0.0)
    mean = beta[0] if constant else np.zeros(x.shape[-1])
    return residuals, mean, beta[int(constant) :]


def least_squares(
    y: np.ndarray, lengths: np.ndarray, p: int, extra: np.ndarray | None = None, q: int = 0
) -> LinearStart:
    """Regression of y_t (n, t, k) on y_(t-1), ..., y_(t-p) and on ``extra`` (n, t, k) at lags 1, ..., q.

    Raises
    ------
    DataError
        If the residuals leave a combination of the variables without variance.
    EmptyDataError
        If there are fewer steps than coefficients.
    """
    k, first = y.shape[-1], max(p, q)
    rows, targets = [], []
    for i, length in enumerate(lengths.tolist()):
        if length > first:
            parts = [y[i, first - lag : length - lag] for lag in range(1, p + 1)]
            if extra is not None:
                parts += [extra[i, first - lag : length - lag] for lag in range(1, q + 1)]
            rows.append(np.concatenate(parts, -1) if parts else np.zeros((length - first, 0)))
            targets.append(y[i, first:length])
    count = sum(len(part) for part in targets)
    if count < (p + q) * k + k + 1:
        raise EmptyDataError(
            got=f"{count} steps with {first} steps before them",
            expected=f"at least {(p + q) * k + k + 1} for {(p + q) * k} coefficients an equation",
            remedy="Pass a longer series, or lower the orders.",
        )
    design, target = np.concatenate(rows), np.concatenate(targets)
    sizes = np.sqrt((target**2).sum(0)).clip(1e-300)
    beta = np.zeros((design.shape[1], k))
    if design.shape[1]:
        scale = np.sqrt((design**2).sum(0)).clip(1e-300)
        beta = np.linalg.lstsq(design / scale, target, rcond=1e-12)[0] / scale[:, None]
    errors = target - design @ beta
    covariance = errors.T @ errors / count
    least = np.linalg.eigvalsh(covariance / np.outer(sizes, sizes) * count)[0]
    if not least > _SINGULAR:
        raise DataError(
            got="variables of which a combination does not vary, given its past",
            expected="variables with some variance of their own",
            remedy="Leave out a variable that is constant, or that the others add up to.",
        )
    whole = beta.reshape(p + q, k, k).transpose(0, 2, 1)
    return LinearStart(_inwards(whole[:p]), -_inwards(-whole[p:]), covariance)


def two_stages(y: np.ndarray, lengths: np.ndarray, p: int, q: int) -> LinearStart:
    """Innovations of a long autoregression, then regression on lags of values and innovations.

    References
    ----------
    Hannan and Kavalieris (1984), Multivariate linear time series models, Advances in Applied Probability 16.
    """
    k, longest = y.shape[-1], int(lengths.max())
    wanted = max(p + q, int(round(longest ** (1 / 3))) + 1)
    long = max(1, min(wanted, (int(lengths.sum()) // max(len(lengths), 1) - k - 2) // (2 * k + 1)))
    first = least_squares(y, lengths, long)
    errors = y.copy()
    for lag in range(1, long + 1):
        errors[:, lag:] -= y[:, :-lag] @ first.ar[lag - 1].T
    errors[:, :long] = 0.0
    return least_squares(y, lengths, p, errors, q)


def _inwards(matrices: np.ndarray) -> np.ndarray:
    """Coefficients C_j s^j with the largest s <= 1 that leaves the spectral radius small enough."""
    p, k = matrices.shape[:2]
    if not p:
        return matrices
    top = matrices.transpose(1, 0, 2).reshape(k, p * k)
    radius = float(np.abs(np.linalg.eigvals(np.concatenate([top, np.eye((p - 1) * k, p * k)]))).max())
    return matrices * min(1.0, _RADIUS / max(radius, 1e-300)) ** np.arange(1, p + 1)[:, None, None]
