"""The output of a network that learns quantiles, and no likelihood."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Emission, Observation
from probseq.distributions.increasing import Increasing
from probseq.distributions.params import Params, ParamSpec
from probseq.distributions.quantiles import QuantileLaw
from probseq.errors import IncompatibleError, ParameterError

__all__ = ["Quantiles"]

_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Quantiles(Emission):
    r"""v_q(past) for levels q, fitted by the pinball loss: quantile regression by a network.

    The outputs are v_1 and v_{q+1} - v_q = softplus(z_{q+1}), so that quantiles never cross. Training minimises the
    mean over levels of max(q (x - v_q), (q - 1) (x - v_q)) (Koenker and Bassett 1978, Econometrica 46, the criterion
    of section 3), which no law of x need have as its density: ``score``, ``log_prob`` and ``log_prob_steps`` raise,
    ``compare`` leaves the nats out and keeps CRPS and coverage. Under an inference that draws weights this loss takes
    the place of minus the log likelihood, per value in standard deviations of the data (a Gibbs posterior; Bissiri,
    Holmes and Walker 2016).

    One step ahead the quantile function is linear between the levels; beyond the first and the last one the tails are
    exponential, with the density of the segment beside them. Forecasts of several steps draw from that law step by
    step.

    Parameters
    ----------
    levels : tuple of float
        Increasing, in (0, 1), at least two. Parameters: ``values`` (k, Q).

    Raises
    ------
    UnsupportedError
        By whatever asks for a log likelihood.

    Examples
    --------
    >>> import probseq as ps
    >>> ps.LSTM(head=ps.Quantiles(levels=(0.1, 0.5, 0.9))).head
    Quantiles(levels=(0.1, 0.5, 0.9))
    """

    is_likelihood: ClassVar[bool] = False

    def __init__(self, levels: tuple[float, ...] = _LEVELS) -> None:
        self.levels = levels

    def check_arguments(self) -> None:
        self._grid()

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        if components:
            raise IncompatibleError(
                got="Quantiles for the states of a model",
                expected="a density, by which states are told apart",
                remedy="Use LSTM(head=ps.Quantiles()), GRU or RNN; for states Normal, StudentT or GaussianMixture.",
            )
        shape = (observation.n_variables, len(self._grid()))
        return {"values": ParamSpec(shape, Increasing(), ("variable", "level"))}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return QuantileLaw(self._grid(), params["values"])

    def _grid(self) -> tuple[float, ...]:
        given = self.levels
        numbers = isinstance(given, list | tuple | np.ndarray) and all(
            isinstance(q, int | float | np.number) and not isinstance(q, bool) and 0 < q < 1 for q in given
        )
        if not numbers or len(given) < 2 or any(a >= b for a, b in zip(given[:-1], given[1:], strict=True)):
            raise ParameterError(
                got=f"levels={given!r}",
                expected="at least two increasing numbers in (0, 1)",
                remedy="Write levels=(0.1, 0.5, 0.9).",
            )
        return tuple(float(q) for q in given)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """The quantiles of the data, kept apart."""
        grid = torch.tensor(self._grid(), dtype=x.dtype)
        columns = []
        for i in range(observation.n_variables):
            own = x[..., i][seen[..., i]]
            own = own if len(own) else torch.zeros(1, dtype=x.dtype)
            spread = own.std(correction=0).clamp_min(1e-6)
            columns.append(torch.quantile(own, grid) + 1e-3 * spread * torch.arange(len(grid)))
        return {"values": torch.stack(columns)}
