"""What each family of models is: its name in words, its equation, and what the equation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from probseq.estimators.arma import ARMA
from probseq.estimators.auto_arma import AutoARMA
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.baseline import IID, RandomWalk, SeasonalNaive
from probseq.estimators.hmm import HMM
from probseq.estimators.hsmm import HSMM
from probseq.estimators.recurrent import GRU, LSTM, RNN
from probseq.estimators.structural import LocalLevel, LocalTrend
from probseq.inference.optimize import MLE
from probseq.models.transforms import Difference, Log

__all__ = ["Family", "family_of", "is_baseline", "transformed", "transforms_of"]


class Family(NamedTuple):
    """A model as a reader should know it."""

    words: str
    """what kind of model it is"""
    equations: tuple[str, ...]
    """lines for ``mathml``; x_t is the value that the model sees, after the transforms"""
    meaning: str
    """the equations in a few plain sentences"""


def family_of(model: SequenceEstimator) -> Family:
    """The family of a model as it was set up."""
    for kind, describe in _FAMILIES:
        if isinstance(model, kind):
            return describe(model)
    return Family(type(model).__name__, ("x_t ∼ p(x_t | x_1, …, x_{t−1})",), "Each value has a law given those before.")


def is_baseline(model: SequenceEstimator) -> bool:
    """Whether a model is a simple rule that others should beat."""
    return isinstance(model, IID | RandomWalk | SeasonalNaive)


def transforms_of(model: SequenceEstimator) -> list[Any]:
    """The transforms in the order in which the data go through them."""
    found = model.get_params(deep=False)["transform"]
    return [] if found is None else list(found) if isinstance(found, list | tuple) else [found]


def transformed(model: SequenceEstimator) -> str:
    """How the x_t of the equations comes from the data y_t; empty where it is the data."""
    value: Callable[[int], str] = _lagged
    for transform in transforms_of(model):
        value = _after(transform, value)
    line = value(0)
    return "" if line == "y_t" else f"x_t = {line}"


def _lagged(k: int) -> str:
    return f"y_{{t−{k}}}" if k else "y_t"


def _after(transform: Any, inner: Callable[[int], str]) -> Callable[[int], str]:
    """What a transform makes of an expression of the value k steps before."""
    if isinstance(transform, Log):
        return lambda k: f"log {inner(k)}"
    if isinstance(transform, Difference):
        lag = int(transform.lag)
        if " − " in inner(0):
            return lambda k: f"({inner(k)}) − ({inner(k + lag)})"
        return lambda k: f"{inner(k)} − {inner(k + lag)}"
    return lambda k: f"{type(transform).__name__}({inner(k)})"


def _hmm(model: Any) -> Family:
    emission = model.emission
    law = "Normal(μ_i, σ_i^2)" if emission is None else _law(emission, "_i")
    return Family(
        "hidden Markov model" if not isinstance(model, HSMM) else "hidden semi-Markov model",
        ("P(z_t = j | z_{t−1} = i) = A_{ij}", f"x_t | z_t = i ∼ {law}"),
        f"The series is always in one of {model.n_states} states that nobody sees. Each has its own law of values, and "
        "from step to step the state changes with fixed probabilities. The forecast weighs the states by what the past "
        "says about them." + (" How long a state lasts has a law of its own." if isinstance(model, HSMM) else ""),
    )


def _law(emission: Any, index: str = "") -> str:
    name = type(emission).__name__
    if name == "Normal":
        return f"Normal(μ{index}, σ{index}^2)"
    return f"Poisson(λ{index})" if name == "Poisson" else f"{name}(θ{index})"


def _arma(model: Any) -> Family:
    chosen = isinstance(model, AutoARMA)
    p, d, q = _orders(model.order_ if chosen else model.order)
    season = model.seasonal_order_ if chosen else model.seasonal_order
    left, right, delta = "φ(B) " * bool(p), "θ(B) " * bool(q), _power("(1 − B)", d)
    legend = ["B moves one step back"] * bool(p or d or q)
    if season and any(_orders(season[:3])):
        big_p, big_d, big_q = _orders(season[:3])
        s = season[3] if len(season) > 3 else model.period
        left += f"Φ(B^{{{s}}}) " * bool(big_p)
        right += f"Θ(B^{{{s}}}) " * bool(big_q)
        delta += _power(f"(1 − B^{{{s}}})", big_d)
        d += big_d
        p, q = p or big_p, q or big_q
        legend.append(f"its power {s} moves one season of {s} steps back")
    legend += ["φ (ar) weighs earlier values" * bool(p), "θ (ma) weighs earlier surprises" * bool(q)]
    said = "; ".join(filter(None, legend))
    law = "e_t ∼ Normal(0, σ^2)" if chosen or model.innovations == "normal" else f"e_t ∼ {model.innovations}(0, σ)"
    return Family(
        "ARMA model",
        (f"{left}{delta}{'x_t' if d else '(x_t − μ)'} = {right}e_t", law),
        f"The next value is a weighted sum of earlier values and of earlier surprises e, plus a new one. {said}.",
    )


def _power(factor: str, n: int) -> str:
    return "" if not n else f"{factor} " if n == 1 else f"{factor}^{n} "


def _orders(order: Any) -> tuple[int, int, int]:
    """(p, d, q) as numbers; of lists of lags the highest."""
    parts = [max(part, default=0) if isinstance(part, list | tuple) else int(part) for part in order]
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else (parts[0], 0, parts[1])


def _network(model: Any) -> Family:
    cell = {LSTM: "LSTM", GRU: "GRU"}.get(type(model), "cell")
    bayesian = model.inference is not None and not isinstance(model.inference, MLE)
    kind = "recurrent network" if cell == "cell" else cell if bayesian else f"{cell} network"
    steps = " and ".join(str(lag) for lag in model.lags)
    seen = "the value before" if steps == "1" else f"the values {steps} steps before"
    inputs = ", ".join(f"x_{{t−{lag}}}" for lag in model.lags)
    head = "Normal(μ_t, σ_t^2)" if model.head is None else _law(model.head, "_t")
    return Family(
        f"Bayesian {kind}" if bayesian else kind,
        (f"h_t = {cell}(h_{{t−1}}, {inputs})", f"x_t ∼ {head}"),
        f"A network of {model.hidden_size} cells reads {seen} and keeps a memory h, from which it computes the law "
        "of the "
        "next value."
        + (" Its weights are a distribution, not one best guess, and the forecast averages over it." * bayesian),
    )


def _iid(model: Any) -> Family:
    law = "Normal(μ, σ^2)" if model.emission is None else _law(model.emission)
    return Family("independent values", (f"x_t ∼ {law}",), "Every value has the same law, whatever came before.")


def _walk(model: Any) -> Family:
    drift = " + δ" if model.drift else ""
    meaning = "The next value is the last one" + (" plus a fixed drift δ" if model.drift else "") + ", give or take e."
    return Family("random walk", (f"x_t = x_{{t−1}}{drift} + e_t", "e_t ∼ Normal(0, σ^2)"), meaning)


def _seasonal(model: Any) -> Family:
    drift = " + δ" if model.drift else ""
    meaning = f"The next value is the one {model.period} steps before" + (
        " plus a fixed drift δ" if model.drift else ""
    )
    equations = (f"x_t = x_{{t−{model.period}}}{drift} + e_t", "e_t ∼ Normal(0, σ^2)")
    return Family("seasonal naive", equations, f"{meaning}, give or take e.")


def _level(model: Any) -> Family:
    slope = isinstance(model, LocalTrend)
    return Family(
        "local trend" if slope else "local level",
        (
            "x_t = μ_t + e_t",
            f"μ_t = μ_{{t−1}}{' + β_{t−1}' if slope else ''} + η_t",
            *(["β_t = β_{t−1} + ζ_t"] * slope),
        ),
        "A level that nobody sees wanders, and values scatter around it." + (" So does its slope." if slope else ""),
    )


_FAMILIES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Family]], ...] = (
    ((HMM, HSMM), _hmm),
    (ARMA, _arma),
    ((LSTM, GRU, RNN), _network),
    (IID, _iid),
    (RandomWalk, _walk),
    (SeasonalNaive, _seasonal),
    ((LocalLevel, LocalTrend), _level),
)
