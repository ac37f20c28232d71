"""Monte Carlo dropout: masks of what weights multiply, as a law of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probseq._types import Rule, number_in, or_none, whole_number
from probseq.distributions.params import flatten, unflatten
from probseq.errors import ApproximationWarning, ParameterError
from probseq.inference.base import Progress
from probseq.inference.law_fits import (
    NetworkInference,
    as_network,
    fit_law,
    log_prob_of_draws,
    normal_prior,
    training_options,
    warn_if_tempered,
)
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.weight_draws import WeightDraws
from probseq.inference.weights import WeightLaw
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_noise import dropout_rate

__all__ = ["MCDropout", "MaskedWeights"]

# Nats between likelihoods of all the data that are the same for every purpose.
_ALIKE = 0.01


class MaskedWeights(WeightLaw):
    r"""w_i = flat_i b_{c(i)} / (1 - p_{c(i)}), b_c ~ Bernoulli(1 - p_c) independent, c(i) the column that i is in.

    Parameters
    ----------
    start : (m,)
        Where the search for ``flat`` starts.
    column : (m,) int64
        c(i), from 0.
    rates : (number of columns,)
        p_c; 0 leaves a column as it is.
    location, scale : (m,), of the normal prior
    n_vectors : int
        Vectors of a draw.
    """

    column: Tensor
    kept: Tensor
    location: Tensor
    precision: Tensor

    def __init__(
        self, start: Tensor, column: Tensor, rates: Tensor, location: Tensor, scale: Tensor, n_vectors: int = 1
    ) -> None:
        super().__init__()
        self.flat = nn.Parameter(start.clone())
        self.register_buffer("column", column)
        self.register_buffer("kept", 1 - rates.to(start.dtype))
        self.register_buffer("location", location)
        self.register_buffer("precision", scale**-2)
        self.n_vectors = n_vectors

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """``n_vectors`` of shape (m,), each with masks of its own."""
        return tuple(self.flat * self._mask(generator) for _ in range(self.n_vectors))

    def _mask(self, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(self.kept.shape, dtype=self.kept.dtype, device=self.kept.device, generator=generator)
        return torch.where(uniform < self.kept, 1 / self.kept, 0.0)[self.column]

    def divergence(self) -> Tensor:
        """KL(q || prior) in nats up to a constant: sum_i (1 - p_i) (flat_i / (1 - p_i) - location_i)^2 / (2 scale_i^2).

        Each weight's law is a narrow normal around flat_i / (1 - p_i), or around zero; what does not depend on flat is
        left out (Gal and Ghahramani 2016, appendix 3.1).
        """
        kept = self.kept[self.column]
        return (0.5 * self.precision * kept * (self.flat / kept - self.location).square()).sum()

    def centre(self) -> Tensor:
        """The mean of the law."""
        return self.flat

    def unmasked(self) -> Tensor:
        """The weights that no mask touches, zero for all others, (m,)."""
        return self.flat.detach() * (self.kept == 1)[self.column]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, m) draws."""
        with torch.no_grad():
            return torch.stack([self.flat * self._mask(generator) for _ in range(n)])


class MCDropout(NetworkInference):
    r"""Dropout as a law of the weights: columns of the matrices are zero together, prediction averages over masks.

    A column of a matrix multiplies one unit of what is read; without it the unit is not seen, at any step of any
    sequence that this draw serves. One mask a draw for all steps, and for all gates of a cell, is the variational
    dropout of Gal and Ghahramani: training maximises E_q log p(x | w) - KL(q || prior) over the weights under random
    masks, and the fitted model averages over ``n_draws`` masked weight vectors, which stay what they are.

    Masked are the columns of the recurrent matrices, of the input matrices and of the head's matrices; biases,
    embeddings (whose units are masked where a layer reads them), norms and attention are not.

    Parameters
    ----------
    rate : float
        Probability that a unit is not seen by the layer above it or by the head.
    recurrent_rate : float or None
        That a unit is not seen by its own layer at the next step. None is ``rate``.
    input_rate : float or None
        That one of the inputs of the network is not seen: by the first layer, and by the head, which reads them too.
        None is ``rate`` for tokens, whose embeddings have many units, and 0 for numbers, where nearly all is in one.
    n_draws : int
        Masked weight vectors that the fitted model averages over.
    draws_per_batch : int
        Masks drawn for a mini-batch, which is shared out among them.
    kl_weight : float
        Of the divergence from the model's normal prior, which for this law is a weight decay. 1 is the bound, up to a
        constant; 0 is dropout without weight decay, a common choice where early stopping guards against overfitting;
        all but 1 are tempered, and a warning says so. On short series of numbers the divergence may drive every weight
        that masks touch to zero, and leave what goes straight from the inputs to the head, which no mask touches: one
        network and no uncertainty of its weights, which a warning tells. Then take 0 and early stopping.
    training : TrainingOptions or None
        As for ``MLE``: Adam's learning rate is 5e-3 and 15 % of the data are held back for early stopping unless given;
        the weights without masks are scored there.

    References
    ----------
    Gal and Ghahramani (2016), A theoretically grounded application of dropout in recurrent neural networks.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=5, batch_size=2, window=10)
    >>> dropout = ps.MCDropout(rate=0.2, n_draws=5, training=short)
    >>> model = ps.GRU(hidden_size=4, inference=dropout, random_state=0).fit(level)
    >>> parts = model.forecast(2).decompose()
    >>> bool((parts["epistemic"] < parts["total"]).all())
    True
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "rate": dropout_rate,
        "recurrent_rate": or_none(dropout_rate),
        "input_rate": or_none(dropout_rate),
        "n_draws": partial(whole_number, lowest=1),
        "draws_per_batch": partial(whole_number, lowest=1),
        "kl_weight": partial(number_in, interval="[0, inf)", remedy="1 is the bound."),
        "training": options_or_none,
    }

    def __init__(
        self,
        rate: float = 0.1,
        recurrent_rate: float | None = None,
        input_rate: float | None = None,
        n_draws: int = 30,
        draws_per_batch: int = 1,
        kl_weight: float = 1.0,
        training: TrainingOptions | None = None,
    ) -> None:
        self.rate, self.recurrent_rate, self.input_rate = rate, recurrent_rate, input_rate
        self.n_draws, self.draws_per_batch, self.kl_weight = n_draws, draws_per_batch, kl_weight
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
    ) -> WeightDraws:
        """Train under random masks and draw masks.

        ``objective`` of the result is the bound up to the constant of the divergence, its expectation over the same
        draws; ``log_prob`` is log (1/D) sum_d p(x | w_d), in nats.

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
        options = training_options(self.training, learning_rate=5e-3, validation_fraction=0.15)
        fit = fit_law(
            model,
            law,
            batch,
            generator,
            options,
            kl_weight=lambda done: self.kl_weight,
            validation=validation,
            weights=weights,
            progress=progress,
        )
        specs = model.parameters()
        params = unflatten(specs, law.sample(self.n_draws, generator))
        total = log_prob_of_draws(model, params, batch, weights)
        if float(total.max() - total.min()) < _ALIKE:
            without = log_prob_of_draws(model, unflatten(specs, law.unmasked().unsqueeze(0)), batch, weights)
            if float((total - without).abs().max()) < _ALIKE:
                warnings.warn(
                    "The network uses nothing that masks touch: the divergence has driven these weights to zero, and "
                    "what is left is one network without uncertainty of its weights. Give kl_weight=0 with data held "
                    "back for early stopping, or input_rate, or take MeanField.",
                    ApproximationWarning,
                    stacklevel=2,
                )
        divergence = float(law.divergence().detach())
        return WeightDraws(
            params,
            **fit.record(total, float(total.mean()) - divergence, fit.settled),
            point=unflatten(specs, law.flat.detach().unsqueeze(0)),
            divergence=divergence,
            kl_weight=float(self.kl_weight),
        )

    def law(self, model: RecurrentModel, batch: Batch, generator: torch.Generator) -> MaskedWeights:
        """The law at the start of the training: around the model's starting values."""
        location, scale = normal_prior(model, self)
        start = flatten(model.parameters(), model._initial_guess(batch, generator))
        column, rates = self._columns(model)
        return MaskedWeights(start, column, rates, location, scale, self.draws_per_batch)

    def _columns(self, model: RecurrentModel) -> tuple[Tensor, Tensor]:
        """The column of every weight, 0 for those of none, and the rate of every column."""
        tokens = any(piece.kind == "embedding" for piece in model.pieces.values())
        recurrent = self.rate if self.recurrent_rate is None else self.recurrent_rate
        inputs = (self.rate if tokens else 0.0) if self.input_rate is None else self.input_rate
        of_inputs = ("layers.0.input", "head.direct")
        column = torch.zeros(max(piece.stop for piece in model.pieces.values()), dtype=torch.int64)
        rates = [0.0]
        for name, piece in model.pieces.items():
            if piece.kind not in ("input", "recurrent", "head"):
                continue
            rate = inputs if name in of_inputs else recurrent if piece.kind == "recurrent" else self.rate
            rows, columns = piece.shape
            column[piece.start : piece.stop] = (len(rates) + torch.arange(columns)).repeat(rows)
            rates += [rate] * columns
        return column, torch.tensor(rates, dtype=torch.float64)

    def check(self) -> None:
        super().check()
        if not (self.rate or self.recurrent_rate or self.input_rate):
            raise ParameterError(got="rates of 0", expected="a rate above 0", remedy="MAP and MLE train without masks.")
