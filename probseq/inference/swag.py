"""SWAG: a normal law with the moments of the weights that stochastic gradient steps pass through."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Rule, number_in, or_none, positive_number, whole_number
from probseq.distributions.params import ParamSpec, flatten, unflatten
from probseq.errors import ApproximationWarning, ParameterError
from probseq.inference.base import Progress
from probseq.inference.law_fits import NetworkInference, as_network, fit_law, log_prob_of_draws, training_options
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.priors import checked_priors
from probseq.inference.weight_draws import WeightDraws
from probseq.inference.weights import PenalizedWeights
from probseq.inference.windows import MiniBatches
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel

__all__ = ["SWAG", "AveragedWeights", "SWAGDraws"]


@dataclass(frozen=True)
class SWAGDraws(WeightDraws):
    """Draws from a normal law with the moments of a training, with those moments; ``divergence`` is NaN.

    Parameters
    ----------
    mean, variance : (m,)
        Of the snapshots.
    deviations : (K, m)
        Of the last snapshots from the mean as it was then.
    n_snapshots : int
    """

    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    variance: Tensor = field(default_factory=lambda: torch.zeros(0))
    deviations: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    n_snapshots: int = 0


class AveragedWeights(PenalizedWeights):
    r"""A point in training, and the moments of what it passes through: after snapshot i,

        mean_i = mean_{i-1} + (w_i - mean_{i-1}) / i, D_i = w_i - mean_i,

    with the sum of squares around the mean, and the last ``rank`` deviations D.

    Parameters
    ----------
    start : (m,)
    specs, priors : as in ``PenalizedWeights``
    rank : int
    begin : float
        Fraction of the training before the first snapshot.
    n_snapshots : int
        Snapshots in all, evenly spread over the rest; one a step at most.
    learning_rate : float
        Of the steps from ``begin`` on, and the lowest one before.
    """

    mean: Tensor
    squares: Tensor
    deviations: Tensor
    count: Tensor

    def __init__(
        self,
        start: Tensor,
        specs: Mapping[str, ParamSpec],
        priors: Mapping[str, Distribution],
        rank: int,
        begin: float,
        n_snapshots: int,
        learning_rate: float,
    ) -> None:
        super().__init__(start, specs, priors)
        self.begin, self.n_snapshots, self.learning_rate = begin, n_snapshots, learning_rate
        self.ready = 1.0  # moments of part of a training are not those of all of it
        self.register_buffer("mean", torch.zeros_like(start))
        self.register_buffer("squares", torch.zeros_like(start))
        self.register_buffer("deviations", start.new_zeros(rank, len(start)))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def prepare(self, data: MiniBatches, options: TrainingOptions) -> None:
        """Check that there will be two snapshots; warn where no noise of mini-batches will part them."""
        n_batches = max(1, data.n_batches(options.batch_size))
        steps = options.epochs(n_batches) * n_batches
        if steps - math.floor(self.begin * steps + 1e-9) < 2:
            raise ParameterError(
                got=f"{steps} steps of training, the last {1 - self.begin:.0%} of them for snapshots",
                expected="at least two snapshots",
                remedy="Raise max_epochs, or lower start or batch_size.",
            )
        if n_batches < 2:
            warnings.warn(
                "A pass over the data is one mini-batch: without the noise of mini-batches the spread of the weights "
                "that SWAG measures is only their drift. Lower batch_size or window.",
                ApproximationWarning,
                stacklevel=5,
            )

    def rate(self, done: float, scheduled: float) -> float:
        return max(scheduled, self.learning_rate) if done < self.begin else self.learning_rate

    def after_step(self, done: float, generator: torch.Generator) -> None:
        """Take a snapshot where one is due."""
        if done > self.begin:
            due = (done - self.begin) / (1 - self.begin) * self.n_snapshots
            if math.floor(due + 1e-9) > int(self.count):
                self.collect(self.flat.detach())

    def collect(self, vector: Tensor) -> None:
        """Note a snapshot (m,)."""
        before = vector - self.mean
        self.count += 1
        self.mean += before / self.count
        after = vector - self.mean
        self.squares += before * after
        self.deviations[(int(self.count) - 1) % len(self.deviations)] = after

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (m,) and variance (m,) of the snapshots, and their last deviations (K, m)."""
        count = int(self.count)
        return self.mean, self.squares / max(1, count), self.deviations[: min(count, len(self.deviations))]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, m) draws of N(mean, (diag(variance) + D'D / (K - 1)) / 2); of fewer than two snapshots the point."""
        with torch.no_grad():
            mean, variance, deviations = self.moments()
            rank = len(deviations)
            if rank < 2:
                return self.flat.detach().unsqueeze(0).clone()
            own = torch.randn(n, len(mean), dtype=mean.dtype, generator=generator)
            shared = torch.randn(n, rank, dtype=mean.dtype, generator=generator)
            return mean + (0.5 * variance).sqrt() * own + shared @ deviations / math.sqrt(2 * (rank - 1))


class SWAG(NetworkInference):
    r"""w ~ N(mean, (diag(variance) + D'D / (K - 1)) / 2), moments of the weights along the last part of a training.

    The network is trained to its highest posterior density (as by ``MAP``); from ``start`` on the learning rate stays
    where it is, so that the noise of the mini-batches keeps the weights moving about the optimum, and the moments of
    where they go are collected: the mean, the variance of each weight and the last ``rank`` deviations from the running
    mean. Approximate: under assumptions on the noise of gradients this is the posterior's shape, its width hangs on the
    learning rate and on the size of the mini-batches. It costs no more than the training.

    Parameters
    ----------
    n_draws : int
        Weight vectors that the fitted model averages over.
    rank : int
        Deviations that are kept, from 2.
    start : float
        Fraction of the training before the first snapshot.
    learning_rate : float or None
        From ``start`` on; None is that of ``training``, 5e-3 unless given. Before, the rate follows the schedule of
        ``training``, but not below this one.
    n_snapshots : int
        Evenly spread over the steps after ``start``; at most one a step.
    priors : dict or None
        As in ``MAP``.
    training : TrainingOptions or None
        As for ``MAP``, but that all data are trained on unless ``validation_fraction`` is given: there is no early
        stopping, scores of what is held back are for callbacks. The theory is of ``optimizer="sgd"``; Adam, whose
        steps are scaled by weight, gives all weights about equal spread. Small mini-batches of many windows make the
        noise that this lives on; with one mini-batch a pass there is none, and a warning says so.

    References
    ----------
    Maddox, Garipov, Izmailov, Vetrov and Wilson (2019), A simple baseline for Bayesian uncertainty in deep learning,
    algorithm 1.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=5, batch_size=2, window=10)
    >>> model = ps.GRU(hidden_size=4, inference=ps.SWAG(n_draws=5, training=short), random_state=0).fit(level)
    >>> parts = model.forecast(2).decompose()
    >>> bool((parts["epistemic"] < parts["total"]).all())
    True
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "rank": partial(whole_number, lowest=2),
        "start": partial(number_in, interval="[0, 1)", remedy="Try 0.5."),
        "learning_rate": or_none(positive_number),
        "n_snapshots": partial(whole_number, lowest=2),
        "training": options_or_none,
    }

    def __init__(
        self,
        n_draws: int = 30,
        rank: int = 20,
        start: float = 0.5,
        learning_rate: float | None = None,
        n_snapshots: int = 100,
        priors: Mapping[str, Distribution] | None = None,
        training: TrainingOptions | None = None,
    ) -> None:
        self.n_draws, self.rank, self.start = n_draws, rank, start
        self.learning_rate, self.n_snapshots = learning_rate, n_snapshots
        self.priors, self.training = priors, training

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> SWAGDraws:
        """Train, collect moments, and draw from the normal law that has them.

        ``objective`` of the result is the log posterior density at the mean, up to its constant; ``log_prob`` is
        log (1/D) sum_d p(x | w_d), in nats. A training that was interrupted before the second snapshot gives its last
        weights as the only draw.

        Raises
        ------
        ParameterError
            For settings out of range, and trainings of fewer than two steps after ``start``.
        IncompatibleError
            For models that are no recurrent networks.
        """
        self.check()
        options = training_options(self.training, learning_rate=5e-3, validation_fraction=0.0)
        law = self.law(as_network(model, self), batch, generator, float(options.learning_rate or 0.0))
        fit = fit_law(model, law, batch, generator, options, validation=validation, weights=weights, progress=progress)
        specs = model.parameters()
        params = unflatten(specs, law.sample(self.n_draws, generator))
        mean, variance, deviations = law.moments()
        with torch.no_grad():
            law.flat.copy_(mean if int(law.count) else law.flat)
        point = unflatten(specs, law.flat.detach().unsqueeze(0))
        total = log_prob_of_draws(model, params, batch, weights)
        objective = float(log_prob_of_draws(model, point, batch, weights)[0]) - float(law.divergence().detach())
        return SWAGDraws(
            params,
            **fit.record(total, objective, fit.done.status),
            point=point,
            divergence=math.nan,
            mean=mean,
            variance=variance,
            deviations=deviations,
            n_snapshots=int(law.count),
        )

    def law(
        self, model: RecurrentModel, batch: Batch, generator: torch.Generator, learning_rate: float
    ) -> AveragedWeights:
        """The law at the start of a training with this learning rate: the model's starting values, no snapshot yet."""
        specs = model.parameters()
        return AveragedWeights(
            flatten(specs, model._initial_guess(batch, generator)),
            specs,
            checked_priors(specs, self.priors),
            self.rank,
            self.start,
            self.n_snapshots,
            learning_rate if self.learning_rate is None else self.learning_rate,
        )
