"""Scores of a forecast against what came: each value by itself, whole trajectories, and means beside a baseline."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from probseq._random import RandomState
from probseq._types import number_in
from probseq.errors import EmptyDataError, ParameterError, ShapeError, UnsupportedError
from probseq.evaluation import scores as measures
from probseq.results.affine import core_of
from probseq.results.labelled import DIMS, LabelledLaw

__all__ = ["ScoredForecasts"]

_DECILES = tuple(round(0.1 * i, 1) for i in range(1, 10))
_NUMBERS = ("log_score", "crps", "pinball", "interval_score", "rmse", "mae", "smape", "mase")
_PATHS = ("energy_score", "variogram_score")
_CATEGORIES = ("log_score", "brier_score", "ranked_probability_score")


class ScoredForecasts(LabelledLaw):
    """A labelled law that is scored; see `Forecast`. Smaller is better, except for log scores."""

    def log_prob(self, y: Any, joint: bool = False) -> xr.DataArray:
        """log p(y) in nats.

        Parameters
        ----------
        y : the values that came, NaN = missing
        joint : False for each step by itself (dims ``sequence, time``), True for all steps together (``sequence``):
            the sum of their one-step conditionals
        """
        values = self._values(y)
        if not joint:
            return self._label(
                self._mask(self._backend.log_prob(values)), "log_prob", dims=DIMS[:2], attrs={"unit": "nats"}
            )
        if self._joint is None:
            raise UnsupportedError(
                got=f"log_prob(joint=True) of a forecast made of {self._backend.substance}",
                expected="a forecast that still knows its model",
                remedy="Call it on what forecast() returned, or use joint=False.",
            )
        return self._label(self._joint.log_prob(values), "log_prob", dims=("sequence",), attrs={"unit": "nats"})

    def crps(self, y: Any) -> xr.DataArray:
        """Continuous ranked probability score, in the unit of the data.

        Exact for the common families and their mixtures; the fair estimator of Ferro (2014) for paths.
        """
        self._need_numbers("crps", "log_prob()")
        return self._label(self._backend.crps(self._values(y)), "crps")

    def pinball(self, y: Any, q: float | Sequence[float] = _DECILES) -> xr.DataArray:
        """(y - Q(q)) (q - 1{y < Q(q)}), the loss of the q-quantile; several levels get a ``quantile`` dimension."""
        self._need_numbers("pinball", "log_prob()")
        levels = measures.check_levels(q, "q")
        values = self._values(y)[..., None]
        loss = measures.pinball_loss(values, self._backend.quantile(np.atleast_1d(levels)), np.atleast_1d(levels))
        if levels.ndim == 0:
            return self._label(loss[..., 0], "pinball", coords={"quantile": float(levels)})
        return self._label(loss, "pinball", ("quantile",), {"quantile": ("quantile", levels)})

    def interval_score(self, y: Any, level: float = 0.9) -> xr.DataArray:
        """Winkler score of the central interval: its width, and 2 / (1 - level) for each unit that y is outside."""
        self._need_numbers("interval_score", "log_prob()")
        share = float(measures.check_levels(level))
        ends = self._backend.quantile(np.array([(1 - share) / 2, (1 + share) / 2]))
        score = measures.interval_score(self._values(y), ends[..., 0], ends[..., 1], share)
        return self._label(score, "interval_score", coords={"level": share})

    def brier_score(self, y: Any, threshold: float | None = None) -> xr.DataArray:
        """sum_k (p_k - 1{y = k})^2 over the categories; of numbers (P(X <= c) - 1{y <= c})^2 with ``threshold`` c.

        Raises
        ------
        UnsupportedError
            Numbers without a ``threshold``, or categories with one.
        ParameterError
            A ``threshold`` that is no finite number.
        """
        values = self._values(y)
        if threshold is None:
            return self._label(measures.brier_score(values, self._backend.probs()), "brier_score")
        self._need_numbers("brier_score", "brier_score(y) without a threshold")
        given = threshold.item() if isinstance(threshold, xr.DataArray) and threshold.ndim == 0 else threshold
        limit = number_in("threshold", given, "(-inf, inf)", "Such as threshold=0.0.")
        below = self._backend.cdf(np.full(self._backend.shape, limit))
        score = np.where(np.isnan(values), np.nan, (below - (values <= limit)) ** 2)
        return self._label(score, "brier_score", coords={"threshold": limit})

    def ranked_probability_score(self, y: Any) -> xr.DataArray:
        """sum_k (F(k) - 1{y <= k})^2 over ordered categories (in the order of their codes), or over counts."""
        if self._backend.discrete and not self._backend.nominal:
            return self._label(self._backend.crps(self._values(y)), "ranked_probability_score")
        p = self._backend.probs()
        return self._label(measures.ranked_probability_score(self._values(y), p), "ranked_probability_score")

    def squared_error(self, y: Any) -> xr.DataArray:
        """(y - mean)^2; its mean is the square of the RMSE."""
        self._need_numbers("squared_error", "log_prob()")
        return self._label((self._values(y) - self._backend.mean()) ** 2, "squared_error")

    def absolute_error(self, y: Any) -> xr.DataArray:
        """|y - median|, in the unit of the data."""
        self._need_numbers("absolute_error", "log_prob()")
        return self._label(np.abs(self._values(y) - self._middle()), "absolute_error")

    def smape(self, y: Any) -> xr.DataArray:
        """2 |y - median| / (|y| + |median|), between 0 and 2, for each value; the sMAPE is their mean."""
        self._need_numbers("smape", "log_prob()")
        return self._label(measures.symmetric_error(self._values(y), self._middle()), "smape")

    def mase(self, y: Any, period: int = 1) -> xr.DataArray:
        """|y - median| over the mean error of the seasonal naive forecast in the history; the MASE is their mean.

        Parameters
        ----------
        period : length of a season in steps

        Raises
        ------
        UnsupportedError
            The forecast does not know its history.
        ShapeError
            The history is not longer than one period.
        EmptyDataError
            No two values of the history lie one period apart.
        """
        self._need_numbers("mase", "log_prob()")
        past = self._history
        if past is None:
            raise UnsupportedError(
                got="mase() of a forecast without its history",
                expected="what forecast() returned",
                remedy="Use absolute_error(y), or probseq.evaluation.mase(y, point, history).",
            )
        scale = np.stack([measures.naive_scale(past.block(i), period) for i in range(past.n_sequences)])
        error = np.abs(self._values(y) - self._middle())
        return self._label(error / scale[:, None], "mase")

    def rmse(self, y: Any) -> xr.DataArray:
        """sqrt(mean_t (y_t - mean_t)^2) over the steps that came, for each sequence and variable."""
        errors = self.squared_error(y)
        return _root(errors.mean(_step_dim(errors))).rename("rmse")

    def energy_score(self, y: Any, n_paths: int = 1000, random_state: RandomState = 0) -> xr.DataArray:
        """Energy score of the whole trajectory over steps and variables, by ``n_paths`` draws; per sequence.

        The fair estimator, of the values that came: where y is missing, or not predicted, it is left out.
        """
        values, paths, seen = self._trajectories("energy_score", y, n_paths, random_state)
        score = measures.energy_score(values, paths)
        return self._label(np.where(seen.any(-1), score, np.nan), "energy_score", dims=("sequence",))

    def variogram_score(
        self, y: Any, p: float = 0.5, n_paths: int = 1000, random_state: RandomState = 0
    ) -> xr.DataArray:
        """Variogram score of order ``p`` over all pairs of values of a trajectory, by draws; per sequence.

        It sees whether steps and variables hang together as they should; values that did not come are left out.
        """
        values, paths, seen = self._trajectories("variogram_score", y, n_paths, random_state)
        pairs = seen[:, :, None] & seen[:, None, :]
        score = measures.variogram_score(values, paths, p=p, weights=pairs)
        return self._label(np.where(seen.any(-1), score, np.nan), "variogram_score", dims=("sequence",))

    def scores(
        self,
        y: Any,
        baseline: LabelledLaw | None = None,
        *,
        which: Sequence[str] | None = None,
        per: Hashable | Sequence[Hashable] = (),
        level: float = 0.9,
        period: int = 1,
        n_paths: int = 1000,
        random_state: RandomState = 0,
    ) -> xr.Dataset:
        """Mean scores, and skill against a baseline on the values that both of them score.

        Parameters
        ----------
        y : the values that came, NaN = missing
        baseline : Forecast, optional
            Of the same steps, sequences and variables.
        which : names, optional
            Of ``log_score, crps, pinball, interval_score, rmse, mae, smape, mase, energy_score, variogram_score,
            brier_score, ranked_probability_score``. By default those that suit the forecast; what it cannot answer is
            left out and named in ``attrs["left_out"]``.
        per : dimension or dimensions that are kept, such as "time", "horizon", "sequence" or "variable"
            Scores without this dimension (those of steps, or of whole trajectories) are left out.
        level : of the interval score
        period : season of the MASE
        n_paths, random_state : for the scores of whole trajectories

        Returns
        -------
        Dataset with dims ``score`` and ``per``: ``mean`` and ``n`` (how many scores were averaged), with a baseline
        also ``baseline`` (its mean) and ``skill``: 1 - mean / baseline, 1 for a perfect forecast; for ``log_score``
        (nats per value, larger is better) the difference of the means. ``pinball`` is the mean over the deciles.

        Examples
        --------
        >>> import probseq as ps
        >>> walk = ps.RandomWalk().with_parameters(scale=[2.0])
        >>> wide = ps.RandomWalk().with_parameters(scale=[20.0])
        >>> past, y = [0.0, 1.0], [2.0, 3.0]
        >>> table = walk.forecast(2, history=past).scores(y, wide.forecast(2, history=past), which=["crps"])
        >>> table["skill"].values.round(2)
        array([0.84])
        """
        if baseline is not None and not isinstance(baseline, ScoredForecasts):
            raise ParameterError(
                got=f"baseline={type(baseline).__name__}",
                expected="a Forecast",
                remedy="Such as SeasonalNaive().fit(train).forecast(horizon).",
            )
        if baseline is not None and baseline._backend.shape != self._backend.shape:
            raise ShapeError(
                got=f"a baseline of shape {baseline._backend.shape} (sequence, time, variable)",
                expected=f"that of the forecast, {self._backend.shape}",
                remedy="Forecast the same steps of the same data.",
            )
        words = (per,) if isinstance(per, str) or not isinstance(per, Sequence) else tuple(per)
        steps = _step_dim(self._label(np.zeros(self._backend.shape), "n"))
        keep = tuple(dict.fromkeys(steps if word in ("time", "horizon") else word for word in words))
        options = _Options(level, period, n_paths, random_state)
        own, left_out = self._all_scores(y, self._names(which), options, keep, strict=which is not None)
        other = {} if baseline is None else baseline._all_scores(y, tuple(own), options, keep, strict=False)[0]
        rows = {name: _row(name, score, other.get(name), keep, baseline is not None) for name, score in own.items()}
        attrs = {"left_out": "; ".join(f"{name}: {why}" for name, why in left_out.items())} if left_out else {}
        index = xr.DataArray(list(rows), dims="score", name="score")
        table = xr.concat(list(rows.values()), dim=index, coords="minimal", compat="override", join="outer")
        return table.assign_attrs(attrs)

    def _names(self, which: Sequence[str] | None) -> tuple[str, ...]:
        known = tuple(dict.fromkeys((*_NUMBERS, *_PATHS, *_CATEGORIES)))
        if which is None:
            together = _PATHS if self.future and self._backend.shape[1] * self._backend.shape[2] > 1 else ()
            return _CATEGORIES[:2] if self._backend.nominal else (*_NUMBERS, *together)
        names = (which,) if isinstance(which, str) else tuple(which)
        wrong = [name for name in names if name not in known]
        if wrong or not names:
            raise ParameterError(
                got=f"which={which!r}", expected=f"some of {', '.join(known)}", remedy="Check the spelling."
            )
        return names

    def _all_scores(
        self, y: Any, names: Sequence[str], options: _Options, keep: Sequence[Hashable], *, strict: bool
    ) -> tuple[dict[str, _Summand], dict[str, str]]:
        """The scores by name, and why some of them are missing."""
        found: dict[str, _Summand] = {}
        left_out: dict[str, str] = {}
        for name in names:
            if name in _PATHS and self._has_loose_steps and not strict:
                left_out[name] = f"a forecast made of {self._backend.substance}, step by step"
                continue
            try:
                summand = self._one_score(name, y, options)
            except (UnsupportedError, ShapeError, EmptyDataError) as error:
                if strict or (isinstance(error, ShapeError | EmptyDataError) and name != "mase"):
                    raise
                left_out[name] = error.got
                continue
            missing = [dim for dim in keep if dim not in summand.score.dims]
            if missing:
                left_out[name] = f"one figure for all of dimension {missing[0]!r}"
            else:
                found[name] = summand
        if not found:
            raise ParameterError(
                got=f"no score of {', '.join(names)} with per={tuple(keep)!r}",
                expected="dimensions that the scores have",
                remedy="; ".join(dict.fromkeys(left_out.values())),
            )
        return found, left_out

    def _one_score(self, name: str, y: Any, options: _Options) -> _Summand:
        if name == "log_score":
            log_prob = self.log_prob(y)
            scored = ~np.isnan(self._values(y))
            certain = getattr(core_of(self._backend), "certain", None)
            if certain is not None:
                scored &= ~certain
            return _Summand(log_prob, self._label(self._mask(scored * 1.0).sum(-1), "n", dims=DIMS[:2]))
        ask: dict[str, Callable[[], xr.DataArray]] = {
            "crps": lambda: self.crps(y),
            "pinball": lambda: self.pinball(y).mean("quantile"),
            "interval_score": lambda: self.interval_score(y, options.level),
            "rmse": lambda: self.squared_error(y),
            "mae": lambda: self.absolute_error(y),
            "smape": lambda: self.smape(y),
            "mase": lambda: self.mase(y, options.period),
            "energy_score": lambda: self.energy_score(y, options.n_paths, options.random_state),
            "variogram_score": lambda: self.variogram_score(y, 0.5, options.n_paths, options.random_state),
            "brier_score": lambda: self.brier_score(y),
            "ranked_probability_score": lambda: self.ranked_probability_score(y),
        }
        return _Summand(ask[name]())

    def _middle(self) -> np.ndarray:
        return self._backend.quantile(np.array([0.5]))[..., 0]

    def _trajectories(
        self, name: str, y: Any, n_paths: int, random_state: RandomState
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (n, t * k), paths (path, n, t * k) and where both are; zero elsewhere, which no distance sees."""
        self._need_numbers(name, "log_prob()", every=True)
        self._need_trajectories(name, "crps(y)")
        self._need_paths(n_paths, 2)
        self._warn_of_independence(name)
        values, paths = self._values(y), self._paths(n_paths, random_state)
        seen = ~np.isnan(values) & ~np.isnan(paths[0])
        n = values.shape[0]
        return (
            np.where(seen, values, 0.0).reshape(n, -1),
            np.where(seen, paths, 0.0).reshape(len(paths), n, -1),
            seen.reshape(n, -1),
        )


class _Options:
    """What the scores of one call share."""

    def __init__(self, level: float, period: int, n_paths: int, random_state: RandomState) -> None:
        self.level, self.period, self.n_paths, self.random_state = level, period, n_paths, random_state


class _Summand:
    """Scores, and how many values each of them stands for (1 where not given)."""

    def __init__(self, score: xr.DataArray, n: xr.DataArray | None = None) -> None:
        self.score, self.n = score, n

    def over(self, dims: Sequence[Hashable], seen: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
        """The mean over dimensions of what was ``seen``, NaN where there is nothing, and the number of values."""
        n = (xr.ones_like(self.score) if self.n is None else self.n).where(seen, 0.0).sum(dims)
        total = self.score.where(seen, 0.0).sum(dims)
        return total / n.where(n > 0), n


def _row(name: str, own: _Summand, other: _Summand | None, keep: Sequence[Hashable], compared: bool) -> xr.Dataset:
    """Means of one score, and the skill, on the values that both score."""
    dims = [dim for dim in own.score.dims if dim not in keep]
    plain = xr.DataArray(own.score.values, dims=own.score.dims)
    both = None if other is None else plain.copy(data=other.score.transpose(*own.score.dims).values)
    seen = plain.notnull() if both is None else plain.notnull() & both.notnull()
    n = None if own.n is None else plain.copy(data=own.n.values)
    mean, count = _Summand(plain, n).over(dims, seen)
    finish: Callable[[xr.DataArray], xr.DataArray] = _root if name == "rmse" else xr.DataArray.copy
    parts = {"mean": finish(mean), "n": count.astype(int)}
    if compared:
        base = mean * np.nan if both is None else finish(_Summand(both, n).over(dims, seen)[0])
        skill = parts["mean"] - base if name == "log_score" else 1.0 - parts["mean"] / base.where(base != 0)
        parts |= {"baseline": base, "skill": skill}
    along = own.score.drop_vars([name for name, one in own.score.coords.items() if not one.dims])
    labels = {dim: along[dim] for dim in keep if dim in along.coords}
    return xr.Dataset(parts).assign_coords(labels)


def _root(value: xr.DataArray) -> xr.DataArray:
    return value.copy(data=np.sqrt(value.values))


def _step_dim(scores: xr.DataArray) -> str:
    return "time" if "time" in scores.dims else "horizon"
