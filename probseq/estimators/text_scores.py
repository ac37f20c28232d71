"""How well a model predicts text: perplexity and bits per character."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probseq.data.sequences import Sequences
from probseq.data.textfile import TextFile
from probseq.errors import DataError, UnsupportedError
from probseq.estimators.fitted import FittedModel

__all__ = ["TextScores"]


class TextScores(FittedModel):
    """Scores of tokens and categories, each a form of the mean log-likelihood."""

    def perplexity(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
        end: bool = True,
    ) -> float:
        r"""exp(-1/N sum_t log p(x_t | x_<t)), over N tokens: how many equally likely ones would be as surprising.

        Parameters
        ----------
        X : text, texts or tokens, or TextFile
        lengths, covariates, history, weights
            As for ``log_prob_steps``.
        end : bool
            Whether the ends of texts count as tokens, where the vocabulary has an end token. Only perplexities that
            agree in this, and in the vocabulary, can be compared.

        Raises
        ------
        UnsupportedError
            For a model of numbers.
        """
        nats, n = self._nats(X, lengths, covariates, history, weights, end, "perplexity")
        return math.exp(nats / n)

    def bits_per_character(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
        end: bool = True,
    ) -> float:
        r"""-1/N sum_t log_2 p(x_t | x_<t), over the N characters of texts.

        Parameters
        ----------
        X : text or texts, or TextFile
        lengths, covariates, history, weights
            As for ``log_prob_steps``.
        end : bool
            Whether the end of a text counts as one more character.

        Raises
        ------
        UnsupportedError
            For a model of numbers, of words or of other tokens: ``perplexity`` is their score.
        """
        words = self._check_nominal("bits per character")
        if words is None or words.unit != "character" or not (self.training_ is None or self.training_.is_text):
            raise UnsupportedError(
                got=f"bits per character of {'words' if words is not None and words.unit == 'word' else 'tokens'}",
                expected="a model of characters",
                remedy="Use perplexity(X), which is per token.",
            )
        nats, n = self._nats(X, lengths, covariates, history, weights, end, "bits per character")
        return nats / n / math.log(2.0)

    def _check_nominal(self, what: str) -> Any:
        """The vocabulary of a model of categories; others raise."""
        self._check_fitted()
        emission = self.emission_
        if emission is None or not emission.nominal:
            raise UnsupportedError(
                got=f"{what} of {self!r}", expected="a model of tokens or categories", remedy="Use score(X)."
            )
        return self.vocabulary_

    def _nats(
        self, X: Any, lengths: Any, covariates: Any, history: Any, weights: str, end: bool, what: str
    ) -> tuple[float, int]:
        """Minus the log-likelihood, and the number of tokens that it is of."""
        self._check_nominal(what)
        if isinstance(X, TextFile):
            from probseq.estimators.text_files import file_totals, mean_nats

            others = {"lengths": lengths, "covariates": covariates}
            return mean_nats(file_totals(self, X, history, others, weights), end)
        data = self._borrow(X, lengths, covariates)
        steps = self._steps(data, self._begin(data, history, weights), weights)
        return minus_log_prob(data, steps.values.double().numpy(), steps.scored.any(-1).numpy(), end)


def minus_log_prob(data: Sequences, values: np.ndarray, scored: np.ndarray, end: bool) -> tuple[float, int]:
    """Minus the sum of log probabilities (n, t) and the number of tokens, with or without the ends of texts.

    Raises
    ------
    DataError
        Where no token is scored.
    """
    if not end and data.vocabulary is not None and data.vocabulary.end_code is not None:
        scored = scored & (data.values[..., 0] != data.vocabulary.end_code)
    n = int(scored.sum())
    if n == 0:
        raise DataError(got="no token that is scored", expected="at least one", remedy="Pass longer data.")
    return -float(values[scored].sum()), n
