"""Emissions of categories and of bits."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Bits, Categories
from probseq.distributions.emissions.base import CategoryCounts, Emission, Observation, SufficientEmission, masked
from probseq.distributions.estimation import EMPTY, code_weights, flat_rows, pooled_moments, ratio
from probseq.distributions.params import Params, ParamSpec, Real, Simplex
from probseq.errors import ParameterError, SupportError

__all__ = ["Bernoulli", "Categorical", "check_bits"]

_SMALL = 1e-10
_MOST_CODES = 1_000_000


class Categorical(Emission):
    r"""P(x = c) = probs_c for the categories c = 0 .. C-1 (codes, or tokens of a vocabulary).

    Parameters
    ----------
    n_categories : int or None
        None takes the vocabulary's size, or one more than the largest code of the data that are fitted.

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.IID(ps.Categorical()).fit("abracadabra")
    >>> round(float(model.forecast(1).probs().sel(category="a").squeeze()), 3)
    0.417
    """

    measure: ClassVar[str] = "counting"
    nominal: ClassVar[bool] = True

    def __init__(self, n_categories: int | None = None) -> None:
        self.n_categories = n_categories

    def check_arguments(self) -> None:
        if self.n_categories is not None:
            whole_number("n_categories", self.n_categories, 1, "None counts them in the data.")

    def observation(self, n_variables: int, n_categories: CategoryCounts = None) -> Observation:
        self.check_arguments()
        most = max((c for c in n_categories if c), default=None) if isinstance(n_categories, tuple) else n_categories
        size = most if self.n_categories is None else self.n_categories
        if size is None or size < 1:
            raise ParameterError(
                got=f"{size!r} categories", expected="at least one category", remedy="Pass n_categories=."
            )
        if self.n_categories is None and size > _MOST_CODES:
            raise ParameterError(
                got=f"a code of {size - 1}, which makes {size} categories",
                expected=f"codes that count the categories, below {_MOST_CODES}",
                remedy="Renumber the codes from 0 without gaps, or pass n_categories=.",
            )
        return Observation(n_variables, self.measure, self.fill, int(size))

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable", "category")
        shape = (*components, observation.n_variables, _n_categories(observation))
        return {"probs": ParamSpec(shape, Simplex(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return Categories(logits=torch.log(params["probs"]))

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        shape = (observation.n_variables, _n_categories(observation))
        return Categories(logits=outputs.reshape(*outputs.shape[:-1], *shape))

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        bad = values[~np.isnan(values)]
        wrong = bad[(bad < 0) | (bad != np.floor(bad))]
        if wrong.size:
            raise SupportError(
                got=f"{wrong.flat[0]:g} in {name}",
                expected="category codes: whole numbers from 0 upwards, for Categorical",
                remedy="Pass tokens (strings) or codes.",
            )
        if self.n_categories is not None and bad.size and bad.max() >= self.n_categories:
            raise SupportError(
                got=f"code {bad.max():g} in {name}",
                expected=f"codes below n_categories={self.n_categories}",
                remedy="Raise n_categories or correct the data.",
            )

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        size = _n_categories(observation)
        return {"probs": torch.full((observation.n_variables, size), 1.0 / size, dtype=x.dtype)}

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        rows, seen, weights = flat_rows(x, seen, weights)
        size, columns = _n_categories(observation), []
        for variable in range(rows.shape[-1]):
            shown = seen[:, variable]
            code, share = rows[:, variable].long(), weights
            if not bool(shown.all()):
                code, share = code[shown], share[:, shown]
            columns.append(code_weights(code, size, share))
        counts = torch.stack(columns, 2)
        total = counts.sum(-1, keepdim=True)
        return {"probs": torch.where(total > EMPTY, ratio(counts, total), params["probs"])}


def _n_categories(observation: Observation) -> int:
    return max(size or 1 for size in observation.categories)


class Bernoulli(SufficientEmission):
    r"""P(x_i = 1) = sigmoid(logit_i), independent over the variables: a vector of bits, such as the keys of a piano.

    Examples
    --------
    >>> import probseq as ps
    >>> rain = [1, 1, 0, 0, 0, 1, 1, 1, 0, 0]
    >>> model = ps.IID(ps.Bernoulli()).fit(rain)
    >>> round(float(model.forecast(1).mean().squeeze()), 2)
    0.5
    """

    measure: ClassVar[str] = "counting"
    binary: ClassVar[bool] = True

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        return {"logit": ParamSpec((*components, observation.n_variables), Real(), dims, unitless=True)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return Bits(logit=params["logit"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_bits(values, name, "Bernoulli")

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        return {"logit": torch.logit(pooled_moments(x, seen).mean.clamp(_SMALL, 1.0 - _SMALL))}

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor:
        return masked(seen, x)

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return torch.cat([-torch.nn.functional.softplus(params["logit"]), params["logit"]], -1)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        total, first = sums.chunk(2, -1)
        share = ratio(first, total).clamp(_SMALL, 1.0 - _SMALL)
        return {"logit": torch.where(total > EMPTY, torch.logit(share), params["logit"])}


def check_bits(values: np.ndarray, name: str, who: str) -> None:
    """Raise ``SupportError`` for values (NaN = missing) other than 0 and 1."""
    bad = values[~np.isnan(values)]
    bad = bad[(bad != 0) & (bad != 1)]
    if bad.size:
        raise SupportError(
            got=f"{bad.flat[0]:g} in {name}", expected=f"0 or 1, for {who}", remedy="Code the bits as 0 and 1."
        )
