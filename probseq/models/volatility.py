"""How the variance of the innovations moves."""

from __future__ import annotations

from torch import Tensor

from probseq._types import Configuration, whole_number
from probseq.distributions.params import Params, ParamSpec, Positive
from probseq.distributions.volatility import Persistence
from probseq.errors import ParameterError

__all__ = ["GARCH"]


class GARCH(Configuration):
    r"""h_t = omega + alpha e_(t-1)^2 + beta h_(t-1), the variance of e_t given the past.

    omega > 0, alpha, beta > 0 and alpha + beta < 1. The first variance is the unconditional one,
    omega / (1 - alpha - beta). Parameters: ``omega``, in the squared unit of the data, and ``garch``, which is
    (alpha, beta).

    Parameters
    ----------
    p, q : int
        Numbers of lags of h and of e^2; (1, 1) is what there is.

    Raises
    ------
    ParameterError
        For other orders.

    References
    ----------
    Bollerslev (1986), Generalized autoregressive conditional heteroskedasticity, Journal of Econometrics 31.

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.ARMA((1, 0), volatility=ps.GARCH())
    >>> model = model.with_parameters(ar=[0.3], garch=[0.1, 0.85], omega=0.05, mean=0.0)
    >>> quiet = model.predictive_at(model.filter([0.0, 0.1, -0.1])).std().item()
    >>> wild = model.predictive_at(model.filter([0.0, 0.1, -8.0])).std().item()
    >>> round(quiet, 2), round(wild, 2)
    (0.9, 2.7)
    """

    terms = ("alpha", "beta")

    def __init__(self, p: int = 1, q: int = 1) -> None:
        self.p, self.q = p, q

    def check(self) -> None:
        """Raise ``ParameterError`` for orders other than (1, 1)."""
        remedy = "Write ps.GARCH(1, 1)."
        if (whole_number("p", self.p, 0, remedy), whole_number("q", self.q, 0, remedy)) != (1, 1):
            raise ParameterError(got=f"GARCH({self.p}, {self.q})", expected="GARCH(1, 1)", remedy=remedy)

    def parameters(self) -> dict[str, ParamSpec]:
        """Specifications of omega and of (alpha, beta)."""
        return {
            "omega": ParamSpec((), Positive()),
            "garch": ParamSpec((2,), Persistence(), ("garch_term",)),
        }

    @staticmethod
    def unconditional(params: Params) -> Tensor:
        """Var e_t = omega / (1 - alpha - beta), (*draw,)."""
        return params["omega"] / (1.0 - params["garch"].sum(-1))
