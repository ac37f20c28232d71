"""Uncertainty within parameter draws and between them."""

from __future__ import annotations

import numpy as np

from probseq.results.backends import LawBackend, category_probs
from probseq.results.regions import entropy

__all__ = ["of_laws", "of_paths"]


def of_laws(backend: LawBackend) -> tuple[np.ndarray, np.ndarray] | None:
    """Total uncertainty and that within draws, (n, t, k) each, from the laws of the draws; None for one draw."""
    if backend.draws is None or backend.weights is None:
        return None
    w = backend.weights.detach().numpy()[..., None]
    if backend.nominal:
        p = category_probs(backend.draws)
        return entropy((w[..., None] * p).sum(-3)), (w * entropy(p)).sum(-2)
    return backend.variance(), backend.variance_within()


def of_paths(paths: np.ndarray, weights: np.ndarray, n_categories: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Total uncertainty and that within draws, (n, t, k) each, from paths of every draw.

    Var = sum_d w_d s_d^2 + sum_d w_d (m_d - m)^2 - sum_d w_d (1 - w_d) s_d^2 / P with the means m_d and variances s_d^2
    of P paths: the last term is what the noise of the means adds to the spread between them.

    Parameters
    ----------
    paths : (draw, path, n, t, k)
    weights : (n, draw), that sum to one
    n_categories : int or None
    """
    w = weights.T[..., None, None]
    if n_categories is not None:
        p = (paths[..., None] == np.arange(n_categories)).mean(1)
        return entropy((w[..., None] * p).sum(0)), (w * entropy(p)).sum(0)
    means, variances = paths.mean(1), paths.var(1, ddof=1)
    within = (w * variances).sum(0)
    between = (w * (means - (w * means).sum(0)) ** 2).sum(0) - (w * (1 - w) * variances).sum(0) / paths.shape[1]
    return within + np.maximum(between, 0.0), within
