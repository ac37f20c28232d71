import re
from xml.etree import ElementTree

import pytest

import probseq as ps
from probseq.report.families import family_of, is_baseline, transformed
from probseq.report.formula import mathml


def tree(text):
    return ElementTree.fromstring(mathml(text))


def test_scripts_are_nested_and_words_stay_whole():
    found = tree("σ_i^2 = log y_{t−12}")
    assert found.attrib["aria-label"] == "σ_i^2 = log y_t−12"
    assert [child.tag for child in found[0]] == ["msubsup", "mo", "mi", "mspace", "msub"]
    assert "".join(found.itertext()) == "σi2=logyt−12"


@pytest.mark.parametrize(
    ("model", "words", "equation"),
    [
        (ps.HMM(3), "hidden Markov model", "x_t | z_t = i ∼ Normal(μ_i, σ_i^2)"),
        (ps.HMM(3, ps.Poisson()), "hidden Markov model", "x_t | z_t = i ∼ Poisson(λ_i)"),
        (ps.HSMM(2), "hidden semi-Markov model", "x_t | z_t = i ∼ Normal(μ_i, σ_i^2)"),
        (ps.ARMA((1, 0)), "ARMA model", "φ(B) (x_t − μ) = e_t"),
        (
            ps.ARMA((0, 1, 1), (0, 1, 1, 12)),
            "ARMA model",
            "(1 − B) (1 − B^{12}) x_t = θ(B) Θ(B^{12}) e_t",
        ),
        (ps.ARMA((2, 2, 0)), "ARMA model", "φ(B) (1 − B)^2 x_t = e_t"),
        (ps.LSTM(8, lags=(1, 12), inference=ps.MeanField()), "Bayesian LSTM", "h_t = LSTM(h_{t−1}, x_{t−1}, x_{t−12})"),
        (ps.GRU(8), "GRU network", "h_t = GRU(h_{t−1}, x_{t−1})"),
        (ps.RNN(8), "recurrent network", "h_t = cell(h_{t−1}, x_{t−1})"),
        (ps.RandomWalk(drift=True), "random walk", "x_t = x_{t−1} + δ + e_t"),
        (ps.SeasonalNaive(4), "seasonal naive", "x_t = x_{t−4} + e_t"),
        (ps.IID(ps.Poisson()), "independent values", "x_t ∼ Poisson(λ)"),
        (ps.LocalLevel(), "local level", "x_t = μ_t + e_t"),
        (ps.LocalTrend(), "local trend", "μ_t = μ_{t−1} + β_{t−1} + η_t"),
        (ps.VAR(1), "VAR", "x_t ∼ p(x_t | x_1, …, x_{t−1})"),
    ],
)
def test_families_have_words_and_equations(model, words, equation):
    found = family_of(model)
    assert found.words == words and equation in found.equations
    for line in found.equations:
        written = "".join(tree(line).itertext())
        assert written == re.sub(r"[\s_^{}]", "", line)


@pytest.mark.parametrize(
    ("transform", "line"),
    [
        (None, ""),
        (ps.Log(), "x_t = log y_t"),
        ([ps.Log(), ps.Difference()], "x_t = log y_t − log y_{t−1}"),
        ([ps.Difference(12), ps.Difference()], "x_t = (y_t − y_{t−12}) − (y_{t−1} − y_{t−13})"),
        (ps.Standardize(), "x_t = Standardize(y_t)"),
    ],
)
def test_transforms_are_written_out(transform, line):
    assert transformed(ps.IID(transform=transform)) == line


def test_baselines_are_told_apart():
    assert is_baseline(ps.RandomWalk()) and is_baseline(ps.IID()) and not is_baseline(ps.ARMA())
