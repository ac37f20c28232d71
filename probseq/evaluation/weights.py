"""Weights of an average of models, from their log scores on the same values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize

from probseq._random import RandomState, numpy_generator
from probseq._types import whole_number
from probseq.errors import EmptyDataError, ShapeError

__all__ = ["pseudo_bma_weights", "stacking_weights"]

# Numbers held at once by the bootstrap.
_BLOCK = 1 << 20


def stacking_weights(log_prob: ArrayLike, *, tol: float = 1e-10, max_iter: int = 200) -> NDArray[np.float64]:
    """argmax_w sum_i log sum_k w_k p_ik over the simplex: the mixture that would have predicted best.

    Convex. Solved by Newton steps (a non-negative least-squares problem each), every one followed by a step of EM,
    which never decreases the objective. Ends when the mean log score is within ``tol`` nats of its maximum, by the
    duality gap max_k mean_i p_ik / sum_j w_j p_ij - 1. A value that no model thinks possible says nothing and is left
    out.

    Source: Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13, equation 8; the Newton step from Kim,
    Carbonetto, Stephens and Anitescu (2020), Journal of Computational and Graphical Statistics 29.

    Parameters
    ----------
    log_prob
        log p_ik of held-out value i under model k, in nats, shape (value, model); a value with NaN in any model is
        left out.
    tol
        largest shortfall in nats per value.
    max_iter
        most pairs of steps.

    Returns
    -------
    weights
        shape (model,), non-negative, summing to one. Equal models share their weight if the start decides.
    """
    p = np.exp(_relative_scores(log_prob))
    n, m = p.shape
    w = np.full(m, 1 / m)
    for _ in range(max_iter):
        ratio = p / (p @ w)[:, None]
        gain = ratio.mean(0)
        if gain.max() - 1 <= tol:
            break
        w = _newton(p, ratio, gain, w)
        w = w * (p / (p @ w)[:, None]).mean(0)
        w /= w.sum()
    return w


def _relative_scores(log_prob: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(log_prob, float)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ShapeError(got=f"scores of shape {scores.shape}", expected="shape (value, model)")
    top = scores.max(1, keepdims=True)
    usable = np.isfinite(top[:, 0])
    if not usable.any():
        raise EmptyDataError(got="no value that every model scores", expected="at least one common value")
    return scores[usable] - top[usable]


def _newton(
    p: NDArray[np.float64], ratio: NDArray[np.float64], gain: NDArray[np.float64], w: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One step on sum(w) - mean log(p w) over w >= 0, whose minimum sums to one by itself."""
    m = len(w)
    hessian = ratio.T @ ratio / len(p)
    root = linalg.cholesky(hessian + 1e-12 * np.trace(hessian) * np.eye(m))
    target, _ = optimize.nnls(root, linalg.solve_triangular(root, 2 * gain - 1, trans="T"))
    direction = target - w
    slope = float(direction @ (1 - gain))
    start = w.sum() - np.log(p @ w).mean()
    size = 1.0
    while size > 1e-8:
        step = np.maximum(w + size * direction, 0.0)
        mixed = p @ step
        if np.all(mixed > 0) and step.sum() - np.log(mixed).mean() <= start + 1e-4 * size * min(slope, 0.0):
            # EM keeps a zero for ever, so weights that a later step may want back stay just above it.
            step = np.maximum(step, 1e-12)
            return step / step.sum()
        size /= 2
    return w


def pseudo_bma_weights(
    log_prob: ArrayLike, *, n_bootstrap: int = 1000, random_state: RandomState = 0
) -> NDArray[np.float64]:
    """w_k proportional to exp(sum_i log p_ik), averaged over the Bayesian bootstrap of the values (pseudo-BMA+).

    ``n_bootstrap=0`` gives the plain weights, which ignore that the sums are uncertain.

    Source: Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13, section 3.4.

    Parameters
    ----------
    log_prob
        log p_ik of held-out value i under model k, in nats, shape (value, model); a value with NaN in any model is
        left out.
    n_bootstrap
        draws of the bootstrap.
    random_state
        seed of the bootstrap.
    """
    # A floor, so that models which are each impossible somewhere still rank by how often.
    scores = np.maximum(_relative_scores(log_prob), -1e9)
    n, left = len(scores), whole_number("n_bootstrap", n_bootstrap, 0, "Try 1000.")
    generator, block = numpy_generator(random_state), max(1, _BLOCK // n)
    # Shares of all values for every draw at once would be n_bootstrap times as large as the scores.
    means = [] if left else [scores.mean(0, keepdims=True)]
    while left:
        means.append(generator.dirichlet(np.ones(n), size=min(block, left)) @ scores)
        left -= min(block, left)
    total = n * np.concatenate(means)
    weights = np.exp(total - total.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).mean(0)
