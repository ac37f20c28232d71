"""Log scores of whole horizons: of all steps that a forecast is for, together."""

from __future__ import annotations

import numpy as np
import torch

from probseq.errors import DataError
from probseq.models.base import map_state
from probseq.results.joint import ModelJoint, make_batch

__all__ = ["joint_log_score"]

# Longest horizon, in values, and most numbers for which the covariance of all steps costs less than one pass a row.
_DENSE_SIZE = 64
_DENSE_ENTRIES = 10_000_000


def joint_log_score(joint: ModelJoint, y: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """log p(y_{T+1}, ..., y_{T+h} | x_{1:T}) in nats of the values that came, of many forecasts.

    Missing values are integrated out as the model does it. From the joint law where that is normal or a mixture or map
    of normals and small, else as the sum of one-step conditionals; an estimate where the model's likelihood is one.

    Parameters
    ----------
    joint : ModelJoint of n states
    y : (n, h, k), NaN = missing
    lengths : (n,), how many steps there are before the end of each sequence

    Returns
    -------
    (n,), NaN where no value came, or where the model has no law over a gap
    """
    n, h, k = y.shape
    found = np.full(n, np.nan)
    seen = ~np.isnan(y)
    inside = np.arange(h) < lengths[:, None]
    whole = (seen.all(-1) | ~inside).all(-1)
    came = seen.any((1, 2))
    if (came & whole).all():
        return _together(joint, y, lengths)
    for some in (np.flatnonzero(came & whole), np.flatnonzero(came & ~whole)):
        if not len(some):
            continue
        try:
            found[some] = _together(_rows(joint, some), y[some], lengths[some])
        except DataError:
            if whole[some[0]]:
                raise
    return found


def _rows(joint: ModelJoint, some: np.ndarray) -> ModelJoint:
    state = map_state(lambda leaf: leaf[torch.as_tensor(some)], joint.state)
    return ModelJoint(joint.model, state, joint.horizon, None if joint.covariates is None else joint.covariates[some])


def _together(joint: ModelJoint, y: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    size = y.shape[1] * y.shape[2]
    draws = getattr(joint.model, "n_draws", 1)
    if size <= _DENSE_SIZE and len(y) * draws * size**2 <= _DENSE_ENTRIES:
        law = joint.closed()
        if law is not None:
            return law.log_prob(y)
    batch = make_batch(joint.model, y, np.minimum(lengths, joint.horizon), joint.covariates)
    with torch.no_grad():
        return joint.model.log_prob({}, batch, joint.state).numpy()
