"""Running averages of expected sufficient statistics of hidden Markov chains, for stochastic and online EM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.circular import DiagonalVonMises, concentration_of
from probseq.distributions.emissions import Bernoulli, Emission, LogNormal, Normal, Product, Tied, VonMises
from probseq.distributions.params import Params, ParamSpec
from probseq.kernels import chain
from probseq.models.base import Batch
from probseq.models.chain_steps import update_start
from probseq.models.hmm import HiddenMarkovModel

__all__ = ["RunningAverages", "StepResult", "start_averages", "take_step"]

_TINY = 1e-300


@dataclass(frozen=True)
class RunningAverages(Record):
    """What a stream of data has said so far, per step.

    Parameters
    ----------
    params : (D, ...), the parameters, which stand for the statistics of the emissions
    first : (D, s), expected first states of sequences
    counts : (D, s, s), expected transitions
    totals : (D, s), expected steps in each state at which something was seen
    n_steps : float
        Steps read so far, weighted.
    """

    params: dict[str, Tensor]
    first: Tensor
    counts: Tensor
    totals: Tensor
    n_steps: float


@dataclass(frozen=True)
class StepResult:
    """averages : after the step; log_prob : (D,), of the data read, under the parameters before it; last : (D, n, s),
    p(z_T | x_1:T) at the end of each sequence.
    """

    averages: RunningAverages
    log_prob: Tensor
    last: Tensor


def start_averages(model: HiddenMarkovModel, params: Params, n_steps: float, per_start: float) -> RunningAverages:
    """Averages that parameters would have after ``n_steps`` steps, a new sequence every ``per_start`` steps."""
    transition = params["transition"]
    long_run = model.stationary_distribution(params)
    first = model._start(params).expand_as(long_run) / max(1.0, per_start)
    return RunningAverages(dict(params), first, long_run.unsqueeze(-1) * transition, long_run, float(n_steps))


def take_step(
    model: HiddenMarkovModel,
    averages: RunningAverages,
    batch: Batch,
    kappa: float,
    *,
    weights: Tensor | None = None,
    last: Tensor | None = None,
    ahead: Tensor | None = None,
) -> StepResult:
    r"""S <- (1 - gamma) S + gamma s, then the M-step, gamma = (1 + n / m)^-kappa after n steps, for m new ones.

    s are expected statistics per step of the batch given itself: smoothing ends with it. kappa = 1 weighs all steps
    alike. Statistics of a state's emission are averaged through its parameters, which the M-step of the batch alone
    gives: exactly so where a linear average of them (of mean and second moment for normals, of cosine and sine for
    angles) is one of the statistics, otherwise as a stochastic approximation.

    Parameters
    ----------
    averages : before the step
    batch : the next stretch of some sequences
    kappa : in (1/2, 1]
    weights : (n,) or None
    last : (D, n, s) or None
        p(z_t | x_1:t) at the step before the batch.
    ahead : (D, n, s) or None
        p(z_t | x_<t) of its first step instead, where the step before is not known; neither where sequences begin.

    References
    ----------
    Cappe and Moulines (2009), On-line expectation-maximization algorithm for latent data models, equation 9; Cappe
    (2011), Online EM algorithm for hidden Markov models.
    """
    params = averages.params
    transition = params["transition"]
    weight = torch.ones(batch.n, dtype=transition.dtype) if weights is None else weights.to(transition.dtype)
    start = model.initial_state(params, batch.n)
    begins = last is None and ahead is None
    if last is not None:
        ahead = last @ transition
    elif ahead is None:
        ahead = start.probs
    problem = model._problem(params, batch, start._replace(probs=ahead))
    sums = chain.expectations(*problem, gain=weight.reshape(1, -1, 1).numpy())
    posterior = torch.from_numpy(sums.posterior)
    started = torch.from_numpy(sums.start)
    counts = torch.from_numpy(sums.counts)
    first = started.sum(1) if begins else torch.zeros_like(averages.first)
    if last is not None:
        # p(z_0 = i, z_1 = j | x) is p(z_0 = i | past) A_ij times what the batch says about j against its prediction.
        ratio = started / ahead.clamp_min(_TINY)
        counts = counts + transition * torch.einsum("dni,dnj->dij", last, ratio)
    shown = posterior * batch.seen.any(-1).unsqueeze(-1)
    n_new = float((batch.lengths.double() * weight.double()).sum())
    if n_new == 0.0:
        return StepResult(averages, torch.zeros(len(transition)), ahead if last is None else last)
    gamma = (1.0 + averages.n_steps / n_new) ** -kappa
    totals = _mean(averages.totals, shown.sum((1, 2)) / n_new, gamma)
    share = gamma * shown.sum((1, 2)) / n_new / totals.clamp_min(_TINY)
    emission = model.emission
    specs = emission.parameters(model.observation, (model.n_states,))
    before = {name: params[name] for name in specs}
    alone = emission.m_step(model.observation, batch.x, batch.seen, shown, before)
    first = _mean(averages.first, first / n_new, gamma)
    counts = _mean(averages.counts, counts / n_new, gamma)
    new = blended(emission, specs, before, alone, share, totals)
    if model.start == "free":
        new["initial"] = update_start(first, params["initial"])
    new |= model.transitions.m_step(counts, first, params, model.start == "stationary")
    after = RunningAverages({name: new[name] for name in params}, first, counts, totals, averages.n_steps + n_new)
    log_prob = torch.from_numpy(sums.log_prob) @ weight
    return StepResult(after, log_prob, _at_end(posterior, batch.lengths, last, ahead))


def blended(
    emission: Emission, specs: Mapping[str, ParamSpec], old: Params, new: Params, share: Tensor, totals: Tensor
) -> dict[str, Tensor]:
    """Parameters whose statistics are (1 - share) those of ``old`` plus share those of ``new``, share (D, s)."""
    if isinstance(emission, Product):
        found: dict[str, Tensor] = {}
        for part in emission.parts():
            names = {name: name.removeprefix(f"{part.prefix}_") for name in specs if name.startswith(f"{part.prefix}_")}
            own_specs = {own: specs[name] for name, own in names.items()}
            own_old, own_new = ({own: values[name] for name, own in names.items()} for values in (old, new))
            inner = blended(part.emission, own_specs, own_old, own_new, share, totals)
            found |= {name: inner[own] for name, own in names.items()}
        return found
    if isinstance(emission, Tied):
        taken, totals = emission._of_groups(share * totals), emission._of_groups(totals)
        own_specs = {
            n: replace(spec, dims=tuple(w.replace("group", "state") for w in spec.dims)) for n, spec in specs.items()
        }
        return blended(emission._inner, own_specs, old, new, taken / totals.clamp_min(_TINY), totals)
    result = {name: _linear(specs[name], old[name], new[name], share, totals) for name in specs}
    if type(emission) is Bernoulli:
        before, alone = (torch.sigmoid(values["logit"]) for values in (old, new))
        result["logit"] = torch.logit(_linear(specs["logit"], before, alone, share, totals))
    if type(emission) in (Normal, LogNormal):
        result |= _normal(specs, old, new, result, share, totals)
    if type(emission) is VonMises:
        result |= _angles(specs, old, new, result, share, totals)
    return result


def _normal(
    specs: Mapping[str, ParamSpec], old: Params, new: Params, result: Params, share: Tensor, totals: Tensor
) -> dict[str, Tensor]:
    """Spreads of pooled moments: those of the parts, and those of their means around the new one."""
    centre = "mean" if "mean" in specs else "loc"
    gaps = [values[centre] - result[centre] for values in (old, new)]
    if specs[centre].dims[:1] != ("state",):
        gaps = [gap.unsqueeze(1) for gap in gaps]
    name = "covariance" if "covariance" in specs else "scale"
    spec = specs[name]
    power = 1 if name == "covariance" else 2
    squares = [gap.unsqueeze(-1) * gap.unsqueeze(-2) if name == "covariance" else gap.square() for gap in gaps]
    if name == "scale" and not set(spec.dims) - {"state"}:
        squares = [square.mean(-1) for square in squares]
    each = share.reshape(*share.shape, *(1,) * (squares[0].ndim - 2))
    between = (1 - each) * squares[0] + each * squares[1]
    if "state" not in spec.dims:
        part = totals / totals.sum(-1, keepdim=True).clamp_min(_TINY)
        between = (part.reshape(each.shape) * between).sum(1)
    within = _linear(spec, old[name] ** power, new[name] ** power, share, totals)
    return {name: (within + between) ** (1 / power)}


def _angles(
    specs: Mapping[str, ParamSpec], old: Params, new: Params, result: Params, share: Tensor, totals: Tensor
) -> dict[str, Tensor]:
    """The direction and, from its length, the concentration of the pooled E[cos x] and E[sin x].

    Where states share one of the two, directions are pooled alike whatever their concentration, which stays linear.
    """
    own = specs["concentration"].dims == specs["loc"].dims
    before, alone = (
        DiagonalVonMises(**values).resultant if own else torch.stack([values["loc"].cos(), values["loc"].sin()], -1)
        for values in (old, new)
    )
    along, across = (_linear(specs["loc"], before[..., i], alone[..., i], share, totals) for i in (0, 1))
    loc = torch.atan2(across, along)
    return {"loc": loc, "concentration": concentration_of(torch.hypot(along, across))} if own else {"loc": loc}


def _linear(spec: ParamSpec, old: Tensor, new: Tensor, share: Tensor, totals: Tensor) -> Tensor:
    """(1 - share) old + share new, by state; for parameters that states share by their share of all steps."""
    if spec.dims[:1] == ("state",):
        weight = share.reshape(*share.shape, *(1,) * (old.ndim - share.ndim))
    else:
        overall = (share * totals).sum(-1) / totals.sum(-1).clamp_min(_TINY)
        weight = overall.reshape(-1, *(1,) * (old.ndim - 1))
    return old + weight * (new - old)


def _mean(old: Tensor, new: Tensor, gamma: float) -> Tensor:
    return (1.0 - gamma) * old + gamma * new


def _at_end(posterior: Tensor, lengths: Tensor, before: Tensor | None, ahead: Tensor) -> Tensor:
    """p(z_T | x_1:T), the smoothed probabilities of the last step; those from before for a sequence without steps."""
    at = (lengths - 1).clamp_min(0).reshape(1, -1, 1, 1).expand(len(posterior), -1, 1, posterior.shape[-1])
    end = posterior.gather(2, at).squeeze(2)
    end = end / end.sum(-1, keepdim=True).clamp_min(_TINY)
    return torch.where((lengths > 0).reshape(1, -1, 1), end, ahead if before is None else before)
