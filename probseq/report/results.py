"""The parts of the page that show who predicts best: ranking, forecasts, states, the lead in time, calibration."""

from __future__ import annotations

from html import escape

import numpy as np

from probseq.estimators.hmm import HMM
from probseq.report import figures, vector
from probseq.report.checks import coverage_table, p_text, residual_check, residual_table
from probseq.report.findings import findings, state_table
from probseq.report.markup import both_widths, card, figure, listing, paragraphs, table, whole
from probseq.report.study import Study

__all__ = ["calibration", "errors", "fans", "found", "lead", "ranking", "states"]


def found(study: Study) -> str:
    """The findings as a list."""
    return f"<ol class=findings>{''.join(f'<li>{whole(text)}</li>' for text in findings(study))}</ol>"


def ranking(study: Study) -> str:
    """The table, how sure it is, and the forecasts of all steps."""
    comparison = study.comparison
    pictures = ""
    height = 0.9 + 0.36 * len(study.models)
    behind = int(np.isfinite(comparison.table["difference"]).sum())
    if behind > 1:
        gaps = ", ".join(
            f"{name} {comparison.table['difference'][name]:.2f}"
            for name in study.ranked
            if np.isfinite(comparison.table["difference"][name])
        )
        picture = vector.svg(
            lambda ax: figures.intervals(study, ax),
            height=0.9 + 0.36 * behind,
            key="gap",
            label=f"Log score less that of the best, in nats per {comparison.per}, with 95 % intervals: {gaps}",
        )
        pictures = card(
            picture, "One step ahead", "behind the best; thick: ± 1 standard error, thin: 95 % interval (t law)"
        )
    scores = ", ".join(f"{name} {study.crps(name):.3g}" for name in study.ranked)
    far = vector.svg(
        lambda ax: figures.crps_bars(study, ax),
        height=height,
        key="crps",
        label=f"Mean CRPS of the forecasts of all held-out steps: {scores}",
    )
    pictures += card(far, f"All {study.horizon} steps at once", "mean CRPS of the forecast, lower is better")
    shown = comparison.display_table()
    return (
        f"{table(shown, 'model', 'Ranking of the models', 'ranked')}"
        f"{paragraphs(f'{comparison.caption} Each value is predicted from everything before it.', _plus_minus(study))}"
        f"{listing(comparison.notes, 'note')}<div class=grid>{pictures}</div>"
    )


def _plus_minus(study: Study) -> str:
    if len(study.comparison.comparable) < 2:
        return ""
    return (
        "± s.e. is the standard error of the difference to the best, not of the score itself: both models are scored "
        "on "
        "the same values, so what makes a value hard for all of them cancels. Neighbouring steps may depend on each "
        "other; "
        "the error allows for that (Newey and West 1987, with a t law for few values)."
    )


def fans(study: Study) -> str:
    """A fan chart for every model."""
    span = figures.limits(study)
    cards = []
    for i, name in enumerate(study.ranked):
        picture = vector.svg(
            lambda ax, name=name: figures.fan(study, name, span, ax),  # type: ignore[misc]
            key=f"fan{i}",
            label=f"Fan chart: {name} forecasts the {study.horizon} held-out steps, beside what came",
        )
        cards.append(card(picture, name, f"CRPS {study.crps(name):.4g}; {study.forecasts[name].method}"))
    return (
        f"<p>Every model forecasts all {study.horizon} held-out steps at once, knowing the training data only. Shades "
        "hold half and nine tenths of the probability; circles are what came. All charts have the same axes.</p>"
        f"<div class=grid>{''.join(cards)}</div>"
    )


def states(study: Study) -> str:
    """The decoded states of the first hidden Markov model."""
    rows = state_table(study)
    if rows is None or study.states is None:
        return ""
    shown = min(study.states.size, figures.LONGEST_STATES)
    span = "the whole series" if shown == study.states.size else f"the last {shown} of {study.states.size} steps"
    pictures = both_widths(
        lambda ax: figures.states(study, ax),
        "states",
        f"The series over the {len(rows)} decoded states of the hidden Markov model, and their probabilities",
        (4.0, 3.8),
    )
    name = next(name for name, model in study.models.items() if isinstance(model, HMM))
    return (
        f"<p>The most probable path of the states of <b>{escape(name)}</b> over {span}, and below it the "
        "probability of each state given all the data. The dotted line is where the held-out values begin. States are "
        "what makes the model fit: whether they mean something is for those to say who know the data.</p>"
        f"{figure(pictures)}{table(rows, 'state', 'Decoded states')}"
    )


def lead(study: Study) -> str:
    """Who wins when."""
    if len(study.comparison.comparable) < 2:
        return ""
    picture = both_widths(
        lambda ax: figures.lead(study, ax), "lead", "Running sum of the log-score differences to the best model"
    )
    return (
        f"<p>The running sum of log-score differences to <b>{escape(study.comparison.best)}</b>, in nats. Where a line "
        "falls, that model loses; a single deep step is one value that it thought next to impossible.</p>"
        f"{figure(picture)}"
    )


def calibration(study: Study) -> str:
    """Coverage by level, and the histograms of PIT values."""
    rows = coverage_table(study)
    if rows is None:
        return ""
    curve = vector.svg(
        lambda ax: figures.coverage(study, ax),
        height=2.9,
        key="coverage",
        label="Share of the values inside central intervals, by the probability of the interval, one line a model",
    )
    cards = [card(curve, "Coverage by level", "on the diagonal if calibrated; grey: 95 % of what chance does")]
    for i, name in enumerate(study.ranked):
        if not study.comparison.pit(name).size:
            continue
        p = float(study.comparison.table["pit_p"][name])
        picture = vector.svg(
            lambda ax, name=name: figures.pit(study, name, ax),  # type: ignore[misc]
            height=2.6,
            key=f"pit{i}",
            label=f"Histogram of the PIT values of {name}; p of uniformity {p_text(p)}",
        )
        cards.append(card(picture, name, f"p of uniformity {p_text(p)}"))
    return (
        "<p>Do intervals hold as many values as they promise? Likely true shares are 95 % intervals (Wilson 1927) "
        "as if "
        f"values were independent.{_whole_numbers(study)}</p>{table(rows, 'model', 'Coverage of intervals')}"
        "<p>Histograms show where each held-out value fell in its prediction (0: below everything expected, 1: above). "
        "Calibrated predictions give equal bars, up to chance: each bar is inside the band with 95 % probability. A "
        "U is "
        f"too sure of itself, a hump too cautious, a slope biased.</p><div class=grid>{''.join(cards)}</div>"
    )


def _whole_numbers(study: Study) -> str:
    """That intervals of counts hold too much by their nature."""
    if not any(study.counts(name) for name in study.ranked):
        return ""
    return " Intervals of whole numbers hold more than they promise, as no narrower ones exist; PIT values are right."


def errors(study: Study) -> str:
    """Residuals of the one-step predictions, their autocorrelation and their law."""
    rows = residual_table(study)
    if rows is None:
        return ""
    cards = []
    for i, name in enumerate(study.ranked):
        check = residual_check(study, name)
        if check is None:
            continue
        picture = vector.svg(
            lambda axes, name=name: figures.residuals(study, name, axes),  # type: ignore[misc]
            height=2.3,
            columns=2,
            key=f"residual{i}",
            label=f"Residuals of {name}: autocorrelations, and quantiles against the normal law. {check.verdict}",
        )
        cards.append(card(picture, name))
    return (
        "<p>Residuals are the held-out values on the scale of their own predictions: 0 in the middle of what was "
        "expected, "
        "beyond ±2 about once in twenty. If a model is right they are independent (autocorrelations, left, inside the "
        "grey band for nineteen in twenty) and normal (dots, right, on the diagonal; grey holds each with 95 % "
        "probability). A failed check says that a better model may exist, not which.</p>"
        f"{table(rows, 'model', 'Residual checks', 'worded')}<div class=grid>{''.join(cards)}</div>"
        f"{paragraphs(_tests(study), kind='note')}"
    )


def _tests(study: Study) -> str:
    several = f"With {len(study.models)} models some p below 0.05 come by chance. " if len(study.models) > 2 else ""
    return (
        f"{several}Ljung-Box asks whether the first autocorrelations are zero (Ljung and Box 1978), Berkowitz "
        "whether the "
        "residuals are independent with mean 0 and spread 1 (Berkowitz 2001). Few values find only gross errors."
    )
