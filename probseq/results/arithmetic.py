"""Arithmetic of forecasts with known numbers: another unit, another origin, the difference to a target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from probseq.errors import ParameterError, UnsupportedError
from probseq.results.affine import AffineJoint, affine_backend
from probseq.results.labelled import LabelledLaw
from probseq.results.scored import ScoredForecasts

__all__ = ["ForecastArithmetic"]

_OPERANDS = (int, float, np.number, list, tuple, np.ndarray, pd.Series, pd.DataFrame, xr.DataArray)
_OPERATORS = {
    "add": ("__add__", "__radd__"),
    "subtract": ("__sub__", "__rsub__"),
    "multiply": ("__mul__", "__rmul__"),
    "divide": ("__truediv__", None),
}


class ForecastArithmetic(ScoredForecasts):
    """``a * forecast + b`` with numbers, or with known values in the form of the forecast.

    Everything stays as exact as it was: joint laws, draws, densities (with their Jacobian). What is multiplied has no
    ``units`` any more; numbers carry the history along, arrays do not.
    """

    # Series and DataFrames on the left hand over as a whole, with their stamps, rather than value by value.
    __pandas_priority__ = 5000

    def __mul__(self, other: Any) -> Self:
        factor = self._operand(other, "*")
        return NotImplemented if factor is None else self._image(factor, 0.0, keeps_unit=False)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Self:
        divisor = self._operand(other, "/")
        if divisor is None:
            return NotImplemented
        if np.any(np.asarray(divisor) == 0):
            raise ParameterError(got="a forecast divided by zero", expected="other numbers", remedy="Check the unit.")
        return self._image(1.0 / divisor, 0.0, keeps_unit=False)

    def __add__(self, other: Any) -> Self:
        term = self._operand(other, "+")
        return NotImplemented if term is None else self._image(1.0, term)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        term = self._operand(other, "-")
        return NotImplemented if term is None else self._image(1.0, -term)

    def __rsub__(self, other: Any) -> Self:
        term = self._operand(other, "-")
        return NotImplemented if term is None else self._image(-1.0, term)

    def __neg__(self) -> Self:
        return self._image(-1.0, 0.0)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """``np.log(forecast)`` is ``forecast.map(np.log)``; ``np.add`` and an array on the left are the operators."""
        if method != "__call__" or options:
            return NotImplemented
        if len(inputs) == 1:
            return self.map(ufunc)  # type: ignore[attr-defined]
        left, right = _OPERATORS.get(ufunc.__name__, (None, None))
        name, other = (left, inputs[1]) if inputs[0] is self else (right, inputs[0])
        return NotImplemented if name is None else getattr(self, name)(other)

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        raise UnsupportedError(
            got="a forecast where an array is needed",
            expected="one of its figures",
            remedy="Use mean(), quantile(q) or sample(); in arithmetic write the forecast on the left.",
        )

    def _operand(self, other: Any, sign: str) -> Any:
        """A float, or known values (n, t, k); None for what is neither."""
        if isinstance(other, LabelledLaw):
            raise UnsupportedError(
                got=f"a forecast {sign} a forecast",
                expected="a number or known values: how two forecasts hang together is not known",
                remedy="Combine paths drawn with one random_state, and use Forecast.from_paths.",
            )
        if isinstance(other, bool | str) or not isinstance(other, _OPERANDS):
            return None
        scalar = isinstance(other, int | float | np.number) or np.ndim(other) == 0
        found: Any = float(other) if scalar else self._values(other)  # type: ignore[arg-type]
        if not np.all(np.isfinite(found) | ~self._real()):
            raise ParameterError(
                got=f"a forecast {sign} a number that is NaN or infinite",
                expected="known numbers",
                remedy="Fill the gaps, or use given() for values that are known in part.",
            )
        return found

    def _real(self) -> np.ndarray:
        """Which steps are no padding, (n, t, 1)."""
        lengths = np.array([len(one) for one in self._index])
        return (np.arange(self._backend.shape[1]) < lengths[:, None])[..., None]

    def _image(self, scale: Any, shift: Any, keeps_unit: bool = True) -> Self:
        """The forecast of ``scale * x + shift``."""
        self._need_numbers("arithmetic", "probs()", every=True)
        shape, scalar = self._backend.shape, np.ndim(scale) == 0 and np.ndim(shift) == 0
        a, b = (np.broadcast_to(np.asarray(one, dtype=float), shape) for one in (scale, shift))
        if np.any((a == 0) & self._real()):
            raise ParameterError(
                got="a forecast times zero", expected="other numbers", remedy="A known zero needs no forecast."
            )
        # Padding divides by nothing.
        a, b = np.where(self._real(), a, 1.0), np.where(self._real(), b, 0.0)
        past = self._history
        if past is not None:
            past = replace(past, values=past.values * float(scale) + float(shift)) if scalar else None
            past = past if past is None or keeps_unit else past.without_units()
        joint = self._joint
        image = type(self)(
            affine_backend(self._backend, a, b),
            self._labels if keeps_unit else self._labels.without_units(),
            self._index,
            joint=None if joint is None else AffineJoint(joint, a, b, self._backend.discrete_variables),
            history=past,
            scored=self._scored,
            method=self.method,
            future=self.future,
            random_state=self._random_state,
        )
        image._stamped, image._image_of = self._stamped, (self, a, b, keeps_unit)
        return image
