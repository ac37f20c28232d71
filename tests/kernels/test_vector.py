"""Elementary functions of the kernels, and how kernels compile and run in threads."""

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose

from probseq.kernels import compiler, threads
from probseq.kernels.vector import exp_below, exp_rows, log_dot, log_positive


def test_exp_and_log_are_accurate_to_the_last_place():
    rng = np.random.default_rng(0)
    for x in np.concatenate([-rng.uniform(0, 708, 3000), rng.uniform(-1, 1, 1000)]):
        assert abs(exp_below(x, -708.0, 0.0) / np.exp(x) - 1.0) < 4e-16
    for x in np.concatenate([10 ** rng.uniform(-300, 300, 3000), rng.uniform(0.5, 2, 1000)]):
        assert abs(log_positive(x) - np.log(x)) <= 4e-16 * max(abs(np.log(x)), 0.1)


def test_exp_keeps_what_must_be_kept():
    rows = np.array([[0.0, -800.0, -np.inf, np.nan]])
    kept = rows.copy()
    exp_rows(rows, 1, -708.0, 0.0)
    assert rows[0, :3].tolist() == [1.0, 0.0, 0.0] and np.isnan(rows[0, 3])
    exp_rows(kept, 1, -708.0, 1e-307)
    assert kept[0, :3].tolist() == [1.0, 1e-307, 0.0] and np.isnan(kept[0, 3])


def test_log_dot_has_exact_zeros():
    assert log_dot(np.array([-np.inf, 0.0]), np.array([0.0, -np.inf])) == -np.inf
    assert_allclose(log_dot(np.array([-2000.0, -2001.0]), np.zeros(2)), -2000 + np.log1p(np.exp(-1.0)), rtol=1e-15)


def _double(x):
    return 2 * x


def test_kernels_compile_without_a_cache(monkeypatch):
    original = numba.njit

    def njit(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    monkeypatch.setattr(compiler.numba, "njit", njit)
    assert compiler.kernel(_double)(21) == 42


def test_blocks_cover_the_tasks_once_and_in_order(monkeypatch):
    for count in ("1", "2", "3"):
        monkeypatch.setenv("PROBSEQ_NUM_THREADS", count)
        for n_tasks in (0, 1, 2, 7, 40):
            blocks = threads.run_blocks(lambda lo, hi: list(range(lo, hi)), n_tasks)
            assert sum(blocks, []) == list(range(n_tasks))
    nested = threads.run_blocks(lambda lo, hi: sum(threads.run_blocks(lambda a, b: b - a, 10)), 6)
    assert set(nested) == {10}
    monkeypatch.setenv("PROBSEQ_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="PROBSEQ_NUM_THREADS"):
        threads.number_of_threads()
