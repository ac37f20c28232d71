"""Stochastic gradient Markov chain Monte Carlo: draws of weights along a training with noise of the right size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Rule, number_in, positive_number, truth_value, whole_number
from probseq.distributions.params import ParamSpec, flatten, unflatten
from probseq.errors import ApproximationWarning, ParameterError
from probseq.inference.base import Progress
from probseq.inference.diagnostics import ess_bulk
from probseq.inference.langevin_optimizer import Langevin
from probseq.inference.law_fits import (
    NetworkInference,
    as_network,
    fit_law,
    log_prob_of_draws,
    training_options,
)
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.priors import checked_priors, log_prior
from probseq.inference.weight_draws import WeightDraws
from probseq.inference.weights import PenalizedWeights
from probseq.inference.windows import MiniBatches
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel

__all__ = ["SGHMC", "SGLD", "LangevinDraws", "LangevinWeights"]

# The chain's temperature above which a fit warns.
_TOO_HOT = 1.25


@dataclass(frozen=True)
class LangevinDraws(WeightDraws):
    """Draws along one chain, in its order; ``point`` is their mean, ``divergence`` NaN.

    Parameters
    ----------
    temperature : float
        Mean kinetic energy after the burn-in over what it should be: about the factor by which steps that are too long
        and the noise of mini-batches make the variances of the weights too large.
    ess : float
        How many independent draws those of log p(x | w) are worth; NaN for fewer than four.
    """

    temperature: float = math.nan
    ess: float = math.nan


class LangevinWeights(PenalizedWeights):
    """A chain: a point that ``Langevin`` moves, and what it was at some of the steps.

    Parameters
    ----------
    start : (m,)
    specs, priors : as in ``PenalizedWeights``
    n_draws : int
        Evenly spread over the steps after the burn-in.
    burn_in : float
        Fraction of the training.
    rates : (float, float)
        Learning rates at the start, from where it falls along half a cosine, and after the burn-in.
    friction, preconditioned, clip : as in ``Langevin``
    """

    draws: Tensor
    count: Tensor
    heat: Tensor

    def __init__(
        self,
        start: Tensor,
        specs: Mapping[str, ParamSpec],
        priors: Mapping[str, Distribution],
        n_draws: int,
        burn_in: float,
        rates: tuple[float, float],
        friction: float = 1.0,
        preconditioned: bool = True,
        clip: float | None = None,
    ) -> None:
        super().__init__(start, specs, priors)
        self.burn_in, self.rates, self.friction = burn_in, rates, friction
        self.preconditioned, self.clip = preconditioned, clip
        self.ready = 1.0  # a chain is not stopped early
        self.n_values = math.nan
        self._moves: Langevin | None = None
        self.register_buffer("draws", start.new_zeros(n_draws, len(start)))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("heat", torch.zeros(2, dtype=start.dtype))

    def prepare(self, data: MiniBatches, options: TrainingOptions) -> None:
        """Check that there are steps enough for the draws."""
        n_batches = max(1, data.n_batches(options.batch_size))
        steps = options.epochs(n_batches) * n_batches
        left = steps - math.floor(self.burn_in * steps + 1e-9)
        if left < len(self.draws):
            raise ParameterError(
                got=f"{left} steps after the burn-in for {len(self.draws)} draws",
                expected="at least as many steps as draws, better 50 times as many",
                remedy="Raise max_epochs, or lower n_draws or batch_size.",
            )
        self.n_values = data.n_values

    def optimizer(self, options: TrainingOptions) -> Langevin:
        self._moves = Langevin([self.flat], self.friction, self.n_values, self.preconditioned, self.clip)
        return self._moves

    def rate(self, done: float, scheduled: float) -> float:
        first, last = self.rates
        if done >= self.burn_in:
            return last
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done / self.burn_in))

    def after_step(self, done: float, generator: torch.Generator) -> None:
        """Add the noise of the step, and keep the weights where a draw is due."""
        if self._moves is None:
            raise RuntimeError("a Langevin chain is moved by its own optimiser")
        heat = self._moves.diffuse(generator)
        moved_freely = not self._moves.param_groups[0]["adapting"]
        self._moves.param_groups[0]["adapting"] = done < self.burn_in
        if not moved_freely or heat is None:
            return
        self.heat[0] += heat
        self.heat[1] += 1
        due = (done - self.burn_in) / (1 - self.burn_in) * len(self.draws)
        count = int(self.count)
        if count < min(len(self.draws), math.floor(due + 1e-9)):
            self.draws[count] = self.flat.detach()
            self.count += 1

    def found(self) -> Tensor:
        """The draws so far (d, m); the present weights where there is none."""
        count = int(self.count)
        return self.draws[:count].clone() if count else self.flat.detach().unsqueeze(0).clone()

    def temperature(self) -> tuple[float, float]:
        """The mean since the burn-in, see ``Langevin.diffuse``, and the standard error that it has by chance."""
        total, count = self.heat.tolist()
        if not count:
            return math.nan, math.nan
        independent = self.flat.numel() * max(1.0, count * self.friction / (2 - self.friction))
        return total / count, math.sqrt(2 / independent)


class SGLD(NetworkInference):
    r"""w' = w - e G g(w) + N(0, 2 e G / n): gradient steps whose noise makes the weights draws from their posterior.

    g is the gradient, by mini-batches, of minus the log posterior density a value, n the number of values. In the first
    part of the training the learning rate e falls and the chain finds its way; then it stays, and the weights are kept
    now and then. Approximate: the noise of mini-batches and the length of the steps make the variances too large, by a
    factor that is measured along the chain (``draws_.temperature``) and warned of above 1.25; and a chain of a few
    thousand steps sees little more than the surroundings of one mode.

    Parameters
    ----------
    n_draws : int
        Weight vectors that are kept, evenly spread over the steps after the burn-in.
    burn_in : float
        Fraction of the training before the first of them.
    learning_rate : float
        e after the burn-in. Before, it falls from the rate of ``training``, 5e-3 unless given.
    preconditioned : bool
        G is the inverse of the root mean square of each weight's gradients, as in RMSprop (Li et al. 2016), learnt in
        the burn-in and fixed from then on, so that it does not change the law. False is G = 1, for which learning rates
        may have to be some hundred times larger.
    priors : dict or None
        As in ``MAP``.
    training : TrainingOptions or None
        Its optimiser, schedule and weight decay are not used, and ``gradient_clip`` in the burn-in only. All data are
        learnt from unless ``validation_fraction`` is given: a chain is not stopped early, scores of what is held back
        are for callbacks.

    References
    ----------
    Welling and Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics. Li, Chen, Carlson and Carin
    (2016), Preconditioned stochastic gradient Langevin dynamics for deep neural networks. Wenzel et al. (2020), How
    good is the Bayes posterior in deep neural networks really?, appendix I (temperatures as diagnostics).

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=5, batch_size=2, window=10)
    >>> model = ps.GRU(hidden_size=4, inference=ps.SGLD(n_draws=5, training=short), random_state=0).fit(level)
    >>> parts = model.forecast(2).decompose()
    >>> bool((parts["epistemic"] < parts["total"]).all())
    True
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "burn_in": partial(number_in, interval="(0, 1)", remedy="Try burn_in=0.5."),
        "learning_rate": positive_number,
        "preconditioned": truth_value,
        "training": options_or_none,
    }

    def __init__(
        self,
        n_draws: int = 30,
        burn_in: float = 0.5,
        learning_rate: float = 3e-3,
        preconditioned: bool = True,
        priors: Mapping[str, Distribution] | None = None,
        training: TrainingOptions | None = None,
    ) -> None:
        self.n_draws, self.burn_in, self.learning_rate = n_draws, burn_in, learning_rate
        self.preconditioned, self.priors, self.training = preconditioned, priors, training

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> LangevinDraws:
        """Run the chain.

        ``objective`` of the result is the mean of the log posterior density over the draws, up to its constant;
        ``log_prob`` is log (1/D) sum_d p(x | w_d), in nats. A chain that was interrupted in its burn-in gives its last
        weights as the only draw.

        Raises
        ------
        ParameterError
            For settings out of range, and trainings with fewer steps after the burn-in than draws.
        IncompatibleError
            For models that are no recurrent networks.
        """
        self.check()
        options = training_options(self.training, learning_rate=5e-3, validation_fraction=0.0)
        law = self.law(as_network(model, self), batch, generator, options)
        free = replace(options, gradient_clip=None)
        fit = fit_law(model, law, batch, generator, free, validation=validation, weights=weights, progress=progress)
        flat, specs = law.found(), model.parameters()
        temperature, error = law.temperature()
        params = unflatten(specs, flat)
        total = log_prob_of_draws(model, params, batch, weights)
        objective = float((total + log_prior(specs, checked_priors(specs, self.priors), params)).mean())
        if temperature - 3 * error > _TOO_HOT:
            warnings.warn(
                f"The chain's temperature is {temperature:.2f} in place of 1: the variances of the weights are about "
                f"{temperature - 1:.0%} too large. Lower learning_rate or raise batch_size; where the chain was still "
                "on its way, raise max_epochs.",
                ApproximationWarning,
                stacklevel=2,
            )
        return LangevinDraws(
            params,
            **fit.record(total, objective, fit.settled),
            point=unflatten(specs, flat.mean(0).unsqueeze(0)),
            divergence=math.nan,
            temperature=temperature,
            ess=float(ess_bulk(total.numpy().reshape(1, -1))),
        )

    def law(
        self, model: RecurrentModel, batch: Batch, generator: torch.Generator, options: TrainingOptions
    ) -> LangevinWeights:
        """The chain before its first step: the model's starting values."""
        specs, friction = model.parameters(), self._friction()
        return LangevinWeights(
            flatten(specs, model._initial_guess(batch, generator)),
            specs,
            checked_priors(specs, self.priors),
            self.n_draws,
            self.burn_in,
            # What is left of a velocity at each step adds up to 1 / friction steps.
            (friction * float(options.learning_rate or 0.0), self.learning_rate),
            friction,
            self.preconditioned,
            options.gradient_clip,
        )

    def _friction(self) -> float:
        return 1.0


class SGHMC(SGLD):
    r"""v' = (1 - a) v - e G g(w) + N(0, 2 a e G / n), w' = w + v': ``SGLD`` with momentum, of friction a.

    Parameters
    ----------
    n_draws, burn_in, preconditioned, priors, training
        As in ``SGLD``; at the start the learning rate is the friction times that of ``training``.
    learning_rate : float
        e after the burn-in; e / a corresponds to the learning rate of ``SGLD``.
    friction : float
        a, above 0 and up to 1, which is ``SGLD``.

    References
    ----------
    Chen, Fox and Guestrin (2014), Stochastic gradient Hamiltonian Monte Carlo.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=5, batch_size=2, window=10)
    >>> model = ps.GRU(hidden_size=4, inference=ps.SGHMC(n_draws=5, training=short), random_state=0).fit(level)
    >>> parts = model.forecast(2).decompose()
    >>> bool((parts["epistemic"] < parts["total"]).all())
    True
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        **SGLD.rules,
        "friction": partial(number_in, interval="(0, 1]", remedy="Try friction=0.1."),
    }

    def __init__(
        self,
        n_draws: int = 30,
        burn_in: float = 0.5,
        learning_rate: float = 3e-4,
        friction: float = 0.1,
        preconditioned: bool = True,
        priors: Mapping[str, Distribution] | None = None,
        training: TrainingOptions | None = None,
    ) -> None:
        super().__init__(n_draws, burn_in, learning_rate, preconditioned, priors, training)
        self.friction = friction

    def _friction(self) -> float:
        return float(self.friction)
