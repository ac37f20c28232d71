"""Whether the one-step predictions were right about their own errors: coverage, PIT values, residuals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from probseq.errors import EmptyDataError
from probseq.evaluation.calibration import independence_test
from probseq.evaluation.whiteness import autocorrelations, ljung_box
from probseq.report.study import Study

__all__ = ["ResidualCheck", "coverage_table", "p_text", "residual_check", "residual_table", "wilson"]

_FEWEST = 12
_ALPHA = 0.05


class ResidualCheck(NamedTuple):
    """Residuals z_t = Phi^-1(PIT_t) of one model over the held-out values; independent and standard normal if right."""

    n: int
    mean: float
    spread: float
    """standard deviation"""
    neighbours: float
    """autocorrelation one step apart"""
    lags: int
    """of the test of Ljung and Box"""
    ljung_box: float
    """p-value that none of the first ``lags`` autocorrelations differs from zero; nan for too few values"""
    berkowitz: float
    """p-value that the residuals are independent with mean 0 and variance 1; nan for too few values or neighbours"""

    @property
    def dependent(self) -> bool:
        """Whether the errors depend on earlier ones."""
        return self.ljung_box < _ALPHA

    @property
    def faults(self) -> list[str]:
        """What is wrong with mean and spread, in words."""
        found: list[str] = []
        if math.isnan(self.ljung_box):
            return found
        farthest = stats.t.ppf(1 - _ALPHA / 2, self.n - 1)
        if abs(self.mean) * math.sqrt(self.n) > farthest * self.spread:
            found.append(f"values came {'higher' if self.mean > 0 else 'lower'} than predicted on average")
        low, high = (stats.chi2.ppf(tail, self.n - 1) / (self.n - 1) for tail in (_ALPHA / 2, 1 - _ALPHA / 2))
        if self.spread**2 > high:
            found.append("errors scatter more than the model expects" + ": too sure of itself" * (not found))
        elif self.spread**2 < low:
            found.append("errors scatter less than the model expects" + ": too cautious" * (not found))
        return found

    @property
    def verdict(self) -> str:
        """What the numbers say, in words."""
        if self.n >= _FEWEST and math.isnan(self.ljung_box):
            return "all errors are equal"
        if math.isnan(self.ljung_box):
            return f"too few values ({self.n}) to test"
        found = self.faults
        if self.dependent:
            way = "resemble" if self.neighbours > 0 else "alternate with"
            found = [
                f"errors depend on each other (neighbours {way} one another): something predictable is left",
                *found,
            ]
        if not found and self.berkowitz < _ALPHA:
            found = ["mean, spread and dependence together are unlikely by chance, none of them alone"]
        return "; ".join(found) if found else f"no sign of trouble in {self.n} values"


def residual_check(study: Study, name: str) -> ResidualCheck | None:
    """Moments and tests of the residuals of one model; None where it has none."""
    z = study.residuals(name)
    seen = z[np.isfinite(z)]
    n = len(seen)
    if n < 2:
        return None
    lags = max(1, min(10, n // 5))
    nan = math.nan
    test = independence = nan
    if n >= _FEWEST and seen.std() > 1e-9:
        test = ljung_box(z, lags, 0)[2]
        try:
            independence = independence_test(stats.norm.cdf(z)).p_value
        except EmptyDataError:
            pass  # too few values are neighbours
    return ResidualCheck(
        n, float(seen.mean()), float(seen.std(ddof=1)), float(autocorrelations(z, 1)[0]), lags, test, independence
    )


def residual_table(study: Study) -> pd.DataFrame | None:
    """One row a model, as text."""
    rows = {}
    for name in study.ranked:
        found = residual_check(study, name)
        if found is not None:
            rows[name] = {
                "mean (0 if right)": _signed(found.mean),
                "spread (1 if right)": f"{found.spread:.2f}",
                "next to each other (0)": _signed(found.neighbours),
                f"Ljung-Box p, {found.lags} lags": p_text(found.ljung_box),
                "Berkowitz p": p_text(found.berkowitz),
                "in words": found.verdict,
            }
    return pd.DataFrame.from_dict(rows, orient="index") if rows else None


def coverage_table(study: Study) -> pd.DataFrame | None:
    """Share of the values inside the 50 and 90 % intervals, each with its own 95 % interval, as text."""
    rows = {}
    for name in study.ranked:
        shares, n = study.comparison.table, study.comparison.pit(name).size
        if not n:
            continue
        cells = {}
        for level in (50, 90):
            share = float(shares[f"cover{level}"][name])
            low, high = wilson(round(share * n), n)
            cells[f"inside {level} % intervals"] = f"{round(share * n)} of {n} = {100 * share:.0f} %"
            cells[f"true share, likely ({level} %)"] = f"{100 * low:.0f} to {100 * high:.0f} %"
        rows[name] = {**cells, "PIT p": p_text(float(shares["pit_p"][name]))}
    return pd.DataFrame.from_dict(rows, orient="index") if rows else None


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a probability of which ``hits`` of ``n`` independent trials are known.

    Source: Wilson (1927), Journal of the American Statistical Association 22; Brown, Cai and DasGupta (2001),
    Statistical Science 16, equation 4.
    """
    z = float(stats.norm.ppf(0.5 + level / 2))
    share, extra = hits / n, z * z / n
    centre = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    return max(0.0, centre - half), min(1.0, centre + half)


def _signed(value: float) -> str:
    """Two decimals with a sign, without a negative zero."""
    return f"{round(value, 2) + 0.0:+.2f}"


def p_text(value: float) -> str:
    """A p-value for people."""
    return "" if math.isnan(value) else f"{value:.2g}" if value >= 0.001 else "< 0.001"
