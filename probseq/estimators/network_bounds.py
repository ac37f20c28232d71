"""Lower bounds of the log-likelihood of networks with latent variables, each under its own name."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import take_draw
from probseq.errors import UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.models.discretized import DiscretizedModel
from probseq.models.latent_bounds import path_values
from probseq.models.latent_network import LatentNetwork
from probseq.models.log_jacobian import UnitDensity
from probseq.models.marginal import Marginalized
from probseq.models.wrappers import innermost, layers, unwrap

__all__ = ["NetworkBounds"]


class NetworkBounds(SequenceEstimator):
    """Methods of an estimator whose model, behind its transforms, is a ``LatentNetwork``."""

    def elbo(
        self,
        X: Any,
        n_samples: int = 100,
        *,
        lengths: Any = None,
        covariates: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """E_q[log p(x, z) - log q(z | x)], the evidence lower bound of log p(x_1:T), over ``n_samples`` paths.

        q is the law that training draws z from (``look``). Several draws of the weights are averaged,
        log sum_d w_d exp(ELBO_d), a bound of log p(x_1:T) of their mixture.

        Parameters
        ----------
        X : data in any form
            New sequences.
        random_state : int or Generator
            Of the paths; the estimator's own by default.

        Returns
        -------
        DataArray over ``sequence`` in nats on the scale of the data. Its ``attrs`` name the bound, the number of
        samples and the Monte Carlo error.

        Raises
        ------
        UnsupportedError
            Behind ``BoxCox``, which shares probability at every step, and ``Discretize``, which rounds the law of each.
        """
        return self._bound("elbo", X, n_samples, lengths, covariates, random_state)

    def iwae(
        self,
        X: Any,
        n_samples: int = 100,
        *,
        lengths: Any = None,
        covariates: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """log 1/m sum_i p(x, z^i) / q(z^i | x) over m = ``n_samples`` whole paths (Burda et al. 2016).

        On average a lower bound of log p(x_1:T), the tighter the more samples. Of long sequences a single path carries
        the mean, and `fivo` with as many particles is tighter. Arguments, result and errors are as of `elbo`.
        """
        return self._bound("iwae", X, n_samples, lengths, covariates, random_state)

    def fivo(
        self,
        X: Any,
        n_particles: int | None = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """The logarithm of a particle filter's estimate of p(x_1:T) (Maddison et al. 2017).

        On average a lower bound of log p(x_1:T), the tighter the more particles. `log_prob` of a new sequence is this
        with the particles that the model has.

        Parameters
        ----------
        X : data in any form
            New sequences.
        n_particles : int or None
            None is the model's own number.
        random_state : int or Generator
            Other particles than those of `log_prob`: their spread over several is the Monte Carlo error.

        Returns
        -------
        DataArray over ``sequence`` in nats on the scale of the data, with ``attrs`` as of `elbo`.

        Raises
        ------
        UnsupportedError
            Behind ``Discretize``.
        """
        data = self._borrow(X, lengths, covariates)
        self._refuse_rounded()
        network = copy.copy(self._network_inside())
        if n_particles is not None:
            network = network.with_particles(whole_number("n_particles", n_particles, 1, "Try 1000."))
        if random_state is not None:
            network.seed = int(torch.randint(2**62, (), generator=torch_generator(random_state)))
        fitted = Marginalized(self.transforms_.wrap(network), self.model_.params, self.model_.log_weights)
        with torch.no_grad():
            steps = fitted.log_prob_steps({}, self._batch(data))
        error = cast(Tensor, steps.error).double().square().sum(-1).sqrt()
        return self._label_bound("FIVO", steps.values.double().sum(-1), error, data, "particle", network.n_particles)

    def _bound(
        self, bound: str, X: Any, n_samples: Any, lengths: Any, covariates: Any, random_state: RandomState
    ) -> xr.DataArray:
        data = self._borrow(X, lengths, covariates)
        whole_number("n_samples", n_samples, 1, "Try 100.")
        self._refuse_rounded()
        network, whole = self._network_inside(), self._batch(data)
        generator = torch_generator(self.random_state if random_state is None else random_state)
        with torch.no_grad():
            plain = UnitDensity(network.observation, n_covariates=network.n_covariates)
            slope = self.transforms_.wrap(plain).log_prob({}, whole)
            start = self.model_._unpack(self.model_.initial_state({}, whole.n))
            _, batch, _, _ = unwrap(self.model_.model, whole, start)
            found = []
            for d in range(self.model_.n_draws):
                params = take_draw(self.model_.params, d)
                found.append(_summary(path_values(network, params, batch, n_samples, generator, bound), bound))
        each = torch.stack([value for value, _ in found]) + self.model_.log_weights.unsqueeze(-1)
        share = torch.softmax(each, 0)
        error = (share * torch.stack([error for _, error in found])).square().sum(0).sqrt()
        return self._label_bound(bound.upper(), torch.logsumexp(each, 0) + slope, error, data, "sample", n_samples)

    def _refuse_rounded(self) -> None:
        if any(isinstance(layer, DiscretizedModel) for layer in layers(self.model_.model)):
            raise UnsupportedError(
                got="a bound behind Discretize(), which scores the rounded law of the next step",
                expected="a density of whole sequences",
                remedy="Use log_prob, or leave Discretize out.",
            )

    def _network_inside(self) -> LatentNetwork:
        model: Any = innermost(self.model_.model)
        return cast(LatentNetwork, model)

    def _label_bound(
        self, bound: str, value: Tensor, error: Tensor, data: Sequences, unit: str, number: int
    ) -> xr.DataArray:
        attrs: dict[Any, Any] = {
            "unit": "nats",
            "exact": 0,
            "bound": bound,
            "method": f"{bound} ({number} {unit}{'' if number == 1 else 's'})",
            f"n_{unit}s": int(number),
            "monte_carlo_error": error.numpy() if data.many else float(error[0]),
        }
        return data.label(value.numpy(), ("sequence",), name=bound.lower(), attrs=attrs)


def _summary(values: Tensor, bound: str) -> tuple[Tensor, Tensor]:
    """The bound of each sequence and its standard error, (n,), from what m paths add to it, (n, m)."""
    m = values.shape[-1]
    if bound == "elbo":
        mean = values.mean(-1)
        return mean, values.std(-1) / math.sqrt(m) if m > 1 else torch.full_like(mean, torch.nan)
    mean = torch.logsumexp(values, -1) - math.log(m)
    ratio = (values - mean.unsqueeze(-1)).exp()
    return mean, ratio.std(-1) / math.sqrt(m) if m > 1 else torch.full_like(mean, torch.nan)
