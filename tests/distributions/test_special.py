"""Special functions against integers of any length and the limits of the laws that use them."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT
from probseq.distributions.special import log_half_step


@pytest.mark.parametrize("n", [1, 2, 29, 30, 31, 200])
def test_half_a_step_of_the_gamma_function_by_factorials(n):
    # Gamma(n + 1/2) = (2n)! sqrt(pi) / (4^n n!).
    exact = math.log(math.factorial(2 * n) / (4**n * math.factorial(n) * math.factorial(n - 1)))
    exact += 0.5 * math.log(math.pi) - 0.5 * math.log(n)
    assert_allclose(float(log_half_step(torch.tensor(float(n), dtype=torch.float64))), exact, rtol=1e-11, atol=1e-13)


def test_slopes_go_on_across_the_switch():
    x = torch.tensor([0.4, 3.0, 29.9, 30.1, 1e5, 1e12], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_half_step(x).sum(), x)
    direct = torch.digamma(x + 0.5) - torch.digamma(x) - 0.5 / x
    assert_allclose(slope[:4], direct[:4].detach(), rtol=1e-9)
    assert_allclose(slope[4:], 1 / (8 * x.detach()[4:] ** 2), rtol=1e-9)


@pytest.mark.parametrize("df", [1e10, 1e15, 1e100])
def test_many_degrees_of_freedom_are_the_normal_law(df):
    x = torch.from_numpy(np.linspace(-4, 4, 9))[:, None]
    one = torch.ones(1, dtype=torch.float64)
    student = DiagonalStudentT(df=df * one, loc=0.3 * one, scale=2 * one)
    normal = DiagonalNormal(loc=0.3 * one, scale=2 * one)
    assert_allclose(student.log_prob(x), normal.log_prob(x), rtol=1e-8)
