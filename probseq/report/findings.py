"""What a study found, in plain sentences computed from its numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from probseq.evaluation.uncertainty import MeanEstimate
from probseq.report.checks import residual_check
from probseq.report.families import is_baseline
from probseq.report.study import Study

__all__ = ["findings", "state_table", "summary", "when"]

_LEVEL = 0.95
_FEW, _RELIABLE, _SAME = 8, 50, 0.005


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
    more = [*_calibration(study), _residuals(study), _draws(study), _ended(study), _care(study)]
    return [text for text in [*parts, *more] if text]


def summary(study: Study) -> str:
    """The result in a sentence or two, which claims no more than the held-out values show."""
    best, n = study.comparison.best, study.comparison.n_values
    if len(study.models) == 1:
        return f"One model, {best} ({study.what(best)}), scored on {_values(n)}."
    clear, open_, unknown = _leads(study)
    text = f"Of {len(study.models)} models {best} ({study.what(best)}) predicts the {_values(n)} best"
    if open_:
        names = list(open_)
        return f"{text}, but its lead over {_listed(names)} may be chance."
    if unknown or not clear:
        return f"{text}; how sure that is cannot be computed for all of them."
    return f"{text}, by more than chance explains" + (f", as far as {n} values can tell." if n < _RELIABLE else ".")


def _leads(study: Study) -> tuple[dict[str, MeanEstimate], dict[str, MeanEstimate], list[str]]:
    """Models behind the best, by whether the 95 % interval of their distance leaves zero out, or is not known."""
    comparison = study.comparison
    clear: dict[str, MeanEstimate] = {}
    open_: dict[str, MeanEstimate] = {}
    unknown = []
    for name in study.ranked:
        gap = float(comparison.table["difference"][name])
        if name == comparison.best or math.isnan(gap):
            continue
        if math.isinf(gap):
            continue
        found = comparison.difference(name)
        low, high = found.interval(_LEVEL)
        if not found.standard_error > 0 or math.isnan(low):
            unknown.append(name)
        elif low <= 0 <= high:
            open_[name] = found
        else:
            clear[name] = found
    return clear, open_, unknown


def when(stamp: Any) -> str:
    """A time for people: the date without its empty clock."""
    if isinstance(stamp, np.datetime64 | pd.Timestamp):
        time = pd.Timestamp(stamp)
        return str(time.strftime("%Y-%m-%d" if time == time.normalize() else "%Y-%m-%d %H:%M"))
    return str(stamp.item() if hasattr(stamp, "item") else stamp)


def _values(n: int) -> str:
    return "held-out value" if n == 1 else f"{n} held-out values"


def _winner(study: Study) -> str:
    table, best = study.comparison.table, study.comparison.best
    n, per = study.comparison.n_values, study.comparison.per
    score = float(table["nats"][best])
    if math.isnan(score):
        return f"{best} ({study.what(best)}) predicts the {_values(n)} best by CRPS, as no model has a log score."
    text = f"{best} ({study.what(best)}) predicts the {_values(n)} best: "
    text += f"{score:.2f} nats per {per}, one step ahead."
    second = next((str(name) for name in table.index[1:] if np.isfinite(table["difference"][name])), None)
    if second is None:
        return text
    gap = -float(table["difference"][second])
    base = study.comparison.measure.base
    word = "probability" if isinstance(base, str) and base not in ("lebesgue", "none") else "probability density"
    if gap < _SAME:
        return f"{text} The runner-up, {second}, gave the values that came practically the same {word}."
    text += (
        f" On geometric average it gave the values that came {math.exp(gap):.2f} times the {word} that the "
        f"runner-up, {second}, gave them ({gap:.2f} nats per {per} ahead)"
    )
    return f"{text}; that lead may be chance." if second in _leads(study)[1] else f"{text}."


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
    clear, open_, unknown = _leads(study)
    best, parts = study.comparison.best, []
    if clear:
        parts.append(f"{best} leads {_listed([_range(*one) for one in clear.items()])} by more than chance explains")
    if open_:
        names = _listed([_range(*one) for one in open_.items()])
        why = "that interval holds zero" if len(open_) == 1 else "these intervals hold zero"
        parts.append(f"its lead over {names} may be chance, as {why}")
    if unknown:
        parts.append(f"no standard error could be computed for {_listed(unknown)}")
    if not parts:
        return ""
    text = "; ".join(parts) + "."
    if clear or open_:
        text += f" In brackets: 95 % intervals of the lead, in nats per {study.comparison.per}."
    return text if clear else text[:1].upper() + text[1:]


def _range(name: str, found: MeanEstimate) -> str:
    low, high = found.interval(_LEVEL)
    digits = 2 if high - low >= 0.1 else 4
    return f"{name} ({-high:.{digits}f} to {-low:.{digits}f})"


def _set(study: Study) -> str:
    """Where the intervals and the model confidence set seem to disagree."""
    table = study.comparison.table
    clear, open_, _ = _leads(study)
    inside = {str(name): value for name, value in table["confidence_set"].items() if value is not None}
    kept = [name for name in clear if inside.get(name, False)]
    dropped = [name for name in open_ if not inside.get(name, True)]
    if not kept and not dropped:
        return ""
    text = 'The column "among the best" asks another question, of all models at once: which of them hold the best one '
    text += "with 90 % probability? "
    if kept:
        text += f"The largest of many gaps is wide by chance, so it keeps {_listed(kept)}"
    if dropped:
        text += "; nine" if kept else "Nine"
        text += f" in ten is less than the 95 % of the intervals, so it leaves {_listed(dropped)} out"
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
    floor = {name: table[name] for name in table.index if is_baseline(study.models[str(name)])}
    if not floor or len(floor) == len(table):
        return ""
    best = max(floor, key=lambda name: floor[name])
    others = [str(name) for name in table.index if name not in floor]
    losers = [name for name in others if table[name] <= floor[best]]
    winners = [name for name in others if name not in losers]
    parts = []
    if winners:
        sure = [name for name in winners if study.comparison.difference(name, best).interval(_LEVEL)[0] > 0]
        text = (
            f"{_listed(winners)} {_verb(winners, 'score')} higher than the best baseline, {best} ({study.what(best)})"
        )
        if len(sure) == len(winners):
            text += ", by more than chance explains"
        else:
            text += f"; only {_listed(sure)} by more than chance explains" if sure else "; that may be chance"
        parts.append(f"{text}.")
    if losers:
        end = "" if winners else f", {best} ({study.what(best)})"
        parts.append(
            f"{_listed(losers)} {_verb(losers, 'do')} not score higher than "
            f"{'it' if winners else 'the best baseline'}{end}."
        )
    return " ".join(parts)


def _verb(names: list[str], verb: str) -> str:
    return verb if len(names) > 1 else {"do": "does"}.get(verb, f"{verb}s")


def _moments(study: Study) -> str:
    comparison = study.comparison
    ranked = [str(n) for n in comparison.table.index if not math.isnan(comparison.table.loc[n, "nats"])]
    if len(ranked) < 2:
        return ""
    scores = comparison.log_prob_steps
    gap = (scores.sel(model=ranked[0]) - scores.sel(model=ranked[1])).dropna("time")
    total, values = float(gap.sum()), np.sort(gap.values)[::-1]
    if total <= 0 or gap.size < _FEW:
        return ""
    wins = int((gap > 0).sum())
    needed = int(np.searchsorted(np.cumsum(values), total / 2) + 1)
    biggest = gap.isel(time=int(gap.argmax("time")))
    text = f"{ranked[0]} is ahead of {ranked[1]} at {wins} of {gap.size} steps"
    if needed <= max(1, gap.size // 6):
        text += f"; {needed} of them {'is' if needed == 1 else 'are'} worth half of its whole lead"
    return f"{text}. The largest single gain, {_short(float(biggest))} nats, is at {when(biggest['time'].values)}."


def _forecasts(study: Study) -> str:
    scores = {name: study.crps(name) for name in study.forecasts}
    order = sorted(scores, key=lambda name: scores[name])
    unit = f" {study.source.unit}" if study.source.unit else ""
    steps = "the step" if study.horizon == 1 else f"all {study.horizon} steps at once"
    text = f"Forecasting {steps} from the end of the training data, {order[0]} comes closest"
    text += f" (mean CRPS {_short(scores[order[0]])}{unit}"
    if len(order) > 1:
        text += f"; next {order[1]} with {_short(scores[order[1]])}"
    if len(order) > 2:
        text += f"; last {order[-1]} with {_short(scores[order[-1]])}"
    text += ")."
    if len(order) > 1 and order[0] != study.comparison.best:
        text += " That is another ranking than one step ahead: a good next step and a good far view are two skills."
    return text


def _short(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= value < 1e9 else f"{value:.3g}"


def _calibration(study: Study) -> list[str]:
    table, n = study.comparison.table, study.comparison.n_values
    if n < _FEW:
        return [f"Too few values ({n}) to judge calibration."] if not table["pit_p"].isna().all() else []
    honest, out = [], []
    for name in table.index:
        covered, p = float(table.loc[name, "cover90"]), float(table.loc[name, "pit_p"])
        if math.isnan(covered):
            continue
        hits = round(covered * n)
        low, high = stats.binom.ppf([0.025, 0.975], n, 0.9)
        check = residual_check(study, str(name))
        counted = f"its 90 % intervals held {hits} of {n} values"
        if hits < low:
            out.append(f"{name} is too sure of itself: {counted}.")
        elif hits > high and not study.counts(str(name)):
            out.append(f"{name} is too cautious: {counted}.")
        elif check is not None and check.faults:
            out.append(f"{name}: {counted}, and {'; '.join(check.faults)}.")
        elif p < 0.05:
            out.append(f"{name} leans: {counted}, but its PIT values are not uniform (p = {p:.2g}).")
        else:
            honest.append(f"{name} ({100 * covered:.0f} %)")
    if honest:
        text = f"The 90 % intervals of {_listed(honest)} held as many values as chance allows, with PIT values that"
        out.insert(0, f"{text} pass for uniform: well calibrated, as far as {n} values can tell.")
    return out


def _residuals(study: Study) -> str:
    """Models whose errors can be predicted from earlier ones."""
    checks = {name: residual_check(study, name) for name in study.ranked}
    tied = [name for name, check in checks.items() if check is not None and check.dependent]
    if not tied:
        return ""
    return (
        f"The one-step errors of {_listed(tied)} depend on earlier ones (Ljung-Box p below 0.05): "
        f"{'it leaves' if len(tied) == 1 else 'they leave'} something predictable in the series."
    )


def _ended(study: Study) -> str:
    bad = [name for name in study.ranked if study.models[name].status_ in ("degenerate", "decreased", "interrupted")]
    if not bad:
        return ""
    whose = "its" if len(bad) == 1 else "their"
    return f"The fit of {_listed(bad)} did not end well (see The models): read {whose} scores with care."


def _draws(study: Study) -> str:
    table = study.comparison.table
    parts = []
    for name in table.index:
        if math.isnan(table.loc[name, "draws"]):
            continue
        n = study.models[str(name)].model_.n_draws
        moved = float(table.loc[name, "nats"] - table.loc[name, "frozen"])
        parts.append(
            f"{name} averages over {n} draws of its parameters; after the held-out values "
            f"{table.loc[name, 'draws']:.1f} of them still count, and letting the data "
            f"reweigh them changed its score by {moved:+.3f} nats per value."
        )
    return " ".join(parts)


def _care(study: Study) -> str:
    n = study.comparison.n_values
    if np.nanstd(study.test.values) == 0:
        return "All held-out values are equal: which model comes closest says little about the series."
    if n >= _RELIABLE or len(study.models) < 2:
        return ""
    return (
        f"Take the standard errors with care: they rest on {n} value{'' if n == 1 else 's'} (below {_RELIABLE} they "
        "are unreliable), and the winner was chosen on the same values, which flatters its lead."
    )


def state_table(study: Study) -> pd.DataFrame | None:
    """One row a decoded state: share of the time, mean stay in steps, typical value, typical step."""
    if study.states is None:
        return None
    series, labels = study.source.series.values, study.states.values
    relative = study.profile.positive and not (series <= 0).any()
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
