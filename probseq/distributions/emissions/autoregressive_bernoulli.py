"""The emission of bits that depend on each other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.autoregressive_bits import AutoregressiveBits
from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Emission, Observation
from probseq.distributions.emissions.categorical import check_bits
from probseq.distributions.estimation import pooled_moments
from probseq.distributions.params import Params, ParamSpec, Real

__all__ = ["AutoregressiveBernoulli"]

_SMALL = 1e-4


class AutoregressiveBernoulli(Emission):
    r"""p(x) = prod_i p(x_i | x_<i), p(x_i = 1 | x_<i) = sigmoid(b_i + V_i . sigmoid(c + W_<i x_<i)).

    The neural autoregressive distribution estimator (NADE; Larochelle and Murray 2011, AISTATS, eq. 10 and 11) of a
    vector of bits, such as the keys of a piano that sound together. Under a network it is the RNN-NADE
    (Boulanger-Lewandowski, Bengio and Vincent 2012, ICML, section 5.2): the network gives b and c anew at every step
    and learns W and V once. The states of a hidden Markov model share W and V and have b and c of their own.

    The likelihood and its gradient are exact, and cost as much as there are bits that are on. The marginal probability
    of a single bit has no closed form: beyond 8 variables predictions of single bits are averages over 128 draws, and
    say so. Missing bits are summed out exactly where at most 10 of them precede a bit that was seen; a vector that is
    missing entirely is no difficulty.

    Parameters
    ----------
    hidden_size : int
        h, the units of the estimator. Parameters: ``bias`` b (k,), ``hidden_bias`` c (h,), ``encoder`` W (h, k),
        ``decoder`` V (k, h).

    Raises
    ------
    UnsupportedError
        By ``log_prob`` and ``fit`` for a vector of which more bits are missing before the last that was seen.

    Examples
    --------
    >>> import probseq as ps
    >>> ps.LSTM(hidden_size=64, head=ps.AutoregressiveBernoulli(hidden_size=100)).head
    AutoregressiveBernoulli(hidden_size=100)
    """

    measure: ClassVar[str] = "counting"
    binary: ClassVar[bool] = True
    constants: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(self, hidden_size: int = 64) -> None:
        self.hidden_size = hidden_size

    def check_arguments(self) -> None:
        self._size()

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        k, h = observation.n_variables, self._size()
        state = ("state",) * len(components)
        prior = torch.distributions.Normal(0.0, 1.0)
        return {
            "bias": ParamSpec((*components, k), Real(), (*state, "variable"), unitless=True),
            "hidden_bias": ParamSpec((*components, h), Real(), (*state, "unit"), unitless=True),
            "encoder": ParamSpec((h, k), Real(), ("unit", "variable"), prior, unitless=True),
            "decoder": ParamSpec((k, h), Real(), ("variable", "unit"), prior, unitless=True),
        }

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        encoder, decoder = params["encoder"], params["decoder"]
        lead = encoder.shape[:-2]
        which = torch.arange(lead.numel(), device=encoder.device).reshape((*lead, *(1,) * len(components)))
        return AutoregressiveBits(
            params["bias"],
            params["hidden_bias"],
            encoder.reshape(-1, *encoder.shape[-2:]),
            decoder.reshape(-1, *decoder.shape[-2:]),
            which,
        )

    def initial_constants(self, observation: Observation, generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform between +- 1 / sqrt(h): no unit says the same as another."""
        specs = self.constant_specs(observation)
        bound = self._size() ** -0.5
        return {
            name: bound * (2.0 * torch.rand(spec.shape, generator=generator, dtype=torch.float64) - 1.0)
            for name, spec in specs.items()
        }

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_bits(values, name, "AutoregressiveBernoulli")

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Bits with the frequencies of the data that hardly depend on each other yet."""
        share = pooled_moments(x, seen).mean.clamp(_SMALL, 1.0 - _SMALL)
        constants = self.initial_constants(observation, torch.Generator().manual_seed(0))
        return {
            "bias": torch.logit(share),
            "hidden_bias": torch.zeros(self._size(), dtype=x.dtype),
            **{name: value.to(x.dtype) for name, value in constants.items()},
        }

    def _size(self) -> int:
        return whole_number("hidden_size", self.hidden_size, 1, "Try 64.")
