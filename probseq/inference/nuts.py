"""Hamiltonian Monte Carlo over the marginal likelihood, by the no-U-turn sampler."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Rule, number_in, one_of, whole_number
from probseq.inference.base import Inference, Progress
from probseq.inference.chain_draws import ChainDraws
from probseq.inference.diagnostics import chain_diagnostics
from probseq.inference.laplace import NormalApproximation, log_posterior, normal_approximation
from probseq.inference.posterior import LogPosterior
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent import DiscreteLatent
from probseq.models.latent_network import LatentNetwork
from probseq.models.recurrent import RecurrentModel
from probseq.models.relabel import exchangeable, relabel

__all__ = ["NUTS", "NUTSDraws"]

_LOG = logging.getLogger(__name__)
_FEWEST_JUDGED = 8
_MODE_ITERATIONS, _MODE_TOL = 1000, 1e-12


@dataclass(frozen=True)
class NUTSDraws(ChainDraws):
    """Draws of several chains, chain after chain, and how well they agree.

    Parameters
    ----------
    n_chains, diagnostics, permutation
        As in `ChainDraws`.
    n_divergent : int
        Steps after the warm-up whose trajectory left the density.
    """

    n_divergent: int = 0


class NUTS(Inference):
    r"""Draws from p(theta | x), proportional to p(x_1:T | theta) p(theta), latent states summed out exactly.

    The no-U-turn sampler moves through unconstrained coordinates z with the density p(x | theta(z)) p(theta(z))
    \|d theta / d z\|, by the analytic gradient of the likelihood; z are rotated and scaled by the curvature at the
    mode, so that the sampler starts with a good metric. Exact as the number of draws grows.

    Parameters
    ----------
    priors : dict or None
        Distributions by the name of a parameter, as in ``MAP``; weak ones where none is given, as in ``Laplace``.
    n_draws : int
        Draws kept of all chains together, rounded up to the same number for each.
    n_chains : int
        Chains, started apart around the mode.
    n_warmup : int
        Iterations of each chain that adapt the step size and the metric and are thrown away.
    target_accept : float
        Mean acceptance probability that the step size aims at; raise it where trajectories diverge.
    max_tree_depth : int
        A trajectory has at most 2^max_tree_depth steps.
    n_init : int
        Random starts of the search for the mode, besides the model's guess.
    order : str or None
        How the states of all draws get the same names, for models with latent states: "match", "occupancy" or the name
        of a parameter, as in ``Gibbs``, or None.

    References
    ----------
    Hoffman and Gelman (2014), The no-U-turn sampler; Betancourt (2017), A conceptual introduction to Hamiltonian Monte
    Carlo; Pyro (Bingham et al. 2019), whose sampler this is.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> inference = ps.NUTS(n_draws=50, n_chains=2, n_warmup=50)
    >>> model = ps.IID(ps.Poisson(), inference=inference, random_state=0).fit(quakes)
    >>> round(float(model.params_["rate"].mean()), 0)
    19.0
    """

    fits = "any model but recurrent networks"
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "n_chains": partial(whole_number, lowest=1),
        "n_warmup": partial(whole_number, lowest=0),
        "target_accept": partial(number_in, interval="(0, 1)", remedy="Try 0.9."),
        "max_tree_depth": partial(whole_number, lowest=1),
        "n_init": partial(whole_number, lowest=0),
    }

    def __init__(
        self,
        priors: Mapping[str, Distribution] | None = None,
        n_draws: int = 1000,
        n_chains: int = 4,
        n_warmup: int = 300,
        target_accept: float = 0.8,
        max_tree_depth: int = 10,
        n_init: int = 0,
        order: str | None = "match",
    ) -> None:
        self.priors, self.n_draws, self.n_chains, self.n_warmup = priors, n_draws, n_chains, n_warmup
        self.target_accept, self.max_tree_depth, self.n_init, self.order = target_accept, max_tree_depth, n_init, order

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return not issubclass(model_class, RecurrentModel | LatentNetwork)

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> NUTSDraws:
        """Find the mode, then run the chains one after the other.

        ``log_prob`` is log (1/D) sum_d p(x | theta_d), ``objective`` the mean over the draws of log p(x | theta) + log
        p(theta), ``trace`` the log density of z along the chains, averaged over them. ``status`` is "converged" where
        the chains agree without divergences, else "max_iter", or "interrupted".

        Raises
        ------
        ParameterError
            For settings out of range and priors that do not fit.
        IncompatibleError
            For a recurrent network.
        """
        self.check()
        _check_order(self.order, model)
        self.require(type(model))
        from probseq.inference.pyro_bridge import Chain, sample_chain

        target = log_posterior(model, batch, weights, self.priors)
        near = normal_approximation(target, generator, self.n_init, _MODE_ITERATIONS, _MODE_TOL, None)
        per_chain = -(-int(self.n_draws) // int(self.n_chains))
        total = int(self.n_warmup) + per_chain
        trace = np.zeros((self.n_chains, total))
        chains: list[Chain] = []
        density = _density(target, near)
        seeds = torch.randint(2**31 - 1, (int(self.n_chains),), generator=generator).tolist()
        interrupted = False
        for number, seed in enumerate(seeds):

            def report(i: int, value: float, number: int = number) -> None:
                trace[number, i - 1] = value
                if progress is not None:
                    progress(number * total + i, value)

            try:
                chain = sample_chain(
                    density,
                    _start(density, near.centre.size, generator),
                    per_chain,
                    int(self.n_warmup),
                    seed,
                    target_accept=float(self.target_accept),
                    max_tree_depth=int(self.max_tree_depth),
                    report=report,
                )
            except KeyboardInterrupt:
                if not chains:
                    raise
                interrupted = True
                break
            chains.append(chain)
            if len(chain.values) < per_chain:
                interrupted = True
                break
        if interrupted:
            # Chains of equal length, so that they can be compared; a single short one is kept as it is.
            whole = [chain for chain in chains if len(chain.values) == per_chain]
            chains = whole or chains
        return self._result(target, near, chains, trace[: len(chains)].mean(0), interrupted)

    def _result(
        self,
        target: LogPosterior,
        near: NormalApproximation,
        chains: list[Any],
        trace: np.ndarray,
        interrupted: bool,
    ) -> NUTSDraws:
        model, batch = target.model, target.batch
        points = np.concatenate([chain.points for chain in chains])
        flat = torch.from_numpy(near.coordinates.flat(near.centre + points @ near.root.T))
        with torch.no_grad():
            params = {name: value.clone() for name, value in target.params(flat).items()}
            each = torch.cat([target.log_likelihood(_rows(params, i)) for i in range(len(points))])
            objective = float((each + target.log_prior(params)).mean())
        permutation = None
        if self.order is not None and isinstance(model, DiscreteLatent) and exchangeable(model, params, batch):
            named, moves = relabel(model, params, self.order, batch)
            with torch.no_grad():
                symmetric = torch.allclose(target.log_prior(named), target.log_prior(params), rtol=1e-8, atol=1e-8)
            if symmetric:
                params, permutation = named, moves
        n_draws, n_chains = len(points), len(chains)
        diagnostics = chain_diagnostics(params, n_chains)
        found = diagnostics.problems(n_draws, n_chains) if n_draws >= _FEWEST_JUDGED * n_chains else []
        divergent = sum(chain.n_divergent for chain in chains)
        if divergent:
            found.append(
                f"{divergent} of {n_draws} trajectories diverged, so that parts of the posterior may be missed; raise "
                "target_accept=, or give informative priors"
            )
        _LOG.info("NUTS: %d draws of %d chains, mean log-likelihood %.4f", n_draws, n_chains, float(each.mean()))
        return NUTSDraws(
            params={name: params[name] for name in target.specs},
            log_prob=float(torch.logsumexp(each, 0) - math.log(n_draws)),
            objective=objective,
            status="interrupted" if interrupted else "max_iter" if found else "converged",
            n_iter=int(self.n_warmup) + n_draws // n_chains,
            trace=trace,
            optima=np.sort([chain.values.mean() for chain in chains])[::-1].copy(),
            messages=(" ".join(found),) if found else (),
            n_chains=n_chains,
            diagnostics=diagnostics,
            n_divergent=divergent,
            permutation=permutation,
        )


def _check_order(order: Any, model: SequenceModel[Any]) -> None:
    specs = model.parameters()
    names = [n for n, s in specs.items() if s.dims[:1] == ("state",) and n not in ("initial", "transition")]
    if order is not None:
        one_of("order", order, ("match", "occupancy", *names))


def _density(target: LogPosterior, near: NormalApproximation) -> Any:
    """The log density over coordinates in which the posterior is near to a standard normal law."""

    def density(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = near.centre + near.root @ w
        values, gradients = target.evaluate(near.coordinates.flat(z)[None])
        return float(values[0]), near.root.T @ gradients[0, near.coordinates.index]

    return density


def _start(density: Any, size: int, generator: torch.Generator) -> np.ndarray:
    """A point twice as far from the mode as a draw would be, or nearer where the density ends before."""
    start = 2.0 * torch.randn(size, generator=generator, dtype=torch.float64).numpy()
    for _ in range(20):
        if math.isfinite(density(start)[0]):
            return start
        start = 0.5 * start
    return np.zeros(size)


def _rows(params: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    return {name: value[i : i + 1] for name, value in params.items()}
