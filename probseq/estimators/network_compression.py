"""Fitted networks made smaller: matrices of low rank, and what that costs in nats."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probseq._types import Record, number_in, truth_value
from probseq.data.sequences import Sequences
from probseq.errors import ParameterError
from probseq.estimators.encoding import Encoding
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.inference.base import Draws
from probseq.inference.ensemble import EnsembleDraws
from probseq.inference.weight_draws import WeightDraws
from probseq.models.base import SequenceModel
from probseq.models.marginal import Marginalized
from probseq.models.recurrent_matrices import (
    Factors,
    factorise,
    lost_parameters,
    relative_error,
    saved_numbers,
    truncated,
)
from probseq.plotting import plot_compression

__all__ = ["Compression", "NetworkCompression"]


@dataclass(frozen=True)
class Compression(Record):
    """How a network was compressed.

    Parameters
    ----------
    rank : int
        The largest rank of a compressed matrix.
    error : float
        Relative distance in Frobenius' norm of these matrices from those before, over all matrices and draws.
    n_numbers, n_numbers_before : int
        Numbers that one draw of all weights needs, with matrices as products of two factors where that is fewer, and
        before.
    score, score_before : float
        Mean nats per value of the data given; NaN where none were.
    """

    rank: int
    error: float
    n_numbers: int
    n_numbers_before: int
    score: float = math.nan
    score_before: float = math.nan

    @property
    def loss(self) -> float:
        """Nats per value lost by compression."""
        return self.score_before - self.score


class NetworkCompression(Encoding):
    """Methods of an estimator whose model, behind its transforms, is a `RecurrentModel`."""

    compression_: Compression
    """What ``compress`` did, of the copy that it made."""

    def compress(
        self,
        rank: int | None = None,
        X: Any = None,
        *,
        tolerance: float | None = None,
        inputs: bool = True,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
    ) -> Self:
        r"""A fitted copy with sum_{i <= rank} s_i u_i v_i' in place of each matrix sum_i s_i u_i v_i' of its layers.

        Of all matrices of that rank it is the nearest, draw by draw (Eckart and Young 1936). The gates of a layer
        are one matrix (rows of all gates). Kept as two factors, m rows and n columns need r (m + n) numbers in place of
        m n, and as many products a step; the copy holds the product, so that all methods go on as before. It is not
        trained further.

        Parameters
        ----------
        rank : int or None
            From 1. Matrices whose rank is not larger stay as they are.
        X : data in any form
            What the loss is measured on: held-out data, rather than those of the fit.
        tolerance : float or None
            In place of ``rank``: a rank with which a value of X loses at most so many nats, found by bisection. It is
            the smallest where the loss falls as the rank grows, as it does but for small irregularities; otherwise a
            smaller rank may do too, which ``compression_curve`` shows.
        inputs : bool
            Whether matrices that multiply what a layer reads are compressed like the recurrent ones.
        history : None, ps.TRAINING or data
            What came before X.

        Returns
        -------
        A copy whose ``compression_`` tells the rank, the numbers needed, and the score of X before and after. Its
        ``n_parameters_`` counts the dimensions of matrices of that rank, r (m + n - r); its ``log_likelihood_`` is that
        of the training data, each sequence once, or NaN where the model was loaded from a file without them.

        Raises
        ------
        ParameterError
            Unless there is either a rank or a tolerance with X; for ranks that no matrix has.
        UnsupportedError
            For X with a head that is no likelihood.

        Examples
        --------
        >>> import probseq as ps
        >>> y = [0.1, 0.9, 0.2, 0.8, 0.1, 1.0, 0.2, 0.9, 0.0, 0.8]
        >>> quick = ps.MLE(training=ps.TrainingOptions(max_epochs=2))
        >>> small = ps.GRU(hidden_size=8, inference=quick, random_state=0).fit(y).compress(rank=2, X=y)
        >>> small.compression_.n_numbers, small.compression_.n_numbers_before
        (182, 310)
        """
        self._check_fitted()
        factors = self._factors(inputs)
        scorer = None
        if X is not None:
            scorer = _Scorer(self, factors, self._read(X, lengths, covariates), history)
        if (rank is None) == (tolerance is None) or (tolerance is not None and scorer is None):
            raise ParameterError(
                got=f"rank={rank!r}, tolerance={tolerance!r}" + ("" if X is not None else " and no X"),
                expected="either a rank, or a tolerance in nats per value of X",
                remedy="Try compress(rank=8), or compress(X=held_out, tolerance=0.01).",
            )
        if rank is not None:
            chosen = _rank(rank, _full(factors))
        elif scorer is not None:
            chosen = _smallest(
                scorer,
                number_in("tolerance", tolerance, "[0, inf)", "In nats per value: try tolerance=0.01."),
                _full(factors),
            )
        params = truncated(self._recurrent(), self.model_.params, factors, chosen)
        small = self._with_params(params)
        small.n_parameters_ = self.n_parameters_ - lost_parameters(factors, chosen)
        size = self._recurrent().weights.size
        small.compression_ = Compression(
            rank=chosen,
            error=relative_error(factors, chosen),
            n_numbers=size - saved_numbers(factors, chosen),
            n_numbers_before=size,
            score=math.nan if scorer is None else scorer(chosen),
            score_before=math.nan if scorer is None else scorer.before,
        )
        return small

    def compression_curve(
        self,
        X: Any,
        ranks: Any = None,
        *,
        inputs: bool = True,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
    ) -> pd.DataFrame:
        """What each rank would cost: one row a rank, the smallest first.

        Parameters
        ----------
        X, inputs, history
            As in ``compress``.
        ranks : list of int or None
            None is 1, 2, 4, ... and the largest rank of a matrix, which changes nothing.

        Returns
        -------
        DataFrame with the index ``rank``: ``numbers`` that one draw of the weights needs and their ``share`` of those
        of the network as it is, relative ``error`` of the matrices, ``score`` of X in nats per value, and the ``loss``
        of the score. ``attrs["score"]`` is the score of the network as it is.
        """
        self._check_fitted()
        factors = self._factors(inputs)
        full, size = _full(factors), self._recurrent().weights.size
        if ranks is None:
            ranks = [*(2**i for i in range(full.bit_length()) if 2**i < full), full]
        chosen = sorted({_rank(rank, full) for rank in np.atleast_1d(np.asarray(ranks, dtype=object))})
        scorer = _Scorer(self, factors, self._read(X, lengths, covariates), history)
        rows = []
        for rank in chosen:
            numbers, score = size - saved_numbers(factors, rank), scorer(rank)
            rows.append((numbers, numbers / size, relative_error(factors, rank), score, scorer.before - score))
        index = pd.Index(chosen, name="rank")
        table = pd.DataFrame(rows, index=index, columns=["numbers", "share", "error", "score", "loss"])
        table.attrs = {"score": scorer.before, "numbers": size}
        return table

    def plot_compression(
        self,
        X: Any,
        ranks: Any = None,
        *,
        inputs: bool = True,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        ax: Any = None,
    ) -> Any:
        """Draw nats lost per value of X by rank, each with the share of numbers that is left.

        The arguments are those of ``compression_curve``, and ``ax``; returns the Axes.
        """
        table = self.compression_curve(X, ranks, inputs=inputs, lengths=lengths, covariates=covariates, history=history)
        return plot_compression(table.index, table["loss"], table["share"], ax=ax)

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
        weights: Tensor | None = None,
    ) -> None:
        super()._adopt(model, transforms, draws, info, data, weights)  # type: ignore[misc]
        self.__dict__.pop("compression_", None)

    def _factors(self, inputs: Any) -> dict[str, Factors]:
        return factorise(self._recurrent(), self.model_.params, inputs=truth_value("inputs", inputs))

    def _with_params(self, params: dict[str, Tensor]) -> Self:
        """A fitted copy with other weights; what a law of weights knew of those before is left out."""
        draws = _moved(self.draws_, params)
        moved = copy.copy(self)
        moved._adopt(self._build(self.info_), self.transforms_, draws, self.info_, self._fitted_to)  # type: ignore[attr-defined]
        if self._fitted_to is None:
            # The labels of the data are known still; the state that they led to has to be found anew.
            for name in ("training_", "covariate_names_", "vocabulary_", "feature_names_in_"):
                if name in vars(self):
                    setattr(moved, name, vars(self)[name])
        moved.draws_ = replace(draws, log_prob=moved._log_prob_behind_transforms())
        return moved

    def _log_prob_behind_transforms(self) -> float:
        """log p of the training data as the network reads them, nats, as fits report it; NaN without these data."""
        if self._fitted_to is None or not self.has_likelihood:
            return math.nan
        model, batch, state, _ = self._network(self._fitted_to, None)
        with torch.no_grad():
            each = model.log_prob(self.model_.params, batch, state).double()
        return float(torch.logsumexp(self.model_.log_weights.unsqueeze(-1) + each, 0).sum())


class _Scorer:
    """Mean nats per value of data by rank; each rank is scored once."""

    def __init__(self, estimator: NetworkCompression, factors: dict[str, Factors], data: Sequences, history: Any):
        self._estimator, self._factors, self._data, self._history = estimator, factors, data, history
        self._known: dict[int, float] = {}
        self.before = estimator.score(data, history=history)

    def __call__(self, rank: int) -> float:
        if rank >= _full(self._factors):
            return self.before
        if rank not in self._known:
            self._known[rank] = self._score(rank)
        return self._known[rank]

    def _score(self, rank: int) -> float:
        whole = self._estimator
        params = truncated(whole._recurrent(), whole.model_.params, self._factors, rank)
        small = copy.copy(whole)
        small.model_ = Marginalized(whole.model_.model, params, whole.model_.log_weights, whole.model_.adapt)
        if self._history is not None:
            small.training_state_ = None
            if whole._fitted_to is not None and whole.training_ is not None:
                with torch.no_grad():
                    small.training_state_ = small.model_.filter({}, small._batch(whole.training_))
                small.training_state_ = small.model_.reset_weights(small.training_state_)
        return small.score(self._data, history=self._history)


def _moved(draws: Draws, params: dict[str, Tensor]) -> Draws:
    """Draws with other values: of the law that they came from, only whether it was tempered is still true."""
    common: dict[str, Any] = {"params": params, "objective": math.nan, "covariance": None}
    if isinstance(draws, EnsembleDraws):
        return replace(draws, **common)
    if isinstance(draws, WeightDraws):
        kept = {name: getattr(draws, name) for name in ("status", "n_iter", "trace", "optima", "messages")}
        return WeightDraws(
            **common,
            **kept,
            log_prob=math.nan,
            log_weights=draws.log_weights,
            divergence=math.nan,
            kl_weight=draws.kl_weight,
        )
    return replace(draws, **common)


def _full(factors: Mapping[str, Factors]) -> int:
    """The largest rank that a matrix may have."""
    return max(one.singular.shape[-1] for one in factors.values())


def _rank(rank: Any, full: int) -> int:
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= full:
        raise ParameterError(
            got=f"rank={rank!r}", expected=f"a whole number from 1 to {full}", remedy="Smaller ranks compress more."
        )
    return int(rank)


def _smallest(scorer: _Scorer, tolerance: float, full: int) -> int:
    """A rank within the tolerance, or the full one, next above one that is not; the smallest of a monotone loss."""
    low, high = 0, full
    while high - low > 1:
        middle = (low + high) // 2
        if scorer.before - scorer(middle) <= tolerance:
            high = middle
        else:
            low = middle
    return high
