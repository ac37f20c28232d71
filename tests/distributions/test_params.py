"""Constraints: round trips, log-Jacobians against automatic differentiation, counts, violations."""

import math

import pytest
import torch
from numpy.testing import assert_allclose

from probseq.distributions.params import (
    Interval,
    ParamSpec,
    Positive,
    PositiveDefinite,
    Real,
    Simplex,
    flatten,
    n_free_parameters,
    read_outputs,
    take_draw,
    unconstrained_size,
    unflatten,
)
from probseq.distributions.stationary import Stationary

MASK = torch.tensor([[True, True, False], [False, True, True], [True, True, True]])
SQUARE = {
    "real": (Real(), (2, 3)),
    "positive": (Positive(), (2, 3)),
    "above one": (Positive(1.0), (4,)),
    "interval": (Interval(-2, 5), (3,)),
    "stationary": (Stationary(), (3,)),
    "invertible": (Stationary(-1), (4,)),
}
CONSTRAINTS = {
    **SQUARE,
    "scalar": (Positive(), ()),
    "simplex": (Simplex(), (2, 3)),
    "masked simplex": (Simplex(MASK), (3, 3)),
    "positive definite": (PositiveDefinite(), (2, 3, 3)),
}


def flat_for(constraint, shape, *draw):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*draw, constraint.size(shape), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("draw", [(), (4,)])
def test_round_trip(name, draw):
    constraint, shape = CONSTRAINTS[name]
    value = constraint.constrain(flat_for(constraint, shape, *draw), shape)
    assert value.shape == (*draw, *shape)
    assert constraint.violation(value) is None
    again = constraint.constrain(constraint.unconstrain(value, shape), shape)
    assert_allclose(again, value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", SQUARE)
def test_log_jacobian(name):
    constraint, shape = SQUARE[name]
    flat = flat_for(constraint, shape)
    jacobian = torch.autograd.functional.jacobian(lambda z: constraint.constrain(z, shape).reshape(-1), flat)
    assert_allclose(
        constraint.log_abs_det(flat, shape), torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-8, atol=1e-10
    )


def test_log_jacobian_of_covariances():
    constraint, shape = PositiveDefinite(), (3, 3)
    flat = flat_for(constraint, shape)
    low = torch.tril_indices(3, 3)
    jacobian = torch.autograd.functional.jacobian(lambda z: constraint.constrain(z, shape)[low[0], low[1]], flat)
    assert_allclose(constraint.log_abs_det(flat, shape), torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-8)


def test_structural_zeros_stay_exact_and_are_not_counted():
    value = Simplex(MASK).constrain(flat_for(Simplex(MASK), (3, 3)), (3, 3))
    assert bool((value[~MASK] == 0).all())
    assert Simplex(MASK).n_free((3, 3)) == 4 and Simplex().n_free((3, 3)) == 6


WRONG = {
    "real": (Real(), torch.tensor([math.inf])),
    "positive": (Positive(), torch.tensor([1.0, 0.0])),
    "interval": (Interval(0, 1), torch.tensor([1.5])),
    "negative": (Simplex(), torch.tensor([1.5, -0.5])),
    "sum": (Simplex(), torch.tensor([0.5, 0.4])),
    "zero": (Simplex(MASK), torch.full((3, 3), 1 / 3)),
    "indefinite": (PositiveDefinite(), torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
    "asymmetric": (PositiveDefinite(), torch.tensor([[1.0, 0.2], [0.0, 1.0]])),
    "unit root": (Stationary(), torch.tensor([1.0])),
}


@pytest.mark.parametrize("name", WRONG)
def test_violations_are_named(name):
    constraint, value = WRONG[name]
    assert constraint.violation(value.double())


def test_flat_view():
    specs = {
        "a": ParamSpec((2,), Real()),
        "b": ParamSpec((), Positive()),
        "c": ParamSpec((2, 3), Simplex()),
        "fixed": ParamSpec((5,), Real(), trainable=False),
    }
    assert unconstrained_size(specs) == 2 + 1 + 6
    assert n_free_parameters(specs) == 2 + 1 + 4
    flat = torch.randn(3, 9, dtype=torch.float64)
    values = unflatten(specs, flat)
    assert values["b"].shape == (3,)
    assert_allclose(
        unflatten(specs, flatten(specs, {**values, "fixed": torch.zeros(3, 5)}))["c"], values["c"], rtol=1e-10
    )
    assert take_draw(values, 1)["a"].shape == (2,)


def test_another_unit_is_a_shift_of_logarithms():
    sizes = torch.tensor([1e-15, 1e-6, 1.0, 1e6, 1e15], dtype=torch.float64)
    flat = Positive().unconstrain(sizes, (5,))
    assert_allclose(flat, sizes.log(), rtol=1e-14)
    assert_allclose(Positive().constrain(flat, (5,)), sizes, rtol=1e-13)
    root = torch.tensor([[1.3, 0.0], [-0.4, 0.2]], dtype=torch.float64)
    one = PositiveDefinite().unconstrain(root @ root.T, (2, 2))
    for unit in sizes:
        other = PositiveDefinite().unconstrain(unit**2 * root @ root.T, (2, 2))
        assert_allclose(other[[0, 2]], one[[0, 2]] + unit.log(), rtol=1e-12, atol=1e-12)
        assert_allclose(other[1], unit * one[1], rtol=1e-12)


def test_coordinates_far_out_give_allowed_values():
    for dtype in (torch.float32, torch.float64):
        flat = torch.tensor([-1e5, 1e5], dtype=dtype)
        for constraint in (Positive(), Positive(1.0)):
            value = constraint.constrain(flat, (2,))
            assert constraint.violation(value) is None
            assert bool(torch.isfinite(value**2).all()) and bool((value > constraint.low).all())


def test_raw_outputs_grow_no_faster_than_lines():
    specs = {
        "a": ParamSpec((2,), Real()),
        "b": ParamSpec((), Positive(1.0)),
        "c": ParamSpec((2, 2), PositiveDefinite()),
    }
    outputs = torch.tensor([[-3.0, 2.0, 50.0, 60.0, 1.0, 70.0]], dtype=torch.float64)
    values = read_outputs(specs, outputs)
    assert_allclose(values["a"], outputs[:, :2])
    assert_allclose(values["b"], [51.0])
    assert_allclose(values["c"], [[[3600.0, 60.0], [60.0, 4901.0]]])
    assert read_outputs({}, outputs[:, :0]) == {} and unflatten({}, outputs[:, :0]) == {}
