"""Gibbs sampling of hidden Markov models: paths given parameters, parameters given paths."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Rule, one_of, whole_number
from probseq.errors import UnsupportedError
from probseq.inference.base import Inference, Progress
from probseq.inference.chain_draws import ChainDraws
from probseq.inference.chain_laws import ChainLaws, chain_prior
from probseq.inference.diagnostics import chain_diagnostics
from probseq.models.base import Batch, SequenceModel
from probseq.models.chain_likelihood import stationary_distribution
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.relabel import exchangeable, relabel

__all__ = ["Gibbs"]

_LOG = logging.getLogger(__name__)
_FEWEST_JUDGED = 8


class Gibbs(Inference):
    r"""Draws from p(theta | x) by turns: z ~ p(z | x, theta), then theta ~ p(theta | x, z) under conjugate priors.

    Paths are drawn whole, by forward filtering and backward sampling; missing coordinates are integrated out (they are
    drawn, too, where a whole covariance needs them). With a stationary start the law of the first states enters by a
    Metropolis step. All chains run as one batch. Exact as the number of iterations grows.

    Parameters
    ----------
    n_draws : int
        Draws kept of all chains together, rounded up to the same number for each.
    n_chains : int
        The first starts from clusters of the values, the others at random.
    n_warmup : int
        Iterations of each chain that are thrown away.
    thin : int
        One of so many iterations is kept.
    prior : dict or None
        Hyper-parameters by name; what is left out is weakly informative and scaled to the data. "initial" and
        "transition" are Dirichlet concentrations (default 1 / n_states: unneeded states stay empty). Normal: "mean",
        "strength", then "shape", "rate" of the precision ("diag", "spherical") or "dof", "scatter" of the covariance
        ("full", "tied"). Poisson: "shape", "rate". Categorical: "concentration". Bernoulli: "ones", "zeros". Product:
        those of its parts with their names in front, as "normal_mean".
    order : str or None
        How the states of all draws get the same names: "match" (agreement on who is where, Stephens 2000), a
        parameter's name or "occupancy" (sorted), or None (left as drawn). States that structure, known states or
        the prior tell apart keep their names.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.earthquakes()
    >>> model = ps.HMM(2, ps.Poisson(), inference=ps.Gibbs(order="rate"), random_state=0).fit(y)
    >>> model.params_["rate"].sizes["draw"]
    400
    >>> bool((model.draws_.diagnostics.r_hat["rate"] < 1.05).all())
    True
    >>> parts = model.forecast(3).decompose()  # how much of the variance is not knowing the parameters

    References
    ----------
    Chib (1996), Calculating posterior distributions and modal estimates in Markov mixture models; Scott (2002),
    Bayesian methods for hidden Markov models; Fruehwirth-Schnatter (2006), chapter 11.
    """

    fits: ClassVar[str] = (
        "hidden Markov models with Normal, Poisson, Categorical and Bernoulli emissions and their Product"
    )
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "n_chains": partial(whole_number, lowest=1),
        "n_warmup": partial(whole_number, lowest=0),
        "thin": partial(whole_number, lowest=1),
    }

    def __init__(
        self,
        n_draws: int = 400,
        n_chains: int = 4,
        n_warmup: int = 500,
        thin: int = 5,
        prior: Mapping[str, Any] | None = None,
        order: str | None = "match",
    ) -> None:
        self.n_draws, self.n_chains, self.n_warmup, self.thin = n_draws, n_chains, n_warmup, thin
        self.prior, self.order = prior, order

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, HiddenMarkovModel)

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> ChainDraws:
        """Run the chains.

        ``log_prob`` is log (1/D) sum_d p(x | theta_d) and ``objective`` the mean of log p(x | theta_d) over the draws;
        ``trace`` is its mean over the chains at every ``thin``-th iteration, warm-up included. ``status`` is
        "converged" where the chains agree, else "max_iter", or "interrupted".

        Raises
        ------
        ParameterError
            for settings out of range, and hyper-parameters that the prior does not have.
        IncompatibleError
            for emissions without a conjugate prior, and for transitions that depend on covariates.
        UnsupportedError
            for sequence weights that are not whole numbers.
        """
        self.check()
        self.require(type(model))
        if not isinstance(model, HiddenMarkovModel):
            raise TypeError("can_fit accepted a model that is no hidden Markov model")
        _check_order(self.order, model)
        batch = batch if weights is None else _repeated(batch, weights)
        sampler = _Sampler(model, batch, chain_prior(model, batch, self.prior, "Gibbs"), generator)
        params = model.em_start(batch, self.n_chains, "kmeans", generator)
        per_chain = -(-self.n_draws // self.n_chains)
        kept: list[dict[str, Tensor]] = []
        likelihoods: list[Tensor] = []
        trace: list[float] = []
        interrupted = False
        try:
            with torch.no_grad():
                for iteration in range(1, self.n_warmup + per_chain * self.thin + 1):
                    params = sampler.step(params)
                    if (iteration - self.n_warmup) % self.thin:
                        continue
                    log_prob = model.log_prob(params, batch).sum(-1)
                    if iteration > self.n_warmup:
                        kept.append(params)
                        likelihoods.append(log_prob)
                    trace.append(float(log_prob.mean()))
                    if progress is not None:
                        progress(iteration, trace[-1])
        except KeyboardInterrupt:
            if not kept:
                raise
            interrupted = True
        return self._result(model, batch, sampler.prior, kept, likelihoods, trace, interrupted)

    def _result(
        self,
        model: HiddenMarkovModel,
        batch: Batch,
        prior: ChainLaws,
        kept: list[dict[str, Tensor]],
        likelihoods: list[Tensor],
        trace: list[float],
        interrupted: bool,
    ) -> ChainDraws:
        params = {name: torch.stack([one[name] for one in kept], 1).flatten(0, 1) for name in kept[0]}
        log_prob = torch.stack(likelihoods, 1).flatten()
        permutation = None
        if self.order is not None and prior.symmetric and exchangeable(model, params, batch):
            params, permutation = relabel(model, params, self.order, batch)
        n_draws = len(log_prob)
        diagnostics = chain_diagnostics(params, self.n_chains)
        judged = n_draws >= _FEWEST_JUDGED * self.n_chains
        found = diagnostics.problems(n_draws, self.n_chains) if judged else []
        _LOG.info("Gibbs: %d draws of %d chains, mean log-likelihood %.4f", n_draws, self.n_chains, log_prob.mean())
        return ChainDraws(
            params={name: params[name] for name in model.parameters()},
            log_prob=float(torch.logsumexp(log_prob, 0) - math.log(n_draws)),
            objective=float(log_prob.mean()),
            status="interrupted" if interrupted else "max_iter" if found else "converged",
            n_iter=self.n_warmup + len(kept) * self.thin,
            trace=np.array(trace),
            optima=np.sort(log_prob.reshape(self.n_chains, -1).mean(1).numpy())[::-1].copy(),
            messages=(" ".join(found),) if found else (),
            n_chains=self.n_chains,
            diagnostics=diagnostics,
            permutation=permutation,
        )


class _Sampler:
    """One turn of all chains."""

    def __init__(self, model: HiddenMarkovModel, batch: Batch, prior: ChainLaws, generator: torch.Generator) -> None:
        self.model, self.batch, self.prior, self.generator = model, batch, prior, generator
        partly = batch.seen.any(-1) & ~batch.seen.all(-1) & batch.real
        self.completes = prior.emission.completes and bool(partly.any())

    def step(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Paths given the parameters, then parameters given the paths."""
        states = self.model.sample_states(params, self.batch, 1, self.generator)[:, 0]
        hard = torch.nn.functional.one_hot(states.clamp_min(0), self.model.n_states).to(self.model.dtype)
        hard = hard * (states >= 0).unsqueeze(-1)
        first, counts = hard[:, :, 0].sum(1), torch.einsum("dnti,dntj->dij", hard[:, :, :-1], hard[:, :, 1:])
        if self.completes:
            law = self._completed(params, states, first, counts, hard)
        else:
            law = self.prior.updated(first, counts, self.batch, hard)
        new = law.sample(self.generator)
        if self.model.start == "stationary":
            new["transition"] = self._stationary(params["transition"], new["transition"], first)
        return new

    def _completed(
        self, params: dict[str, Tensor], states: Tensor, first: Tensor, counts: Tensor, hard: Tensor
    ) -> ChainLaws:
        """The law given drawn values of the missing coordinates, which differ between chains."""
        x, seen = self.prior.emission.fill_missing(params, self.batch.x, self.batch.seen, states, self.generator)
        laws = []
        for chain in range(len(states)):
            one = slice(chain, chain + 1)
            whole = self.batch._replace(x=x[chain], seen=seen)
            laws.append(self.prior.updated(first[one], counts[one], whole, hard[one]))
        return ChainLaws.join(laws)

    def _stationary(self, old: Tensor, new: Tensor, first: Tensor) -> Tensor:
        """Metropolis: the proposal is the posterior without the start, so the ratio is that of the first states."""
        each = [torch.xlogy(first, stationary_distribution(matrix)).sum(-1) for matrix in (new, old)]
        uniform = torch.rand(len(first), generator=self.generator, dtype=old.dtype)
        accepted = uniform.log() < each[0] - each[1]
        return torch.where(accepted[:, None, None], new, old)


def _check_order(order: Any, model: HiddenMarkovModel) -> None:
    names = list(model.emission.parameters(model.observation, (model.n_states,)))
    if order is not None:
        one_of("order", order, ("match", "occupancy", *names))


def _repeated(batch: Batch, weights: Tensor) -> Batch:
    """Sequences as often as their weights say."""
    times = weights.round().long()
    if not bool((times == weights).all()):
        raise UnsupportedError(
            got="sequence weights that are not whole numbers, for Gibbs",
            expected="numbers of repetitions",
            remedy="A sampler needs data that can exist; use VB, EM or MLE with other weights.",
        )
    rows = torch.repeat_interleave(torch.arange(batch.n), times)
    u, states = (None if part is None else part[rows] for part in (batch.u, batch.states))
    return Batch(batch.x[rows], batch.seen[rows], batch.lengths[rows], u, states)
