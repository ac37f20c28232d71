"""The weights of a network by name, and a table of what a fit has found about them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from probseq.estimators.predicting import Predicting
from probseq.inference.ensemble import EnsembleDraws
from probseq.inference.weight_draws import NormalDraws, WeightDraws
from probseq.models.recurrent import RecurrentModel
from probseq.models.wrappers import innermost

__all__ = ["WeightSummary"]


class WeightSummary(Predicting):
    """What an estimator whose model, behind its transforms, is a `RecurrentModel` says of its weights."""

    def named_weights(self) -> dict[str, np.ndarray]:
        """The weights by name, such as ``layers.0.recurrent``, each in its shape, behind the draws if there are many.

        With z_t = (the values at the lags as the network reads them, 0 where missing; whether each was seen;
        covariates) the first layer of an `RNN` is h_t = tanh(``input`` z_t + ``bias_input`` + ``recurrent`` h_(t-1) +
        ``bias_recurrent``). A `GRU` stacks its gates in the order reset, keep, new, an `LSTM` in the order enter,
        forget, new, leave. The head reads ``head.hidden`` h_t + ``head.direct`` z_t + ``head.bias``.

        Returns
        -------
        dict of array (*draw, *shape), copies
        """
        self._check_fitted()
        model = innermost(self.model_.model)
        if not isinstance(model, RecurrentModel):
            raise TypeError(f"{type(model).__name__} is no recurrent network")
        weights = self.model_.params["weights"].detach().cpu()
        flat = weights[0] if self.model_.n_draws == 1 else weights
        lead = tuple(flat.shape[:-1])
        return {
            name: flat[..., piece.start : piece.stop].reshape(lead + piece.shape).numpy().copy()
            for name, piece in model.pieces.items()
        }

    def summary(self) -> pd.DataFrame:
        """One row a piece of the network (a matrix, a bias, ...), and in ``attrs`` how it was fitted.

        ``weights`` counts them, ``mean`` is the root mean square of their averages over draws, ``spread`` that of
        their standard deviations over draws, ``prior`` that of the prior's. ``kl`` is their part of the divergence from
        the prior in nats, where the inference has a normal law (``MeanField``).

        ``attrs["posterior"]`` says what the draws are of: "point", "posterior", "ensemble", or "tempered:
        kl_weight=0.1" where the divergence was not counted once.
        """
        self._check_fitted()
        model, draws = innermost(self.model_.model), self.draws_
        if not isinstance(model, RecurrentModel):
            raise TypeError(f"{type(model).__name__} is no recurrent network")
        weights = self.model_.params["weights"].double()
        prior = model.weights.scale
        if isinstance(draws, NormalDraws):
            prior = draws.prior_scale
        rows = {}
        for name, piece in model.pieces.items():
            own = weights[:, piece.start : piece.stop]
            rows[name] = {
                "kind": piece.kind,
                "weights": piece.stop - piece.start,
                "mean": _size(own.mean(0)),
                "spread": _size(own.std(0, correction=0)),
                "prior": _size(prior[piece.start : piece.stop]),
            }
            if isinstance(draws, NormalDraws):
                rows[name]["kl"] = _divergence(draws, piece.start, piece.stop)
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.attrs = {
            "posterior": _posterior(draws, self.model_.n_draws),
            "n_draws": self.model_.n_draws,
            "log_likelihood": self.log_likelihood_,
            "objective": draws.objective,
            "status": draws.status,
            "missing": self.model_.missing,
        }
        return table


def _size(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _divergence(draws: NormalDraws, start: int, stop: int) -> float:
    """KL of independent normals, nats."""
    parts = (draws.mean, draws.scale, draws.prior_location, draws.prior_scale)
    mean, scale, location, prior = (part[start:stop].double() for part in parts)
    moment = ((mean - location).square() + scale.square()) / prior.square()
    return float((0.5 * (moment - 1) + (prior / scale).log()).sum())


def _posterior(draws: object, n_draws: int) -> str:
    weight = draws.kl_weight if isinstance(draws, WeightDraws) else 1.0
    if weight != 1:
        return f"tempered: kl_weight={np.float64(weight):g}"
    if isinstance(draws, EnsembleDraws):
        return "ensemble"
    return "posterior" if n_draws > 1 else "point"
