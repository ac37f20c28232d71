"""Objects that are their arguments: equal where the arguments are, by value."""

import numpy as np
import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Dirichlet,
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

import probseq as ps
from probseq._types import number_in
from probseq.errors import ParameterError

NAN = float("nan")
ARGUMENTS = {
    "scalar law": (lambda v: {"rate": Gamma(torch.tensor(v), torch.tensor(1.0))}, 2.0, 3.0),
    "law of a row": (lambda v: {"transition": Dirichlet(torch.tensor([v, 1.0]))}, 2.0, 3.0),
    "transformed": (lambda v: {"scale": LogNormal(torch.tensor(v), torch.tensor(1.0))}, 0.0, 1.0),
    "shifted": (
        lambda v: {"scale": TransformedDistribution(LogNormal(0.0, 1.0), AffineTransform(torch.tensor(v), 1.0))},
        0.0,
        1.0,
    ),
    "made of another": (lambda v: {"mean": Independent(Normal(torch.tensor([v, 0.0]), 1.0), 1)}, 0.0, 1.0),
    "long": (lambda v: {"mean": Normal(torch.arange(2000.0) + v * (torch.arange(2000) == 1000), 1.0)}, 0.0, 1.0),
    "matrix": (lambda v: {"mean": MultivariateNormal(torch.zeros(2), v * torch.eye(2))}, 1.0, 2.0),
    "array": (lambda v: {"rate": np.array([v, NAN])}, 0.1, 0.1 + 1e-12),
    "list": (lambda v: {"rate": [[v, NAN], "x"]}, 0.25, 0.5),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_equality_looks_at_values(name):
    make, one, other = ARGUMENTS[name]
    first, again, different = (ps.MAP(make(value)) for value in (one, one, other))
    assert first == again and hash(first) == hash(again)
    assert first != different


def test_equality_of_nested_configurations_and_numbers():
    assert ps.Tied(ps.Poisson(), states=[0, 1]) == ps.Tied(ps.Poisson(), states=[0, 1])
    assert ps.Tied(ps.Poisson(), states=[0, 1]) != ps.Tied(ps.Normal(), states=[0, 1])
    assert ps.OnlineEM(kappa=1) == ps.OnlineEM(kappa=1.0)
    assert hash(ps.OnlineEM(kappa=1)) == hash(ps.OnlineEM(kappa=1.0))
    assert ps.OnlineEM(window=1) != ps.OnlineEM(window=True)
    assert ps.EM() != ps.MLE() and ps.EM() != "EM()"
    assert len({ps.EM(tol=1e-3), ps.EM(tol=1e-3), ps.EM(tol=1e-4)}) == 2


def test_a_law_that_was_used_equals_a_new_one():
    law, new = (MultivariateNormal(torch.zeros(2), torch.eye(2)) for _ in range(2))
    assert law.precision_matrix.shape == (2, 2)  # kept in the law from here on
    assert ps.MAP({"mean": law}) == ps.MAP({"mean": new})


@pytest.mark.parametrize(
    "interval, inside, outside",
    [
        ("(0, 1)", [1e-300, 0.5, np.float32(0.5)], [0, 1, 1.0]),
        ("[0, 1)", [0, 0.0, np.int64(0)], [1, -1e-300]),
        ("(0, 1]", [1, 1.0], [0, 1 + 1e-15]),
        ("[1, inf)", [1, 1e300, 2**1000], [0.999, np.inf, 10**400]),
        ("(0, inf)", [5e-324], [0, -np.inf]),
    ],
)
def test_numbers_in_intervals(interval, inside, outside):
    for value in inside:
        assert number_in("rate", value, interval) == value
    for value in [*outside, np.nan, True, np.True_, "0.5", None, 0.5j, [0.5], np.array([0.5])]:
        with pytest.raises(ParameterError, match="rate=") as error:
            number_in("rate", value, interval)
        assert error.value.remedy.startswith("Try rate=")


def test_remedies_obey_the_rule():
    for interval in ("(0, 1)", "[0, 1)", "(0, 1]", "(0.5, 1]", "[1, inf)", "(0, inf)"):
        with pytest.raises(ParameterError) as error:
            number_in("rate", None, interval)
        number_in("rate", float(error.value.remedy.split("=")[1].rstrip(".")), interval)
