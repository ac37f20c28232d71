"""One step at a time, in constant time and memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from probseq.data.covariates import order_by_name, plain_names
from probseq.data.sequences import Sequences
from probseq.data.timeindex import is_default
from probseq.errors import (
    CovariateError,
    DataError,
    ParameterError,
    ShapeError,
)
from probseq.estimators.fitted import FittedModel
from probseq.estimators.pipeline import check_support
from probseq.estimators.state import State
from probseq.results.backends import LawBackend
from probseq.results.forecast import Forecast

__all__ = ["Streaming"]


class Streaming(FittedModel):
    """States that a user carries along."""

    def initial_state(self, n_sequences: int = 1) -> State:
        """The state before the first step of new sequences."""
        self._check_fitted()
        if not isinstance(n_sequences, int | np.integer) or isinstance(n_sequences, bool) or n_sequences < 1:
            raise ParameterError(
                got=f"n_sequences={n_sequences!r}", expected="a whole number from 1", remedy="Try n_sequences=1."
            )
        return State(self.model_.initial_state({}, int(n_sequences)), int(n_sequences))

    def filter(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> State:
        """The state after X; a text goes on, so that it has not ended.

        Parameters
        ----------
        X : data in any form
            A text counts as ended only where it was read so before, by ``ps.sequences``.
        history : None, ps.TRAINING or data
            What came before X.
        weights : "adapt" or "frozen"
            Whether what is seen moves the weights of the parameter draws (the model's law), or each draw keeps the
            weight that the fit gave it.
            X weighs the draws even where it is what the model was fitted to; with "frozen" the state after these
            data is that from which ``forecast`` goes on by itself.
        """
        end = None if isinstance(X, Sequences) or getattr(self, "vocabulary_", None) is None else False
        data = self._read(X, lengths, covariates, end)
        model = self._weighed(weights)
        with torch.no_grad():
            return State(model.filter({}, self._batch(data), self._begin(data, history, weights)), data.n_sequences)

    def update(self, state: State, x: Any, *, covariates: Any = None, weights: str = "adapt") -> State:
        """The state after one more step; constant time and memory.

        Parameters
        ----------
        x : a number, (k,), or (n, k); NaN is missing. A row of a table, or a dict from names to values, goes by the
            names of the variables; so do ``covariates``. For models of tokens one token, such as a character or
            "<end>", or a list of one for each sequence; None is missing.
        weights : "adapt" or "frozen"
            Whether what is seen moves the weights of the parameter draws (the model's law), or each draw keeps the
            weight that the fit gave it.
        """
        self._check_fitted()
        self._check_state(state)
        value = self._one_step(x, state.n)
        check_support(value, self.emission_, self.model_.observation.n_categories, "x")
        self.transforms_.check(value[:, None, :])
        if np.isinf(value).any():
            raise DataError(got="an infinite value", expected="finite values or NaN", remedy="Mark it as missing.")
        seen = ~np.isnan(value)
        x_t = torch.as_tensor(np.where(seen, value, self.model_.observation.fills))
        u_t = self._one_input(covariates, state.n)
        with torch.no_grad():
            tree = self._weighed(weights).update({}, self._held(state.tree, weights), x_t, torch.as_tensor(seen), u_t)
            return State(tree, state.n)

    def predictive_at(self, state: State, *, covariates: Any = None, weights: str = "adapt") -> Forecast:
        """The predictive distribution of the next step.

        Parameters
        ----------
        weights : "adapt" or "frozen"
            Those that the state has for the parameter draws, or those that the fit gave them.
        """
        self._check_fitted()
        self._check_state(state)
        u = self._one_input(covariates, state.n)
        tree = self._held(state.tree, weights)
        ready = self.model_.scores_next(tree)
        with torch.no_grad():
            law = self.model_.predict_next({}, tree, u)
            laws = self.model_.draw_laws(tree, u)
        several = self.model_.n_draws > 1
        shares = tree.log_weights.exp().unsqueeze(1) if several else None
        backend = LawBackend(law[:, None], laws[:, None] if several else None, shares)
        scored = None if ready is None else ready.unsqueeze(1).numpy()
        index = tuple(pd.RangeIndex(1, 2) for _ in range(state.n))
        return Forecast(backend, self._unlabelled(state.n), index, scored=scored, random_state=self.random_state)

    def state_from_bytes(self, data: bytes) -> State:
        """Read a state that ``State.to_bytes`` wrote."""
        self._check_fitted()
        return State.from_bytes(data, self.model_.initial_state({}, 1))

    def _one_step(self, x: Any, n: int) -> np.ndarray:
        """One value a variable of each sequence, (n, k)."""
        if self.vocabulary_ is not None:
            x = self._codes(x, n)
        values, names = _labelled(x, n)
        value = _block(values, n, self.n_features_in_, "x")
        if names is None:
            return value
        given, fitted = plain_names(names), self._variable_names()
        if fitted is None:
            # Columns that were only counted; where they have other names they go by position.
            counted = tuple(range(value.shape[1]))
            fitted = counted if set(given) == set(counted) else given
        wanted = plain_names(fitted)
        if set(given) != set(wanted):
            raise ShapeError(
                got=f"the variables {list(names)}", expected=f"{list(fitted)}", remedy="Name them as in the fit."
            )
        return value[:, [given.index(name) for name in wanted]]

    def _codes(self, x: Any, n: int) -> Any:
        """Codes for tokens, one for each sequence; what has no text in it is left as it is.

        Raises
        ------
        ShapeError
            For texts that are not one token.
        VocabularyError
            For a token that the model does not know.
        """
        tokens = np.asarray(x, dtype=object).ravel().tolist()
        if not any(isinstance(one, str) for one in tokens):
            return x
        words, texts = self.vocabulary_, self.training_ is None or self.training_.is_text
        for one in tokens:
            n_tokens = len(words.split(one)) if isinstance(one, str) and one not in words and texts else 1
            if n_tokens != 1:
                raise ShapeError(
                    got=f"x={one!r}, {n_tokens} tokens",
                    expected=f"one token a step: a {words.unit}",
                    remedy="Call update once for each, or filter(text, history=...) for all together.",
                )
        codes = words.encode(np.array(tokens, dtype=object), where="x")
        if len(codes) != n:
            raise ShapeError(
                got=f"{len(codes)} tokens for a state of {n} sequence{'s' * (n != 1)}",
                expected="one for each sequence",
                remedy="Pass one step.",
            )
        return codes

    def _one_input(self, covariates: Any, n: int) -> torch.Tensor | None:
        m = self.model_.n_covariates
        if (covariates is None) != (m == 0):
            raise CovariateError(
                got="no covariates" if covariates is None else "covariates",
                expected=f"{m} covariates {list(self.covariate_names_)}",
                remedy="Pass covariates= for this step." if m else "Leave them out.",
            )
        if covariates is None:
            return None
        values, names = _labelled(covariates, n)
        if names is not None:
            order = order_by_name(names, len(names), self.covariate_names_)
            values = _block(values, n, len(names), "covariates")[:, order]
        return torch.as_tensor(_block(values, n, m, "covariates"))


def _labelled(x: Any, n: int) -> tuple[Any, tuple[Hashable, ...] | None]:
    """One step, and the names of its numbers where it has some; the rows of tables are sequences.

    The label of a single number is no name: a cell that was cut out of a series carries its time.
    """
    if isinstance(x, Mapping):
        return np.column_stack([np.asarray(value, dtype=object).reshape(-1) for value in x.values()]), tuple(x)
    if isinstance(x, xr.DataArray) and "variable" in x.dims:
        names = tuple(x.coords["variable"].values.tolist()) if "variable" in x.coords else None
        return x.transpose(..., "variable").values, names
    if isinstance(x, pd.DataFrame):
        return x.to_numpy(), None if is_default(x.columns) else tuple(x.columns)
    if isinstance(x, pd.Series) and n == 1 and len(x) > 1:
        return x.to_numpy(), None if is_default(x.index) else tuple(x.index)
    return x, None


def _block(x: Any, n: int, k: int, name: str) -> np.ndarray:
    try:
        value = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(got=f"{name}={x!r}", expected=f"numbers, {(n, k)}", remedy="Pass one step.") from error
    if value.size != n * k:
        raise ShapeError(
            got=f"{name} of shape {value.shape}",
            expected=f"{n} sequence(s) of {k} value(s)",
            remedy="Pass one step.",
        )
    # Tensors cannot have the negative strides of a reversed array.
    return np.ascontiguousarray(value.reshape(n, k))
