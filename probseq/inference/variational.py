"""Variational inference: a normal law with independent coordinates over the weights of a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from probseq._types import Rule, number_in, positive_number, truth_value, whole_number
from probseq.distributions.params import flatten, unflatten
from probseq.errors import ParameterError
from probseq.inference.base import Progress
from probseq.inference.law_fits import (
    NetworkInference,
    as_network,
    fit_law,
    learnt_or_positive,
    log_prob_of_draws,
    normal_prior,
    training_options,
    warn_if_tempered,
)
from probseq.inference.normal_weights import NormalWeights
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.weight_draws import NormalDraws
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel

__all__ = ["MeanField"]


def _prior_scales(name: str, value: Any) -> None:
    """A factor, "learnt", or factors by kind of weight."""
    if not isinstance(value, Mapping):
        learnt_or_positive(name, value)
        return
    for kind, scale in value.items():
        positive_number(f"{name}[{kind!r}]", scale)


class MeanField(NetworkInference):
    r"""Bayes by backprop: maximise E_q log p(x | w) - KL(q || p) over a normal q with independent coordinates.

    A draw of the weights serves whole sequences, those of a mini-batch or of its part, so that the fused recurrent
    kernel runs; the next draw has the mirrored noise. The divergence is analytic and counted once a pass. The prior is
    the one of the model's parameters, a normal whose standard deviation depends on the kind of weight.

    Parameters
    ----------
    n_draws : int
        Weight vectors drawn from q after training; the fitted model averages over them. The likelihood of a long
        sequence is the average of likelihoods that differ by many nats, ruled by the few draws that suit it best: some
        hundreds of draws raise it, and cost nothing in training.
    prior_scale : float, mapping or "learnt"
        Multiplies the standard deviations of the model's prior, all of them or by kind of weight ("embedding", "input",
        "recurrent", "bias", "norm", "attention", "head", "head_bias", "constant"). "learnt" finds the factor of every
        kind that makes the bound highest (empirical Bayes); ``draws_.prior_scales`` of the fitted model shows them.
        Give it the usual number of steps: in a short training kinds that have not found their use yet shrink away.
    initial_scale : float
        Standard deviations of q at the start, as a fraction of the prior's. Small ones (0.01), with a long
        ``kl_warmup``, let large networks find a use for their weights before noise and divergence push these to zero.
    kl_weight : float
        1 is the evidence lower bound. Below 1 the posterior is tempered, and a warning says so.
    kl_warmup : float
        Fraction of the training over which the weight of the divergence rises from 0 to ``kl_weight``.
    antithetic : bool
        Mirror every second draw at the mean.
    draws_per_batch : int
        Weight vectors drawn for a mini-batch, which is shared out among them: less noise in the gradient for as many
        passes through the kernel, each over fewer sequences.
    local_reparameterization : bool
        Draw what the head's weights produce in place of these weights (Kingma, Salimans and Welling 2015), anew at
        every step. See the notes.
    training : TrainingOptions or None
        Adam's learning rate is 2e-2 unless given. All data are trained on; with ``validation`` data, or where
        ``validation_fraction`` holds some back, the law whose mean has the best score is kept, among those after the
        warm-up of the divergence: before, the law is no posterior. The mean is often at its best before the standard
        deviations have settled; ``patience=1`` trains to the end.

    Notes
    -----
    The bound is E_q sum_t log p(x_t | x_<t, w) - KL(q || p). The recurrent weights act on every later step, so one draw
    of them must serve a whole sequence: new ones at each step would be another model. The head's weights enter step t
    through that step's outputs only. Given the memory, the expectation of a sum of steps is the sum of their
    expectations, and each needs no more than the law of its own outputs o_t = W f_t + b, which is N(M f_t + m, S^2
    f_t^2 + s^2). Local reparameterisation draws from it at each step: the same bound, with gradients whose noise does
    not add up along a sequence. The model is still one draw of all weights a sequence, and so are ``log_prob``,
    ``objective`` and every forecast.

    References
    ----------
    Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), Weight uncertainty in neural networks. Fortunato, Blundell and
    Vinyals (2017), Bayesian recurrent neural networks. Wu, Nowozin, Meeds, Turner, Hernández-Lobato and Gaunt (2019),
    Deterministic variational inference for robust Bayesian neural networks, section 4 (prior scales that are learnt).

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=5, batch_size=2, window=10)
    >>> model = ps.GRU(hidden_size=4, inference=ps.MeanField(n_draws=5, training=short), random_state=0).fit(level)
    >>> parts = model.forecast(2).decompose()
    >>> bool((parts["epistemic"] < parts["total"]).all())
    True
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "prior_scale": _prior_scales,
        "initial_scale": positive_number,
        "kl_weight": positive_number,
        "kl_warmup": partial(number_in, interval="[0, 1]"),
        "antithetic": truth_value,
        "draws_per_batch": partial(whole_number, lowest=1),
        "local_reparameterization": truth_value,
        "training": options_or_none,
    }

    def __init__(
        self,
        n_draws: int = 30,
        prior_scale: float | Mapping[str, float] | str = 1.0,
        initial_scale: float = 0.1,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.25,
        antithetic: bool = True,
        draws_per_batch: int = 1,
        local_reparameterization: bool = False,
        training: TrainingOptions | None = None,
    ) -> None:
        self.n_draws, self.prior_scale, self.initial_scale = n_draws, prior_scale, initial_scale
        self.kl_weight, self.kl_warmup, self.antithetic = kl_weight, kl_warmup, antithetic
        self.draws_per_batch, self.local_reparameterization = draws_per_batch, local_reparameterization
        self.training = training

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> NormalDraws:
        """Find q and draw from it.

        ``objective`` of the result is the evidence lower bound, its expectation over the same draws; ``log_prob`` is
        log (1/D) sum_d p(x | w_d), in nats.

        Raises
        ------
        ParameterError
            For settings out of range.
        IncompatibleError
            For models that are no recurrent networks, and weights whose prior is not normal.
        """
        self.check()
        warn_if_tempered(self.kl_weight)
        law = self.law(as_network(model, self), batch, generator)
        options = training_options(self.training, learning_rate=2e-2, validation_fraction=0.0)
        fit = fit_law(
            model,
            law,
            batch,
            generator,
            options,
            kl_weight=self._kl_weight,
            validation=validation,
            weights=weights,
            progress=progress,
        )
        specs = model.parameters()
        params = unflatten(specs, law.sample(self.n_draws, generator))
        total = log_prob_of_draws(model, params, batch, weights)
        divergence = float(law.divergence().detach())
        mean = law.mean.detach()
        return NormalDraws(
            params,
            **fit.record(total, float(total.mean()) - divergence, fit.settled),
            point=unflatten(specs, mean.unsqueeze(0)),
            mean=mean,
            scale=law.rho.detach().exp(),
            prior_location=law.location,
            prior_scale=law.prior_scale(),
            divergence=divergence,
            kl_weight=float(self.kl_weight),
            prior_scales=law.factors(),
        )

    def law(self, model: RecurrentModel, batch: Batch, generator: torch.Generator) -> NormalWeights:
        """The law at the start of the training: around the model's starting values."""
        where, width = normal_prior(model, self)
        mean = flatten(model.parameters(), model._initial_guess(batch, generator))
        runs = [(piece.kind, piece.stop - piece.start) for piece in model.pieces.values()]
        width = width * self._factors(runs)
        law = NormalWeights(
            mean,
            (width * self.initial_scale).log(),
            where,
            width,
            self.antithetic,
            self.draws_per_batch,
            kinds=runs if self.prior_scale == "learnt" else None,
            local=_head(model) if self.local_reparameterization else None,
        )
        law.ready = float(self.kl_warmup)
        return law

    def _factors(self, runs: list[tuple[str, int]]) -> Tensor:
        """What multiplies the standard deviations of the prior, (m,) or ()."""
        if not isinstance(self.prior_scale, Mapping):
            return torch.tensor(1.0 if self.prior_scale == "learnt" else self.prior_scale)
        kinds = {kind for kind, _ in runs}
        if not kinds.issuperset(self.prior_scale):
            raise ParameterError(
                got=f"prior_scale for {sorted(set(self.prior_scale) - kinds)}",
                expected=f"kinds of weights of this network: {sorted(kinds)}",
                remedy="Check the names.",
            )
        return torch.cat([torch.full((size,), float(self.prior_scale.get(kind, 1.0))) for kind, size in runs])

    def _kl_weight(self, done: float) -> float:
        rising = 1.0 if done >= self.kl_warmup else done / self.kl_warmup
        return self.kl_weight * rising


def _head(model: RecurrentModel) -> Tensor:
    """Which weights the head multiplies its inputs by, or adds, (m,)."""
    local = torch.zeros(sum(spec.shape[0] for spec in model.parameters().values()), dtype=torch.bool)
    for piece in model.pieces.values():
        local[piece.start : piece.stop] = piece.kind in ("head", "head_bias")
    return local
