"""The words of the page, for readers who are not statisticians."""

from __future__ import annotations

from html import escape

__all__ = ["glossary"]

_WORDS = {
    "Held-out values": "The end of the series. No model saw it when it was fitted, so it shows how well each one "
    "predicts.",
    "One step ahead": "Each held-out value is predicted from everything before it, earlier held-out values included. "
    "The parameters stay those of the fit.",
    "Nats, log score": "The logarithm of the probability (or of its density) that a model gave to the value that came. "
    "Higher is better. A lead of 0.1 nats per value means a probability 1.11 times as high for each value, on "
    "geometric "
    "average; a lead of 1 nat means 2.72 times. Densities depend on the unit of the data, differences do not.",
    "Difference, ± s.e.": "How far a model is behind the best, and the standard error of that: how much this mean "
    "would "
    "vary by chance if the series went on in the same way. Neighbouring steps may resemble each other; the "
    "standard error allows for it.",
    "95 % interval": "A range made so that nineteen in twenty such ranges hold the true value. If it holds zero, the "
    "two "
    "models may be equally good.",
    "Among the best": "Yes for the models that together hold the best one with 90 % probability (model confidence set; "
    "Hansen, Lunde and Nason 2011, Econometrica 79).",
    "CRPS": "The continuous ranked probability score: the distance between a forecast and what came, in the unit of "
    "the "
    "data. Lower is better. For a forecast of one number without uncertainty it is the absolute error.",
    "90 % interval, coverage": "A range that should hold the value nine times in ten. Coverage is how often it did. "
    "Below "
    "90 % the model is too sure of itself, above it is too cautious; a few values can miss by chance.",
    "PIT": "The probability integral transform: the probability that the model gave to values below the one that "
    "came. If "
    "the model is right, all numbers between 0 and 1 are equally likely, and PIT p is rarely small.",
    "p": "How often chance alone would give something at least as unusual if the model were right. Below 0.05 is a "
    "sign of "
    "trouble, not a proof; among many tests some are small by chance.",
    "Residual": "The PIT value put on the scale of the normal law: 0 is a value in the middle of what was expected, "
    "beyond "
    "±2 is one that should come about once in twenty.",
    "Autocorrelation": "How far values a number of steps apart resemble each other, from -1 to 1. Residuals should "
    "have none.",
    "Weight": "The share that each model would have in the best mixture of them all (stacking; Yao and others 2018), "
    "learnt on the first half of the held-out values.",
    "Draws": "Several versions of one model's parameters, all plausible given the data. Forecasts average over them; "
    "data "
    "that come later weigh them anew, and those in effect say how many still count.",
    "Hidden state": "A condition of the series that nobody observes, such as calm or turbulent. Its numbers have no "
    "order.",
    "Fan chart": "The forecast as bands: half of the probability lies in the dark one, nine tenths in both.",
}
_ONLY_IF = {"Draws": "draws in effect", "Hidden state": "id=hidden-states", "Weight": "weight"}


def glossary(page: str) -> str:
    """A list of definitions of the words that stand in the page."""
    shown = {word: text for word, text in _WORDS.items() if _ONLY_IF.get(word, "") in page}
    items = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in shown.items())
    return f"<dl class=words>{items}</dl>"
