import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from probseq import datasets
from probseq.distributions.emissions import Observation
from probseq.inference.profile_search import ProfileSearch
from probseq.inference.search import Search
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch
from probseq.models.concentrated import Profile

PLAIN = (0, 0, 0, 1)
CASES = [
    ("lake", (1, 0, 1), PLAIN),
    ("lake", (2, 0, 0), PLAIN),
    ("lake", (0, 1, 1), PLAIN),
    ("lake", (5, 0, 0), PLAIN),
    ("lake", (0, 2, 2), PLAIN),  # a root on the unit circle
    ("lake", (1, 2, 1), PLAIN),  # another
    ("air", (0, 1, 1), (0, 1, 1, 12)),
    ("air", (1, 1, 1), (1, 1, 1, 12)),
    ("air", (3, 0, 0), (0, 1, 1, 12)),
    ("gaps", (1, 0, 1), PLAIN),
    ("lake", ((1, 3), 0, (2,)), PLAIN),
]


def make_profile(name, order, seasonal):
    y = np.log(datasets.air_passengers().values) if name == "air" else datasets.lake_huron().values
    x = torch.tensor(np.asarray(y, dtype=float).reshape(1, -1, 1))
    seen = torch.ones(x.shape, dtype=torch.bool)
    if name == "gaps":
        seen[0, [3, 4, 50]] = False
    model = ARMAModel(Observation(1), order, seasonal, not (order[1] or seasonal[1]))
    return model.concentrated(Batch(torch.where(seen, x, 0.0), seen, torch.tensor([x.shape[1]])))


@pytest.mark.parametrize(("name", "order", "seasonal"), CASES)
def test_no_search_ends_below_that_of_scipy(name, order, seasonal):
    profile = make_profile(name, order, seasonal)
    for start in profile.starts(0, torch.Generator()):
        search = ProfileSearch(profile, 1000, 1e-12)
        search.descend(start)
        options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-7, "maxcor": 20, "maxls": 40}
        peer = minimize(profile.objective, start, jac=True, method="L-BFGS-B", options=options)
        assert search.status == "converged"
        assert profile.count * search.value <= profile.count * peer.fun + 1e-7
        assert profile.objective(search.x)[0] == pytest.approx(search.value, abs=1e-12)


def test_the_compiled_loop_is_the_one_in_python():
    profile = make_profile("air", (1, 1, 1), (0, 1, 1, 12))
    start = profile.starts(0, torch.Generator())[0]
    compiled, plain = (ProfileSearch(profile, 1000, 1e-12) for _ in range(2))
    compiled.descend(start)
    profile.descend = Profile.descend.__get__(profile)
    plain.descend(start)
    np.testing.assert_allclose(compiled.x, plain.x, atol=1e-10)
    assert compiled.n_iter == plain.n_iter and compiled.value == pytest.approx(plain.value, abs=1e-14)


def test_a_search_that_stalls_is_finished_by_scipy(monkeypatch):
    profile = make_profile("lake", (1, 0, 1), PLAIN)
    honest, calls = profile.objective, []

    def objective(x):
        # The first slopes have the wrong sign: no step along them leads down.
        calls.append(x)
        value, gradient = honest(x)
        return value, gradient if len(finished) else -gradient

    finished = []
    original = Search.descend
    monkeypatch.setattr(Search, "descend", lambda self, x: (finished.append(x), original(self, x))[1])
    monkeypatch.setattr(profile, "objective", objective)
    profile.descend = Profile.descend.__get__(profile)
    search = ProfileSearch(profile, 1000, 1e-12)
    search.descend(np.zeros(2))
    assert len(finished) == 1
    straight = ProfileSearch(make_profile("lake", (1, 0, 1), PLAIN), 1000, 1e-12)
    straight.descend(np.zeros(2))
    assert search.value == pytest.approx(straight.value, abs=1e-9)


def test_the_number_of_iterations_is_bounded_and_said():
    search = ProfileSearch(make_profile("air", (1, 1, 1), (1, 1, 1, 12)), 2, 1e-12)
    search.descend(np.zeros(4))
    assert search.status == "max_iter" and search.n_iter == 2


def test_values_along_a_search_rise():
    seen = []
    profile = make_profile("lake", (2, 0, 1), PLAIN)
    search = ProfileSearch(profile, 1000, 1e-12, lambda i, value: seen.append(value))
    search.evaluate(np.zeros(3))
    search.descend(np.zeros(3))
    assert (np.diff(search.trace) > 0).all()
    assert seen[-1] == pytest.approx(-profile.count * search.value, abs=1e-9)
    assert search.trace[-1] == pytest.approx(seen[-1], abs=1e-9)
