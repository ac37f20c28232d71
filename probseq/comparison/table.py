"""The result of a comparison: who predicts best, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq._types import one_of
from probseq.comparison.display import as_html, as_text, readable
from probseq.comparison.evidence import LEVELS, Evidence, Measure
from probseq.data.sequences import Sequences
from probseq.errors import DataError, ParameterError, UnsupportedError
from probseq.evaluation.calibration import uniformity_test
from probseq.evaluation.confidence import model_confidence_set
from probseq.evaluation.scores import check_level
from probseq.evaluation.uncertainty import MeanEstimate, paired_difference
from probseq.evaluation.weights import pseudo_bma_weights, stacking_weights
from probseq.results.plots import plot_comparison, time_label

__all__ = ["Comparison"]

_FEWEST_FOR_WEIGHTS = 8
_CONFIDENCE = 0.9


class Comparison:
    """The result of ``compare``.

    Attributes
    ----------
    table : DataFrame
        One row a model, best first; its columns are told by ``compare``.
    best : str
    n_values : int
        Number of values that every model scored.
    """

    def __init__(self, evidence: list[Evidence], per: str) -> None:
        self.per = per
        self.measure = _common_measure(evidence)
        evidence = _of_one_length(evidence, self.measure)
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
            order.sort(key=self._mean_crps)
        self.best = order[0]
        others = sorted((name for name in self.evidence if name not in totals), key=self._mean_crps)
        weights, self._confidence = self._weights(), self._confidence_p()
        rows = {name: self._row(self.evidence[name], unit, weights) for name in [*order, *others]}
        self.table = pd.DataFrame.from_dict(rows, orient="index")
        self.table.index.name = "model"

    def _unit(self, values: np.ndarray) -> float:
        """By what a total is divided."""
        if self.per == "value":
            return float(values.sum())
        return float(self.n_steps) if self.per == "step" else float(self._steps.any(1).sum())

    def _mean_crps(self, name: str) -> float:
        """For sorting: models without one come last."""
        found = self._numeric(self.evidence[name])["crps"]
        return math.inf if math.isnan(found) else found

    def _mean(self, steps: np.ndarray, unit: float) -> float:
        return float(steps[self._steps].sum() / unit)

    def _of(self, name: str) -> Evidence:
        if name not in self.evidence:
            raise ParameterError(
                got=f"model {name!r}", expected=f"one of {list(self.evidence)}", remedy="Check the name."
            )
        return self.evidence[name]

    def difference(self, name: str, other: str | None = None, score: str = "log_score") -> MeanEstimate:
        """Mean paired difference of two models' scores (``other`` is the best by default) with its standard error.

        With ``score="crps"`` or "pinball", where less is better, its ``p_value`` is that of Diebold and Mariano (1995)
        with the correction of Harvey, Leybourne and Newbold (1997).

        Raises
        ------
        ParameterError
            For a model or a score that is not there.
        UnsupportedError
            For a score that one of them does not have, or log scores under different measures.
        """
        pair = [self._of(n) for n in (name, self.best if other is None else other)]
        scores = [self._scores(e, score) for e in pair]
        apart = score == "log_score" and pair[0].measure != pair[1].measure
        if apart or any(np.isnan(each[self._steps]).all() for each in scores):
            raise UnsupportedError(
                got=f"the {score} of {pair[0].name} ({pair[0].measure}) and of {pair[1].name} ({pair[1].measure})",
                expected="two models that have it, under one measure",
                remedy=f'Write score="crps" for models of numbers{_way_to_meet(pair[0].measure, pair[1].measure)}.',
            )
        return paired_difference(scores[0], scores[1])

    def _scores(self, e: Evidence, score: str) -> np.ndarray:
        """Scores of the common steps (n, t), whose mean is the one of the table; NaN elsewhere."""
        steps = self._plain(e, score)
        if score == "log_score":
            return steps * (self.n_steps / self._total)
        counted = 0 if e.numeric is None else int((e.numeric.counted & self._steps[..., None]).sum())
        return steps * (self.n_steps / max(counted, 1))

    def _plain(self, e: Evidence, score: str) -> np.ndarray:
        """Nats, CRPS or pinball loss of the common steps (n, t), summed over the variables; NaN elsewhere."""
        one_of("score", score, ("log_score", "crps", "pinball"))
        if score == "log_score":
            return np.where(self._steps, e.log_prob, np.nan)
        if e.numeric is None:
            return np.full(self._steps.shape, np.nan)
        each = e.numeric.crps if score == "crps" else e.numeric.pinball
        total = np.where(e.numeric.counted, each, 0.0).sum(-1)
        return np.where(self._steps, total, np.nan)

    def confidence_set(self, level: float = 0.9) -> list[str]:
        """The models that hold the best one with this probability, by the score that ranks them; best first.

        See ``probseq.evaluation.model_confidence_set``. Empty where there are too few steps to tell.
        """
        least = 1 - check_level(level)
        return [str(name) for name in self.table.index if self._confidence.get(str(name), -1.0) >= least]

    def _confidence_p(self) -> dict[str, float]:
        score = "crps" if self.measure.base == "none" else "log_score"
        table = np.stack([self._scores(e, score) for e in self.comparable], -1)
        if len(self.comparable) < 2 or self.n_steps < _FEWEST_FOR_WEIGHTS or np.isnan(table[self._steps]).any():
            return {}
        p = model_confidence_set(-table if score == "crps" else table)
        return dict(zip([e.name for e in self.comparable], p.tolist(), strict=True))

    def _row(self, e: Evidence, unit: float, weights: dict[str, tuple[float, float]]) -> dict[str, Any]:
        counted = e.measure.base != "none"
        same = counted and e.measure == self.measure
        nats = self._mean(e.log_prob, unit) if same else math.nan
        notes = []
        if not counted:
            notes.append(f"{e.reason}, so it has no nats: compare its CRPS")
        elif not same:
            other = "other " if str(e.measure) == str(self.measure) else ""
            way = _way_to_meet(e.measure, self.measure)
            notes.append(f"log score is a {other}{e.measure}, not a {self.measure}{way}")
        gap = se = math.nan
        if same and nats == -math.inf:
            gap = math.nan if e.name == self.best else nats
            notes.append("gave probability zero to a value that came")
        elif same and e.name == self.best:
            gap = 0.0
            if len(self.comparable) > 1:
                notes.append("selected as the best, so its lead is flattered")
        elif same:
            estimate = self.difference(e.name)
            gap, se = estimate.mean, estimate.standard_error
            if not estimate.reliable:
                notes.append(f"s.e. unreliable: {_few(estimate)}")
        surprise = math.exp(-self._mean(e.log_prob, float(self.n_values))) if e.tokens and same else math.nan
        row: dict[str, Any] = {"nats": nats, "perplexity": surprise, "difference": gap, "se": se}
        row["likelihood"] = (e.bound or "exact") if counted else ""
        row["monte_carlo"] = self._monte_carlo(e, unit) if same else math.nan
        sure = self._confidence.get(e.name)
        row["confidence_set"] = None if sure is None else sure >= 1 - _CONFIDENCE
        row.update(self._numeric(e))
        row["crps_p"] = self._crps_p(e)
        row["weight"], row["pseudo_bma"] = weights.get(e.name, (math.nan, math.nan))
        row["parameters"], row["seconds"] = e.n_parameters, e.seconds
        row["frozen"] = self._mean(e.frozen, unit) if same and e.frozen is not None else math.nan
        row["draws"] = math.nan if e.effective_draws is None else e.effective_draws
        row["note"] = "; ".join([*notes, *self._bound_notes(e, same), *e.notes])
        return row

    def _monte_carlo(self, e: Evidence, unit: float) -> float:
        """Standard error of the nats of an estimate, its steps taken for independent; NaN where they are exact."""
        if e.error is None:
            return math.nan
        return float(np.sqrt(np.square(e.error[self._steps]).sum()) / unit)

    def _bound_notes(self, e: Evidence, same: bool) -> list[str]:
        """That a log score is a bound, and what this does to its rank among exact ones."""
        if not e.bound:
            return []
        if e.error is None:
            return [f"log score is an estimate by {e.bound}"]
        found = [f"log score is an estimate by {e.bound}, a lower bound on average"]
        if same and any(not other.bound for other in self.comparable):
            leads = e.name == self.best
            found.append(
                "leads exact ones by that bound: its own likelihood is higher still, on average"
                if leads
                else "ranked among exact ones by that bound: its own likelihood, and its rank, may be higher"
            )
        return found

    def _numeric(self, e: Evidence) -> dict[str, float]:
        names = ("crps", "pinball", *(f"cover{level * 100:g}" for level in LEVELS), "pit_p")
        if e.numeric is None:
            return dict.fromkeys(names, math.nan)
        own = e.numeric
        chosen = own.counted & self._steps[..., None]
        found = (own.crps, own.pinball, *(own.inside[level] for level in LEVELS))
        each = [float(one[chosen].mean()) for one in found]
        return dict(zip(names, [*each, uniformity_test(own.pit[chosen]).p_value], strict=True))

    def _crps_p(self, e: Evidence) -> float:
        """Diebold and Mariano's p-value of the CRPS against the model ranked first."""
        scores = self._scores(e, "crps") - self._scores(self.evidence[self.best], "crps")
        if e.name == self.best or not np.isfinite(scores[self._steps]).all():
            return math.nan
        return self.difference(e.name, score="crps").p_value

    def _weights(self) -> dict[str, tuple[float, float]]:
        """Stacking and pseudo-BMA+ weights from the first half of the steps (of the sequences, where several)."""
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
        both = zip(stacking_weights(table).tolist(), pseudo_bma_weights(table).tolist(), strict=True)
        return dict(zip([e.name for e in self.comparable], both, strict=True))

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
        scores = [self._plain(e, "log_score") for e in self.comparable]
        return self._label(scores, [e.name for e in self.comparable]).rename("log_prob")

    def _label(self, scores: list[np.ndarray], names: list[str]) -> xr.DataArray:
        each = np.array(names, dtype=object)
        return self.data.label(
            np.stack(scores, -1), ("sequence", "time", "model"), name="score", coords={"model": ("model", each)}
        )

    def pit(self, name: str) -> np.ndarray:
        """PIT values of one model over the common steps; empty for categories."""
        own = self._of(name).numeric
        return np.zeros(0) if own is None else own.pit[own.counted & self._steps[..., None]]

    def to_dataframe(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()

    def display_table(self) -> pd.DataFrame:
        """The table as text for people: named columns, rounded, empty columns left out."""
        return readable(self.table, self.per)

    @property
    def caption(self) -> str:
        """What was compared, in one sentence."""
        many, n = f" of {self.data.n_sequences} sequences" if self.data.many else "", len(self.evidence)
        whom = {1: "the model", 2: "both models"}.get(n, f"all {n} models")
        return (
            f"{self.n_values} value{'' if self.n_values == 1 else 's'}{many} scored one step ahead by {whom} "
            f"({self.measure}; {'lower CRPS is' if self.measure.base == 'none' else 'higher nats are'} better)."
        )

    @property
    def notes(self) -> list[str]:
        """Every remark once, behind the names of the models that it is about."""
        about: dict[str, list[str]] = {}
        for name, note in self.table["note"].items():
            for part in filter(None, str(note).split("; ")):
                about.setdefault(part, []).append(str(name))
        return [f"{', '.join(names)}: {part}" for part, names in about.items()]

    def __repr__(self) -> str:
        return as_text(self.display_table(), self.caption, self.notes)

    def _repr_html_(self) -> str:
        return as_html(self.display_table(), self.caption, self.notes)

    def plot(self, ax: Any = None, other: str | None = None) -> Any:
        """Cumulative log-score difference to the best (or to ``other``) along the first sequence: who wins when."""
        return self.plot_cumulative(other, ax=ax)

    def plot_cumulative(
        self, other: str | None = None, *, score: str | None = None, sequence: int = 0, ax: Any = None
    ) -> Any:
        """Who wins when: the sum up to each step of how much better a model predicts than the best (or ``other``).

        A line that rises gains on the reference; one that jumps has won or lost at a single step.

        Parameters
        ----------
        other : str or None
            The model at zero; None is the best.
        score : "log_score", "crps", "pinball" or None
            None is the score that ranks the models. CRPS and pinball loss, where less is better, enter with a minus.
        sequence : int
            Which sequence, counted from 0.
        ax : Axes or None

        Returns
        -------
        Axes

        Raises
        ------
        ParameterError
            For a model, a score or a sequence that is not there.
        """
        best = self.best if other is None else other
        kind = ("crps" if self.measure.base == "none" else "log_score") if score is None else score
        shown = self.comparable if kind == "log_score" else [e for e in self.evidence.values() if e.numeric is not None]
        sign = 1.0 if kind == "log_score" else -1.0
        steps = self._label([sign * self._plain(e, kind) for e in shown], [e.name for e in shown])
        if not -self.data.n_sequences <= sequence < self.data.n_sequences:
            raise ParameterError(
                got=f"sequence={sequence}", expected=f"below {self.data.n_sequences}", remedy="They count from 0."
            )
        if "sequence" in steps.dims:
            steps = steps.isel(sequence=[sequence])
        label = None if kind == "log_score" else f"{kind} ahead of {best}"
        return plot_comparison(steps, best, ax, label, xlabel=time_label(self.data, self.data.index[sequence]))


def _common_measure(evidence: list[Evidence]) -> Measure:
    """The measure under which most models score; the first one's among equals, no likelihood where none has one."""
    counts = Counter(e.measure for e in evidence if e.measure.base != "none") or Counter(e.measure for e in evidence)
    most = max(counts.values())
    return next(e.measure for e in evidence if counts[e.measure] == most)


def _way_to_meet(one: Measure, other: Measure) -> str:
    """How a density and a probability of whole numbers become comparable, where these are the two."""
    meet = {one.base, other.base} == {"lebesgue", "counting"} and not (one.vocabulary or other.vocabulary)
    return "; transform=Discretize() scores a density as probabilities" if meet else ""


def _few(estimate: MeanEstimate) -> str:
    n, word = (estimate.n_values, "value") if estimate.method == "hac" else (int(estimate.df) + 1, "sequence")
    return f"{n} {word}{'' if n == 1 else 's'}"


def _of_one_length(evidence: list[Evidence], measure: Measure) -> list[Evidence]:
    """Texts whose end is a token have a step more: models that do not count as others do get no scores."""
    reference = next(e for e in evidence if e.measure == measure)
    whole = reference.scored.shape
    return [
        e
        if e.measure == measure or e.scored.shape == whole or not e.tokens
        else replace(e, data=reference.data, log_prob=np.full(whole[:2], np.nan), scored=reference.scored, frozen=None)
        for e in evidence
    ]


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
