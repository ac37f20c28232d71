"""One table: which model predicts the same held-out values best, by how much, and how sure is that?"""

from __future__ import annotations

import html
import io
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.comparison.evidence import LEVELS, Evidence, collect
from probseq.data.sequences import Sequences
from probseq.errors import DataError, ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.history import without_inputs
from probseq.evaluation.calibration import uniformity_test
from probseq.evaluation.uncertainty import MeanEstimate, paired_difference
from probseq.evaluation.weights import stacking_weights

__all__ = ["Comparison", "compare"]

_FEWEST_FOR_WEIGHTS = 8
_COLUMNS = {
    "nats": "nats per {per}",
    "perplexity": "perplexity",
    "difference": "difference to the best",
    "se": "± s.e.",
    "crps": "CRPS",
    "cover50": "cover 50 %",
    "cover90": "cover 90 %",
    "pit_p": "PIT p",
    "weight": "weight",
    "parameters": "parameters",
    "seconds": "fit, s",
    "frozen": "nats, draws held",
    "draws": "draws in effect",
    "note": "note",
}
_DIGITS = {
    "nats": 3,
    "perplexity": 1,
    "difference": 3,
    "se": 3,
    "crps": 4,
    "pit_p": 2,
    "weight": 2,
    "seconds": 2,
    "frozen": 3,
    "draws": 1,
}


def compare(
    models: Mapping[str, SequenceEstimator] | list[SequenceEstimator],
    X: Any,
    *,
    history: Any = None,
    lengths: Any = None,
    covariates: Any = None,
    per: str = "value",
) -> Comparison:
    """Score fitted models one step ahead on the same values and rank them.

    Every model is scored on the steps that all of them score: a value that one model only conditions on counts for
    none. Scores are in nats on the scale of the data. Log scores of densities and of probabilities are not compared.

    Parameters
    ----------
    models : dict of name -> fitted estimator, or list
    X : held-out data in any form
    history : None, ps.TRAINING or the data before X
    per : "value", "step" or "sequence"
        What a score is divided by.

    Returns
    -------
    Comparison
        Its ``table`` has one row a model, best first: mean log score (NaN where no likelihood was maximised, as by
        ``Quantiles``: such models are ranked by CRPS, behind the others); difference to the best and its standard error
        (one sequence: Newey-West with the correction of Harvey, Leybourne and Newbold; several: clustered by
        sequence); CRPS; coverage of the central 50 and 90 % intervals; p-value of uniform PIT; stacking weight, learnt
        on the first half of the values; free parameters; seconds of the fit.

    Raises
    ------
    DataError
        If no step is scored by all models.
    """
    named = _named(models)
    if per not in ("value", "step", "sequence"):
        raise ParameterError(got=f"per={per!r}", expected='"value", "step" or "sequence"', remedy="Choose one of them.")
    found = []
    for name, model in named.items():
        uses_inputs = model.model_.n_covariates > 0
        own = without_inputs(X) if isinstance(X, Sequences) and not uses_inputs else X
        data = model._read(own, lengths, covariates if uses_inputs else None)
        found.append(collect(name, model, data, history))
    return Comparison(found, per)


def _named(models: Any) -> dict[str, SequenceEstimator]:
    if isinstance(models, SequenceEstimator):
        models = [models]
    if not isinstance(models, Mapping | list | tuple):
        raise ParameterError(
            got=f"models of type {type(models).__name__}",
            expected="a dict or list of fitted models",
            remedy="Fit some.",
        )
    if not isinstance(models, Mapping):
        names = [type(m).__name__ for m in models]
        again = Counter(names)
        seen: Counter[str] = Counter()
        unique = []
        for name in names:
            seen[name] += 1
            unique.append(f"{name} {seen[name]}" if again[name] > 1 else name)
        models = dict(zip(unique, models, strict=True))
    if not models:
        raise ParameterError(got="no model", expected="at least one fitted model", remedy="Pass a dict of models.")
    for name, model in models.items():
        if not isinstance(model, SequenceEstimator):
            raise ParameterError(
                got=f"{type(model).__name__} under the name {name!r}",
                expected="a fitted probseq model",
                remedy="Fit it with probseq first.",
            )
        model._check_fitted()
    return {str(name): model for name, model in models.items()}


class Comparison:
    """The result of ``compare``.

    Attributes
    ----------
    table : DataFrame
        One row a model, best first; columns nats, perplexity (of categories: the number of equally likely ones that
        would be as surprising), difference, se, crps, cover50, cover90, pit_p, weight, parameters,
        seconds, frozen, draws, note.
    best : str
    n_values : int
        Number of values that every model scored.
    """

    def __init__(self, evidence: list[Evidence], per: str) -> None:
        self.per = per
        self.measure = _common_measure(evidence)
        self.comparable = [e for e in evidence if e.measure == self.measure]
        self.evidence = {e.name: e for e in evidence}
        self._steps = _intersection(evidence)
        reference = evidence[0]
        self.data: Sequences = reference.data
        values = np.where(self._steps[..., None], reference.scored, False).sum(-1)
        self.n_values = int(values.sum())
        self.n_steps = int(self._steps.sum())
        if self.n_steps == 0:
            raise DataError(
                got=f"no step that all of {list(self.evidence)} score",
                expected="at least one",
                remedy="Pass history= so that models which condition on their first values can score, or longer data.",
            )
        self._rank(values)

    def _rank(self, values: np.ndarray) -> None:
        unit = self._total = self._unit(values)
        totals = {e.name: self._mean(e.log_prob, unit) for e in self.comparable}
        order = sorted(totals, key=lambda name: (not math.isnan(totals[name]), totals[name]), reverse=True)
        if self.measure.base == "none":
            order.sort(key=lambda name: self._numeric(self.evidence[name])["crps"])
        self.best = order[0]
        others = [e.name for e in self.evidence.values() if e.name not in totals]
        weights = self._weights()
        rows = {name: self._row(self.evidence[name], unit, weights) for name in [*order, *others]}
        self.table = pd.DataFrame.from_dict(rows, orient="index")
        self.table.index.name = "model"

    def _unit(self, values: np.ndarray) -> float:
        """By what a total is divided."""
        if self.per == "value":
            return float(values.sum())
        return float(self.n_steps) if self.per == "step" else float(len(values))

    def _mean(self, steps: np.ndarray, unit: float) -> float:
        return float(steps[self._steps].sum() / unit)

    def _of(self, name: str) -> Evidence:
        if name not in self.evidence:
            raise ParameterError(
                got=f"model {name!r}", expected=f"one of {list(self.evidence)}", remedy="Check the name."
            )
        return self.evidence[name]

    def difference(self, name: str, other: str | None = None) -> MeanEstimate:
        """Mean paired difference of two models' scores (``other`` is the best by default) with its standard error."""
        a, b = self._of(name), self._of(self.best if other is None else other)
        scale = self.n_steps / self._total
        first, second = (np.where(self._steps, e.log_prob, np.nan) * scale for e in (a, b))
        return paired_difference(first, second)

    def _row(self, e: Evidence, unit: float, weights: dict[str, float]) -> dict[str, Any]:
        counted = e.measure.base != "none"
        same = counted and e.measure == self.measure
        nats = self._mean(e.log_prob, unit) if same else math.nan
        notes = []
        if not counted:
            notes.append(f"{e.estimator.emission_!r} is no likelihood, so it has no nats: compare its CRPS")
        elif not same:
            notes.append(f"log score is a {e.measure}, not a {self.measure}")
        if same and e.name == self.best and len(self.comparable) > 1:
            notes.append("selected as the best, so its lead is flattered")
        gap = se = math.nan
        if same and e.name == self.best:
            gap, se = 0.0, math.nan
        elif same and not math.isfinite(nats):
            gap = nats
            notes.append("gave probability zero to a value that came")
        elif same:
            estimate = self.difference(e.name)
            gap, se = estimate.mean, estimate.standard_error
            if not estimate.reliable:
                few = f"{estimate.n_values} values" if estimate.method == "hac" else f"{int(estimate.df) + 1} sequences"
                notes.append(f"s.e. unreliable: {few}")
        tokens = e.estimator.emission_ is not None and e.estimator.emission_.nominal and same
        surprise = math.exp(-self._mean(e.log_prob, float(self.n_values))) if tokens else math.nan
        row: dict[str, Any] = {"nats": nats, "perplexity": surprise, "difference": gap, "se": se}
        row.update(self._numeric(e))
        row["weight"] = weights.get(e.name, math.nan)
        row["parameters"] = e.estimator.n_parameters_
        row["seconds"] = e.estimator.fit_seconds_
        row["frozen"] = self._mean(e.frozen, unit) if same and e.frozen is not None else math.nan
        row["draws"] = math.nan if e.effective_draws is None else e.effective_draws
        gaps = bool((~e.data.seen() & e.data.mask()[..., None]).any())
        if gaps and e.estimator.model_.missing == "pattern":
            notes.append("given the pattern of missing values")
        if not e.estimator.model_.exact and (gaps or e.estimator.model_.missing != "particles"):
            notes.append("log score is an estimate")
        if e.estimator.model_.likelihood != "exact":
            notes.append(f"{e.estimator.model_.likelihood} likelihood")
        row["note"] = "; ".join(notes)
        return row

    def _numeric(self, e: Evidence) -> dict[str, float]:
        if e.forecast is None or e.crps is None or e.pit is None or e.inside is None:
            return {"crps": math.nan, "cover50": math.nan, "cover90": math.nan, "pit_p": math.nan}
        chosen = e.scored & self._steps[..., None] & ~e.forecast._backend.nominal_variables
        row = {"crps": float(np.mean(e.crps[chosen]))}
        for level in LEVELS:
            row[f"cover{level * 100:g}"] = float(e.inside[level][chosen].mean())
        row["pit_p"] = uniformity_test(e.pit[chosen]).p_value
        return row

    def _weights(self) -> dict[str, float]:
        """Stacking weights from the first half of the steps (of the sequences, where there are several)."""
        scores = np.stack([e.log_prob for e in self.comparable], -1)
        chosen = self._steps.copy()
        n = chosen.shape[0]
        self._learnt = chosen.copy()
        if n > 1:
            self._learnt[n // 2 :] = False
        else:
            cumulative = np.cumsum(chosen, 1)
            self._learnt &= cumulative <= cumulative[:, -1:] // 2
        table = scores[self._learnt]
        if len(self.comparable) < 2 or len(table) < _FEWEST_FOR_WEIGHTS or not np.isfinite(table).any():
            return {}
        return dict(zip([e.name for e in self.comparable], stacking_weights(table), strict=True))

    @property
    def stacked(self) -> dict[str, float]:
        """Nats per step on the second half: the stacked mixture's, and that of each model; empty if not learnt."""
        weights = self.table["weight"].dropna()
        rest = self._steps & ~self._learnt
        if weights.empty or not rest.any():
            return {}
        scores = {name: self.evidence[name].log_prob[rest] for name in weights.index}
        with np.errstate(divide="ignore"):
            parts = np.stack([np.log(weights[name]) + s for name, s in scores.items()], -1)
        mixed = np.logaddexp.reduce(parts, -1)
        return {"stacked": float(mixed.mean()), **{name: float(s.mean()) for name, s in scores.items()}}

    @property
    def log_prob_steps(self) -> xr.DataArray:
        """Nats of every step, dims ``sequence, time, model``; NaN where not every model scores."""
        scores = np.stack([np.where(self._steps, e.log_prob, np.nan) for e in self.comparable], -1)
        names = np.array([e.name for e in self.comparable], dtype=object)
        return self.data.label(
            scores, ("sequence", "time", "model"), name="log_prob", coords={"model": ("model", names)}
        )

    def pit(self, name: str) -> np.ndarray:
        """PIT values of one model over the common steps; empty for categories."""
        e = self._of(name)
        if e.forecast is None or e.pit is None:
            return np.zeros(0)
        return e.pit[e.scored & self._steps[..., None] & ~e.forecast._backend.nominal_variables]

    # out ------------------------------------------------------------------------------------------------------------

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()

    def display_table(self) -> pd.DataFrame:
        """The table as text for people: named columns, rounded, empty columns left out."""
        shown = self.table.copy()
        out = pd.DataFrame(index=shown.index)
        for column, title in _COLUMNS.items():
            values = shown[column]
            if column == "note" or values.isna().all():
                continue
            if column in _DIGITS:
                text = [("" if pd.isna(v) else f"{v:.{_digits(values, _DIGITS[column])}f}") for v in values]
            elif column.startswith("cover"):
                text = ["" if pd.isna(v) else f"{100 * v:.0f} %" for v in values]
            else:
                text = [str(v) for v in values]
            out[title.format(per=self.per)] = text
        return out

    @property
    def caption(self) -> str:
        """What was compared, in one sentence."""
        many = f" of {self.data.n_sequences} sequences" if self.data.many else ""
        return (
            f"{self.n_values} values{many} scored one step ahead by all {len(self.evidence)} models "
            f"({self.measure}; {'lower CRPS is' if self.measure.base == 'none' else 'higher nats are'} better)."
        )

    @property
    def notes(self) -> list[str]:
        """One line for every model that needs one."""
        return [f"{name}: {note}" for name, note in self.table["note"].items() if note]

    def __repr__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        shown = self.display_table()
        table = Table(box=box.SIMPLE_HEAD, caption=self.caption, caption_justify="left")
        table.add_column("model")
        for title in shown.columns:
            table.add_column(title, justify="right")
        for name, row in shown.iterrows():
            table.add_row(str(name), *row.tolist())
        stream = io.StringIO()
        Console(
            file=stream,
            width=max(100, 18 + 12 * len(shown.columns)),
            no_color=True,
            force_terminal=False,
            force_jupyter=False,
        ).print(table)
        return "\n".join([stream.getvalue().rstrip(), *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f"{self.display_table().to_html()}<p>{self.caption}</p><ul>{notes}</ul>"

    def plot(self, ax: Any = None, other: str | None = None) -> Any:
        """Cumulative log-score difference to the best (or to ``other``) along the first sequence: who wins when."""
        from probseq.results.plots import plot_comparison

        return plot_comparison(self.log_prob_steps, self.best if other is None else other, ax)


def _digits(values: pd.Series, wanted: int) -> int:
    """Decimals that show a column of this size well."""
    top = float(values.abs().replace([np.inf], np.nan).max())
    return max(1, wanted - 1) if top >= 100 else wanted


def _common_measure(evidence: list[Evidence]) -> Any:
    """The measure under which most models score; the first one's among equals, no likelihood where none has one."""
    counts = Counter(e.measure for e in evidence if e.measure.base != "none") or Counter(e.measure for e in evidence)
    most = max(counts.values())
    return next(e.measure for e in evidence if counts[e.measure] == most)


def _intersection(evidence: list[Evidence]) -> np.ndarray:
    """Steps (n, t) at which every model scores the same coordinates, at least one."""
    first = evidence[0].scored
    common: np.ndarray = np.asarray(first.any(-1))
    for e in evidence[1:]:
        if e.scored.shape != first.shape:
            raise DataError(
                got=f"data of shape {e.scored.shape} for {e.name}", expected=f"{first.shape}", remedy="Read data alike."
            )
        common = common & (e.scored == first).all(-1)
    return common
