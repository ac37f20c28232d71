"""Laws of the moves of a hidden chain: free, structured, partly known, or driven by covariates."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration, whole_number
from probseq.distributions.params import Params, ParamSpec, Simplex
from probseq.errors import ParameterError
from probseq.models.chain_steps import update_transition

__all__ = ["Banded", "Cyclic", "LeftRight", "Transitions", "as_transitions"]


class Transitions(Configuration):
    r"""A_ij = P(z_t = j | z_{t-1} = i), one matrix ``transition`` (s, s) for all steps.

    Parameters
    ----------
    mask : (s, s) bool or None
        False forbids a transition: an exact zero that no fit changes and that is not counted as a parameter.
    fixed : (s, s) or None
        Known probabilities, NaN where an entry is free. The free entries of a row share what the fixed ones leave.

    Examples
    --------
    >>> import probseq as ps
    >>> only_up = [[True, True, False], [False, True, True], [False, False, True]]
    >>> model = ps.HMM(3, transitions=ps.Transitions(mask=only_up), random_state=0)
    >>> model.fit([0.0, 0.1, 4.9, 5.1, 9.8, 10.1] * 3).params_["transition"].values[0, 2].item()
    0.0
    """

    varying: ClassVar[bool] = False
    """Whether the matrix changes with the covariates of the step."""

    def __init__(self, mask: Any = None, fixed: Any = None) -> None:
        self.mask, self.fixed = mask, fixed

    def support(self, n_states: int) -> Tensor | None:
        """Which transitions are possible, (s, s) bool; None for all."""
        return None if self.mask is None else _checked_mask(self.mask, n_states)

    def parameters(self, n_states: int, n_covariates: int = 0) -> dict[str, ParamSpec]:
        """Specifications of the parameters."""
        shape = (n_states, n_states)
        return {"transition": ParamSpec(shape, self._simplex(n_states), ("state", "next_state"))}

    def matrix(self, params: Params, u: Tensor | None = None) -> Tensor:
        """A, (*draw, s, s); where covariates ``u`` (..., m) drive the chain, (*draw, ..., s, s)."""
        return params["transition"]

    def from_matrix(self, matrix: Tensor, n_covariates: int = 0) -> dict[str, Tensor]:
        """Parameters that come close to a matrix (D, s, s), to start a fit from."""
        simplex = self._simplex(matrix.shape[-1])
        free = simplex.free(tuple(matrix.shape[-2:])).to(matrix.dtype)
        kept = (matrix + 1e-12) * free
        shares = kept / kept.sum(-1, keepdim=True).clamp_min(1e-300)
        return {"transition": simplex.complete(shares * free.any(-1, keepdim=True))}

    def m_step(self, counts: Tensor, first: Tensor, params: Params, stationary: bool) -> dict[str, Tensor]:
        """The maximum of sum_ij N_ij log A_ij, plus sum_i g_i log pi_i(A) for a stationary start.

        Parameters
        ----------
        counts : (D, s, s), expected transitions N
        first : (D, s), expected first states g
        """
        simplex = self._simplex(counts.shape[-1])
        return {"transition": update_transition(counts, first, params["transition"], stationary, simplex)}

    def _simplex(self, n_states: int) -> Simplex:
        support = self.support(n_states)
        if self.fixed is None:
            return Simplex(support)
        fixed = _checked_fixed(self.fixed, n_states)
        simplex = Simplex(support, fixed)
        total = torch.nan_to_num(fixed, nan=0.0).sum(-1)
        free = simplex.free((n_states, n_states)).any(-1)
        wrong = (total > 1 + 1e-9) | (~free & ((total - 1).abs() > 1e-9))
        if support is not None:
            wrong |= (torch.nan_to_num(fixed, nan=0.0) * ~support).any(-1)
        if bool(wrong.any()):
            raise ParameterError(
                got=f"fixed transitions whose row {int(wrong.nonzero()[0, 0])} cannot be completed",
                expected="known probabilities that leave 0 to 1 for the free entries of their row",
                remedy="Write NaN where an entry is free.",
            )
        return simplex


class LeftRight(Transitions):
    """Only forwards: state i is followed by i, i + 1, ..., i + jumps; the last state is never left.

    Parameters
    ----------
    jumps : int
        How far one step may go; 1 visits the states in order.

    Examples
    --------
    >>> import probseq as ps
    >>> times = [0.0, 0.1, 5.0, 5.1, 9.9, 10.0] * 4
    >>> model = ps.HMM(3, transitions=ps.LeftRight(), random_state=0).fit(times)
    >>> (model.params_["transition"].values == 0).sum().item()
    4
    """

    def __init__(self, jumps: int = 1) -> None:
        super().__init__()
        self.jumps = jumps

    def support(self, n_states: int) -> Tensor:
        ahead = _ahead(n_states)
        return (ahead >= 0) & (ahead <= whole_number("jumps", self.jumps, 1))


class Banded(Transitions):
    """Only to neighbours: |i - j| <= width, as for states that are levels.

    Parameters
    ----------
    width : int

    Examples
    --------
    >>> import probseq as ps
    >>> times = [0.0, 0.1, 5.0, 5.1, 9.9, 10.0] * 4
    >>> model = ps.HMM(3, transitions=ps.Banded(), random_state=0).fit(times)
    >>> (model.params_["transition"].values == 0).sum().item()
    2
    """

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.width = width

    def support(self, n_states: int) -> Tensor:
        return _ahead(n_states).abs() <= whole_number("width", self.width, 1)


class Cyclic(Transitions):
    """Round and round: state i is followed by i, i + 1, ..., i + jumps, modulo the number of states.

    Parameters
    ----------
    jumps : int

    Examples
    --------
    >>> import probseq as ps
    >>> times = [0.0, 0.1, 5.0, 5.1, 9.9, 10.0] * 4
    >>> model = ps.HMM(3, transitions=ps.Cyclic(), random_state=0).fit(times)
    >>> (model.params_["transition"].values == 0).sum().item()
    3
    """

    def __init__(self, jumps: int = 1) -> None:
        super().__init__()
        self.jumps = jumps

    def support(self, n_states: int) -> Tensor:
        return _ahead(n_states) % n_states <= whole_number("jumps", self.jumps, 1)


def as_transitions(given: Any) -> Transitions:
    """What users pass as ``transitions=``: None (all free), a mask of booleans, or a ``Transitions``."""
    if given is None:
        return Transitions()
    if isinstance(given, Transitions):
        return given
    if isinstance(given, type) and issubclass(given, Transitions):
        raise ParameterError(
            got=f"transitions={given.__name__}", expected="an object", remedy=f"Write {given.__name__}()."
        )
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different length
        array = np.zeros(0)
    if array.dtype != bool or array.ndim != 2:
        raise ParameterError(
            got=f"transitions={given!r}",
            expected="None, an (n_states, n_states) array of booleans, or an object such as ps.LeftRight()",
            remedy="Probabilities that are known go into ps.Transitions(fixed=...).",
        )
    return Transitions(mask=given)


def _ahead(n_states: int) -> Tensor:
    """j - i, (s, s)."""
    index = torch.arange(n_states)
    return index - index.unsqueeze(-1)


def _checked_mask(mask: Any, n_states: int) -> Tensor:
    array = _array(mask, "a transition mask")
    allowed = torch.as_tensor(array != 0)
    flags = bool(((array == 0) | (array == 1)).all())
    if allowed.shape != (n_states, n_states) or not flags or not bool(allowed.any(-1).all()):
        raise ParameterError(
            got=f"a transition mask of shape {tuple(allowed.shape)}"
            + ("" if flags else " with other values than 0, 1"),
            expected=f"({n_states}, {n_states}) booleans with at least one True in each row",
            remedy="True allows the transition from the state of the row to the state of the column; probabilities "
            "that are known go into fixed=.",
        )
    return allowed


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            got=f"{name} that is no table of numbers: {values!r}",
            expected="rows of equal length, one a state",
            remedy="Pass an (n_states, n_states) array.",
        ) from error


def _checked_fixed(fixed: Any, n_states: int) -> Tensor:
    values = torch.as_tensor(_array(fixed, "fixed transitions"))
    known = values[~torch.isnan(values)]
    if values.shape != (n_states, n_states) or bool(((known < 0) | (known > 1)).any()):
        raise ParameterError(
            got=f"fixed transitions of shape {tuple(values.shape)}",
            expected=f"({n_states}, {n_states}) probabilities, NaN where an entry is free",
            remedy="Rows are the states before, columns the states after.",
        )
    return values
