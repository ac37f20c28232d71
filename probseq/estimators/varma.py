"""Vector autoregressions and vector ARMA models for users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr

from probseq._random import RandomState
from probseq._types import Rule, one_of
from probseq.distributions.emissions import Observation
from probseq.errors import ParameterError
from probseq.estimators.pipeline import DataInfo
from probseq.estimators.varma_responses import VARMAResponses
from probseq.inference.base import Inference
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.base import SequenceModel
from probseq.models.varma import VARMAModel
from probseq.models.varma_problems import companion_values

__all__ = ["VAR", "VARMA"]

_RIDGE_TOL = 1e-9


class VARMA(VARMAResponses):
    r"""Phi(B) (x_t - mean - u_t' beta) = Theta(B) e_t, e_t ~ N(0, covariance), for x_t of several variables.

    Phi(B) = I - sum_i ar_i B^i and Theta(B) = I + sum_j ma_j B^j with matrices ar_i, ma_j; row: the variable that is
    explained, column: the one that explains. Exact maximum likelihood from a stationary start, with gaps in any
    coordinate; every iterate is stationary and invertible.

    Parameters
    ----------
    order : (p, q)
    trend : "c" or "n"
        A mean ("c") or none. It is the mean itself, not an intercept of the autoregression.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE(tol=1e-9)``, or ``MLE()`` without moving averages. Priors and draws live in coordinates that suit
        variables of about one size: use ``transform=ps.Standardize()`` with them where units differ much. Maximum
        likelihood does not mind units.
    random_state : int or None

    Notes
    -----
    With p and q above zero and several variables the coefficients are identified only where Phi and Theta have no
    common left factor and (ar_p, ma_q) has full rank. A fit near a place where they are not, or with directions that
    the data hardly determine, says so in a `DegenerateWarning`; likelihood and forecasts are not affected. A `VAR` is
    always identified.

    Examples
    --------
    >>> import numpy as np
    >>> import probseq as ps
    >>> rng = np.random.default_rng(0)
    >>> e = rng.normal(size=(301, 2))
    >>> x = e[1:] + e[:-1] @ np.array([[0.6, 0.0], [0.3, -0.4]]).T
    >>> model = ps.VARMA(order=(0, 1)).fit(x)
    >>> model.params_["ma"].values.round(1)
    array([[[ 0.6, -0.1],
            [ 0.3, -0.4]]])

    References
    ----------
    Lutkepohl (2005), New Introduction to Multiple Time Series Analysis, chapters 2, 3, 11 and 12.
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (MLE, MAP, Laplace, NUTS)

    rules: ClassVar[Mapping[str, Rule]] = {"trend": partial(one_of, choices=("n", "c"))}

    def __init__(
        self,
        order: Any = (1, 1),
        trend: str = "c",
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.order = order
        self.trend = trend
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        # Coefficients that are not identified, or on the border of what is invertible, make a ridge without an end.
        return MLE(tol=_RIDGE_TOL) if self._orders()[1] else MLE()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return VARMAModel

    def _orders(self) -> tuple[int, int]:
        good = isinstance(self.order, Sequence | np.ndarray) and len(self.order) == 2
        if not good or not all(_is_order(part) for part in self.order):
            raise ParameterError(
                got=f"order={self.order!r}", expected="(p, q), whole numbers from 0", remedy="Write order=(1, 1)."
            )
        return int(self.order[0]), int(self.order[1])

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        return VARMAModel(Observation(info.n_variables), self._orders(), self.trend == "c", info.n_covariates)

    def _names(self) -> dict[str, Any]:
        p, q = self._orders()
        return {**super()._names(), "ar_lag": np.arange(1, p + 1), "ma_lag": np.arange(1, q + 1)}

    def roots(self) -> xr.Dataset:
        """Roots of det Phi(z) and det Theta(z), for the first draw; stationary and invertible outside 1."""
        self._check_fitted()
        ar, ma = (part[0].detach().numpy() for part in self._varma().matrices(self.model_.params))
        found = {}
        for name, matrices in (("ar", ar), ("ma", -ma)):
            values = companion_values(matrices)
            # A companion of lower rank has roots at infinity.
            found[name] = (f"{name}_root", 1.0 / values[np.abs(values) > np.finfo(float).tiny])
        return xr.Dataset(found)

    def summary(self) -> pd.DataFrame:
        """Estimates with standard errors, z values and 95 % intervals; what the fit reached is in ``attrs``.

        Rows go by name: ``ar[1, y, x]`` is what x one step ago adds to the mean of y.
        """
        self._check_fitted()
        estimates = self.params_.mean("draw") if "draw" in self.params_.dims else self.params_
        errors = None if self.draws_.covariance is None or self.model_.n_draws > 1 else self.standard_errors_
        rows: dict[str, dict[str, float]] = {}
        for name, value in estimates.items():
            labels = [
                [str(label) for label in value.coords[d].values] if d in value.coords else range(value.sizes[d])
                for d in value.dims
            ]
            for at in np.ndindex(*value.shape):
                if name == "covariance" and at[1] > at[0]:
                    continue
                row = {"estimate": float(value.values[at])}
                if errors is not None:
                    row["std_error"] = float(errors[name].values[at])
                rows[f"{name}[{', '.join(str(names[i]) for names, i in zip(labels, at))}]"] = row
        table = pd.DataFrame.from_dict(rows, orient="index")
        if errors is not None:
            table["z"] = table["estimate"] / table["std_error"]
            table["lower"] = table["estimate"] - 1.959964 * table["std_error"]
            table["upper"] = table["estimate"] + 1.959964 * table["std_error"]
        table.attrs = {
            "log_likelihood": self.log_likelihood_,
            "aic": self.aic,
            "bic": self.bic,
            "n_scored": self.n_scored_,
            "status": self.status_,
        }
        return table


class VAR(VARMA):
    r"""x_t - mean - u_t' beta = sum_i ar_i (x_(t-i) - mean - u_(t-i)' beta) + e_t, e_t ~ N(0, covariance).

    The vector autoregression, by exact maximum likelihood from the least-squares fit. Without gaps a fit costs the same
    for series of any length, after one pass over them.

    Parameters
    ----------
    order : int
        Number of lags.
    trend : "c" or "n"
        A mean ("c") or none. It is the mean itself, not an intercept of the autoregression.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE()``. Priors and draws live in coordinates that suit variables of about one size: use
        ``transform=ps.Standardize()`` with them where units differ much. Maximum likelihood does not mind units.
    random_state : int or None

    Examples
    --------
    >>> import numpy as np
    >>> import probseq as ps
    >>> rng = np.random.default_rng(0)
    >>> x = np.zeros((400, 2))
    >>> for t in range(1, 400):
    ...     x[t] = np.array([[0.5, 0.3], [0.0, 0.8]]) @ x[t - 1] + rng.normal(size=2)
    >>> model = ps.VAR(order=1).fit(x)
    >>> model.params_["ar"].values.round(1)
    array([[[0.5, 0.2],
            [0. , 0.7]]])
    >>> bool(model.granger(cause=1, effect=0)["p_value"] < 0.001)
    True
    """

    def __init__(
        self,
        order: int = 1,
        trend: str = "c",
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        super().__init__(order, trend, transform, inference, random_state)

    def _orders(self) -> tuple[int, int]:
        if not _is_order(self.order):
            raise ParameterError(
                got=f"order={self.order!r}",
                expected="a whole number of lags from 0",
                remedy="Write order=2, or use VARMA for moving averages.",
            )
        return int(self.order), 0

    def granger(self, cause: Any, effect: Any) -> pd.Series:
        """Wald test that the past of ``cause`` says nothing about ``effect``, given that of all other variables.

        Parameters
        ----------
        cause, effect : names, or positions, of variables

        Returns
        -------
        Series of ``statistic``, ``df`` (the number of lags) and ``p_value`` (of the chi-squared law).

        Raises
        ------
        ParameterError
            For a variable with itself, and a model without lags.
        UnsupportedError
            Where the inference computed no covariance, or the parameters are draws.

        References
        ----------
        Lutkepohl (2005), section 3.6.
        """
        self._check_fitted()
        p, i, j = self._orders()[0], self._position(effect), self._position(cause)
        if i == j or p == 0:
            raise ParameterError(
                got=f"cause={cause!r}, effect={effect!r} in a VAR with {p} lags",
                expected="two variables and at least one lag",
                remedy="Name two variables.",
            )
        # Raises where there is none.
        _ = self.standard_errors_
        model = self.model_.model
        spec = model.parameters()["ar"]
        size = spec.constraint.size(spec.shape)
        flat = spec.constraint.unconstrain(self.model_.params["ar"][0], spec.shape)
        slopes = torch.func.jacrev(lambda z: spec.constraint.constrain(z, spec.shape)[:, i, j])(flat)
        jacobian = slopes.detach().numpy()
        covariance = jacobian @ cast(np.ndarray, self.draws_.covariance)[:size, :size] @ jacobian.T
        value = self.model_.params["ar"][0, :, i, j].detach().numpy()
        statistic = float(value @ np.linalg.solve(covariance, value))
        tail = float(torch.special.gammaincc(torch.tensor(0.5 * p).double(), torch.tensor(0.5 * statistic).double()))
        return pd.Series({"statistic": statistic, "df": p, "p_value": tail})


def _is_order(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)
