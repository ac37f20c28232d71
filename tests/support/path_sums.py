"""Bayesian oracles of tiny hidden Markov models: evidence and posterior moments by a sum over all paths."""

import itertools

import numpy as np
import torch
from scipy.special import betaln, gammaln, multigammaln


def log_beta(alpha):
    return gammaln(alpha).sum(-1) - gammaln(alpha.sum(-1))


def log_normaliser(law):
    """log of the normaliser of a conjugate law of emissions, so that evidence is a difference of two."""
    h = {name: value[0].numpy() for name, value in law.hyper_parameters().items()}
    if "concentration" in h:
        return log_beta(h["concentration"]).sum()
    if "ones" in h:
        return betaln(h["ones"], h["zeros"]).sum()
    if "scatter" in h:
        k = h["mean"].shape[-1]
        means = -0.5 * k * np.log(h["strength"]).sum()
        shape = multigammaln(0.5 * h["dof"].reshape(-1)[0], k) if h["dof"].size == 1 else 0.0
        shape = shape or sum(multigammaln(0.5 * d, k) for d in h["dof"])
        return means + shape - (0.5 * h["dof"] * np.linalg.slogdet(0.5 * h["scatter"])[1]).sum()
    total = (gammaln(h["shape"]) - h["shape"] * np.log(h["rate"])).sum()
    return total - 0.5 * np.log(h["strength"]).sum() if "strength" in h else total


def over_paths(model, batch, prior, points=None):
    """log p(x, z) and E[theta | x, z] for every path; ``points`` (m, n, t, k) complete the data, equally weighted."""
    s, t = model.n_states, batch.t
    weights, means = [], []
    for path in itertools.product(range(s), repeat=t):
        hard = torch.nn.functional.one_hot(torch.tensor(path), s).double().reshape(1, 1, t, s)
        first, counts = hard[:, 0, 0], torch.einsum("dti,dtj->dij", hard[:, 0, :-1], hard[:, 0, 1:])
        for x in [batch.x] if points is None else points:
            whole = batch if points is None else batch._replace(x=x, seen=torch.ones_like(batch.seen))
            law = prior.updated(first, counts, whole, hard)
            value = log_normaliser(law.emission) - log_normaliser(prior.emission)
            value += (log_beta(law.transition.concentration[0].numpy())).sum()
            if law.initial is not None:
                value += log_beta(law.initial.concentration[0].numpy())
            weights.append(value)
            means.append({"initial": law.initial.mean(), **law.point()} if law.initial is not None else law.point())
    return np.array(weights), {name: torch.cat([one[name] for one in means]).numpy() for name in means[0]}
