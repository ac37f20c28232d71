"""What a study found, in plain sentences computed from its numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from probseq.report.defaults import MODELS
from probseq.report.study import Study

__all__ = ["findings", "state_table", "when"]

_BASELINES = ("rw", "snaive", "iid")
_SURE = 2.0


def findings(study: Study) -> list[str]:
    """Sentences, the most important first; a model is called by its short name."""
    parts = [
        _winner(study),
        _bounds(study),
        _rivals(study),
        _set(study),
        _apart(study),
        _baselines(study),
        _moments(study),
        _forecasts(study),
    ]
    return [text for text in [*parts, *_calibration(study), _draws(study), _care(study)] if text]


def when(stamp: Any) -> str:
    """A time for people: the date without its empty clock."""
    if isinstance(stamp, np.datetime64 | pd.Timestamp):
        time = pd.Timestamp(stamp)
        return str(time.strftime("%Y-%m-%d" if time == time.normalize() else "%Y-%m-%d %H:%M"))
    return str(stamp.item() if hasattr(stamp, "item") else stamp)


def _winner(study: Study) -> str:
    table, best = study.comparison.table, study.comparison.best
    n = study.comparison.n_values
    text = f"{best} ({MODELS.get(best, best)}) predicts the {n} held-out values best: "
    text += f"{float(table['nats'][best]):.2f} nats per value, one step ahead."
    second = next((str(name) for name in table.index[1:] if not np.isnan(table["difference"][name])), None)
    if second is None:
        return text
    gap = -float(table["difference"][second])
    base = study.comparison.measure.base
    word = "probability" if isinstance(base, str) and base not in ("lebesgue", "none") else "probability density"
    return text + (
        f" On geometric average it gave the values that came {math.exp(gap):.2f} times the {word} that the "
        f"runner-up, {second}, gave them ({gap:.2f} nats per value ahead)."
    )


def _bounds(study: Study) -> str:
    """Which scores are lower bounds, and how far chance moves them."""
    comparison, parts = study.comparison, []
    for name, e in comparison.evidence.items():
        if e.bound and e.error is not None:
            error = float(comparison.table["monte_carlo"][name])
            parts.append(f"{name} ({e.bound}" + ("" if math.isnan(error) else f", ± {error:.2g} by chance") + ")")
    if not parts:
        return ""
    whose = "its" if len(parts) == 1 else "their"
    return f"The score of {_listed(parts)} is a lower bound on average: {whose} true one may be higher."


def _rivals(study: Study) -> str:
    comparison = study.comparison
    behind, open_, unknown = [], [], []
    for name in comparison.table.index:
        estimate = comparison.table.loc[name, ["difference", "se"]].astype(float)
        if name == comparison.best or math.isnan(estimate["difference"]):
            continue
        if not estimate["se"] > 0:
            unknown.append(str(name))
        elif -estimate["difference"] > _SURE * estimate["se"]:
            behind.append(f"{name} ({-estimate['difference'] / estimate['se']:.1f})")
        else:
            open_.append(f"{name} ({-estimate['difference'] / estimate['se']:.1f})")
    parts = []
    if behind:
        parts.append(f"Its lead is more than two standard errors over {_listed(behind)}")
    if open_:
        parts.append(f"{'' if behind else 'Its lead is '}less than two over {_listed(open_)}, which may be as good")
    if not behind and open_:
        parts = [f"Its lead is less than two standard errors over {_listed(open_)}, which may be as good"]
    if unknown:
        parts.append(f"no standard error could be computed for {_listed(unknown)}")
    return "; ".join(parts) + "." if parts else ""


def _set(study: Study) -> str:
    """Where two standard errors and the model confidence set seem to disagree."""
    table, best = study.comparison.table, study.comparison.best
    kept, dropped = [], []
    for name in table.index:
        gap, error = -float(table["difference"][name]), float(table["se"][name])
        inside = table["confidence_set"][name]
        if name == best or inside is None or not error > 0:
            continue
        if inside and gap > _SURE * error:
            kept.append(str(name))
        elif not inside and gap <= _SURE * error:
            dropped.append(str(name))
    if not kept and not dropped:
        return ""
    text = 'The column "among the best" asks another question, of all models at once: which of them hold the best one '
    text += "with 90 % probability? "
    if kept:
        text += f"The largest of many gaps is wide by chance, so it keeps {_listed(kept)}"
    if dropped:
        text += "; nine" if kept else "Nine"
        text += f" in ten is less than two standard errors ask for, so it leaves {_listed(dropped)} out"
    return f"{text}."


def _apart(study: Study) -> str:
    comparison = study.comparison
    apart = [str(name) for name in comparison.table.index if math.isnan(float(comparison.table["nats"][name]))]
    if not apart:
        return ""
    several = len(apart) > 1
    return (
        f"{_listed(apart)} {'are' if several else 'is'} left out of this ranking: {'their' if several else 'its'} log "
        f"score is not a {comparison.measure}, so only CRPS and calibration can be compared."
    )


def _baselines(study: Study) -> str:
    table = study.comparison.table["nats"].dropna()
    floor = {name: table[name] for name in _BASELINES if name in table.index}
    if not floor or len(floor) == len(table):
        return ""
    best = max(floor, key=lambda name: floor[name])
    losers = [str(name) for name in table.index if name not in floor and table[name] <= floor[best]]
    if not losers:
        others = [str(name) for name in table.index if name not in floor]
        return (
            f"{_listed(others)} {'beats' if len(others) == 1 else 'beat'} the best baseline, {best} ({MODELS[best]})."
        )
    return f"{_listed(losers)} {'does' if len(losers) == 1 else 'do'} not beat the baseline {best} ({MODELS[best]})."


def _moments(study: Study) -> str:
    comparison = study.comparison
    ranked = [str(n) for n in comparison.table.index if not math.isnan(comparison.table.loc[n, "nats"])]
    if len(ranked) < 2:
        return ""
    scores = comparison.log_prob_steps
    gap = (scores.sel(model=ranked[0]) - scores.sel(model=ranked[1])).dropna("time")
    total, values = float(gap.sum()), np.sort(gap.values)[::-1]
    if total <= 0:
        return ""
    wins = int((gap > 0).sum())
    needed = int(np.searchsorted(np.cumsum(values), total / 2) + 1)
    biggest = gap.isel(time=int(gap.argmax("time")))
    text = f"{ranked[0]} is ahead of {ranked[1]} at {wins} of {gap.size} steps"
    if needed <= max(1, gap.size // 6):
        text += f"; {needed} of them {'is' if needed == 1 else 'are'} worth half of its whole lead"
    return text + f". The largest single gain, {float(biggest):.1f} nats, is at {when(biggest['time'].values)}."


def _forecasts(study: Study) -> str:
    scores = {name: study.crps(name) for name in study.forecasts}
    order = sorted(scores, key=lambda name: scores[name])
    unit = f" {study.source.unit}" if study.source.unit else ""
    text = f"Forecasting all {study.horizon} steps at once from the end of the training data, {order[0]} comes closest"
    text += f" (mean CRPS {scores[order[0]]:.3g}{unit}"
    if len(order) > 1:
        text += f"; next {order[1]} with {scores[order[1]]:.3g}"
    if len(order) > 2:
        text += f"; last {order[-1]} with {scores[order[-1]]:.3g}"
    text += ")."
    if len(order) > 1 and order[0] != study.comparison.best:
        text += " That is another ranking than one step ahead: a good next step and a good far view are two skills."
    return text


def _calibration(study: Study) -> list[str]:
    table, n = study.comparison.table, study.comparison.n_values
    honest, out = [], []
    for name in table.index:
        covered, p = float(table.loc[name, "cover90"]), float(table.loc[name, "pit_p"])
        if math.isnan(covered):
            continue
        hits = round(covered * n)
        low, high = stats.binom.ppf([0.025, 0.975], n, 0.9)
        counted = f"its 90 % intervals held {hits} of {n} values"
        if hits < low:
            out.append(f"{name} is too sure of itself: {counted}.")
        elif hits > high:
            out.append(f"{name} is too cautious: {counted}.")
        elif p < 0.05:
            out.append(f"{name} leans: {counted}, but its PIT values are not uniform (p = {p:.2g}).")
        else:
            honest.append(f"{name} ({100 * covered:.0f} %)")
    if honest:
        text = f"The 90 % intervals of {_listed(honest)} held as many values as chance allows, with PIT values that"
        out.insert(0, f"{text} pass for uniform: well calibrated, as far as {n} values can tell.")
    return out


def _draws(study: Study) -> str:
    table = study.comparison.table
    parts = []
    for name in table.index:
        if math.isnan(table.loc[name, "draws"]):
            continue
        n = study.models[str(name)].model_.n_draws
        moved = float(table.loc[name, "nats"] - table.loc[name, "frozen"])
        parts.append(
            f"{name} averages over {n} draws of its weights; after the held-out values {table.loc[name, 'draws']:.1f} "
            f"of them still count, and letting the data reweigh them changed its score by {moved:+.3f} nats per value."
        )
    return " ".join(parts)


def _care(study: Study) -> str:
    n = study.comparison.n_values
    if n >= 50 or len(study.models) < 2:
        return ""
    return (
        f"Take the standard errors with care: they rest on {n} values (below 50 they are unreliable), and the winner "
        "was chosen on the same values, which flatters its lead."
    )


def state_table(study: Study) -> pd.DataFrame | None:
    """One row a decoded state: share of the time, mean stay in steps, typical value, typical step."""
    if study.states is None:
        return None
    series, labels = study.source.series.values, study.states.values
    relative = study.profile.positive
    steps = np.concatenate([[np.nan], np.diff(np.log(series) if relative else series)])
    rows = {}
    for state in range(int(labels.max()) + 1):
        inside = labels == state
        if not inside.any():
            continue
        runs = int((np.diff(np.concatenate([[0], inside.astype(int)])) == 1).sum())
        own, moves = series[inside & ~np.isnan(series)], steps[inside & ~np.isnan(steps)]
        step = float(np.median(moves)) if len(moves) else math.nan
        rows[f"state {state}"] = {
            "share of the time": f"{100 * inside.sum() / (labels >= 0).sum():.0f} %",
            "mean stay, steps": f"{inside.sum() / runs:.1f}",
            "median value": f"{np.median(own):.4g}" if len(own) else "",
            "median step": ""
            if math.isnan(step)
            else f"{100 * math.expm1(step):+.1f} %"
            if relative
            else f"{step:+.3g}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
