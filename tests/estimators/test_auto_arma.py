"""AutoARMA: the search, the table of candidates, and forecasts averaged over orders."""

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.errors import DataError, ParameterError, UnsupportedError
from probseq.inference.orders import Candidate, SearchSpace, information_criterion


def simulate(n=400, seed=0, **arguments):
    parameters = arguments.pop("parameters")
    model = ps.ARMA(**arguments).with_parameters(**parameters)
    return model.sample(n + 50, random_state=seed).values[50:]


@pytest.fixture(scope="module")
def passengers():
    return ps.datasets.air_passengers()


@pytest.fixture(scope="module")
def airline(passengers):
    return ps.AutoARMA(period=12, transform=ps.Log()).fit(passengers)


def test_airline_model_is_found(airline, passengers):
    # Hyndman and Khandakar's algorithm finds this order for the logarithms, in R: auto.arima(log(AirPassengers)).
    assert (airline.order_, airline.seasonal_order_, airline.trend_) == ((0, 1, 1), (0, 1, 1, 12), "n")
    fixed = ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.Log()).fit(passengers)
    np.testing.assert_allclose(airline.log_likelihood_, fixed.log_likelihood_, atol=1e-7)
    for name in fixed.params_:
        np.testing.assert_allclose(airline.params_[name], fixed.params_[name], atol=1e-4)
        np.testing.assert_allclose(airline.standard_errors_[name], fixed.standard_errors_[name], rtol=1e-3)
    np.testing.assert_allclose(airline.forecast(6).mean(), fixed.forecast(6).mean(), rtol=1e-4)
    assert list(airline.summary().index) == list(fixed.summary().index)
    assert airline.roots().equals(airline.roots()) and airline.roots().sizes["ma_root"] == 13


def test_candidates_are_ranked_on_the_scale_of_the_data(airline):
    table = airline.candidates_
    best = table.iloc[0]
    np.testing.assert_allclose(best["log_likelihood"], airline.log_likelihood_, atol=1e-6)
    k, n = airline.n_parameters_, airline.n_scored_
    assert best["n_parameters"] == k
    np.testing.assert_allclose(airline.aicc, airline.aic + 2 * k * (k + 1) / (n - k - 1), rtol=1e-14)
    np.testing.assert_allclose(best["criterion"], airline.aicc, atol=1e-6)
    assert table["criterion"].is_monotonic_increasing
    assert set(table["d"]) == set(table["D"]) == {1}
    np.testing.assert_allclose(table["weight"].sum(), 1.0, rtol=1e-12)
    ratio = np.exp(-0.5 * (table["criterion"][1] - table["criterion"][0]))
    np.testing.assert_allclose(table["weight"][1] / table["weight"][0], ratio, rtol=1e-10)


@pytest.mark.parametrize(
    ("order", "parameters"),
    [
        ((2, 0), {"ar": [0.5, -0.6], "mean": 3.0, "scale": 1.0}),
        ((0, 1), {"ma": [0.8], "mean": -1.0, "scale": 2.0}),
        ((1, 1), {"ar": [0.7], "ma": [0.5], "mean": 0.5, "scale": 1.0}),
    ],
)
def test_orders_of_simulated_series_are_found(order, parameters):
    model = ps.AutoARMA(criterion="bic").fit(simulate(800, order=order, parameters=parameters))
    assert model.order_ == (order[0], 0, order[1])
    assert model.trend_ == "c"


def test_seasonal_orders_of_a_simulated_series_are_found():
    parameters = {"ar": [0.6], "seasonal_ar": [0.5], "mean": 0.0, "scale": 1.0}
    y = simulate(600, order=(1, 0), seasonal_order=(1, 0, 0, 4), parameters=parameters)
    model = ps.AutoARMA(period=4, criterion="bic", max_D=0).fit(y)
    assert (model.order_, model.seasonal_order_) == ((1, 0, 0), (1, 0, 0, 4))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exhaustive_search_is_never_worse(seed):
    y = np.cumsum(np.random.default_rng(seed).normal(size=70)) + np.tile([0, 3, 1, -2], 18)[:70]
    options = {"period": 4, "max_p": 2, "max_q": 2, "max_P": 1, "max_Q": 1}
    quick, whole = (ps.AutoARMA(search=search, **options).fit(y) for search in ("stepwise", "exhaustive"))
    assert whole.candidates_["criterion"][0] <= quick.candidates_["criterion"][0]
    trends = 2 if whole.order_[1] + whole.seasonal_order_[1] < 2 else 1
    assert len(whole.candidates_) == 3 * 3 * 2 * 2 * trends > len(quick.candidates_)


@pytest.mark.filterwarnings("ignore:The .* root:probseq.errors.DegenerateWarning")  # of neighbours that are too large
def test_no_neighbour_of_the_best_is_better():
    y = simulate(200, order=(2, 1), parameters={"ar": [0.5, 0.2], "ma": [0.4], "mean": 0.0, "scale": 1.0})
    model = ps.AutoARMA(d=0).fit(y)
    p, _, q = model.order_
    best = model.candidates_["criterion"][0]
    for other in {(p + 1, q), (p, q + 1), (max(p - 1, 0), q), (p, max(q - 1, 0))} - {(p, q)}:
        assert ps.ARMA(order=other).fit(y).aicc >= best - 1e-6


def test_averaged_forecast_is_the_mixture_made_by_hand():
    y = simulate(80, order=(1, 1), parameters={"ar": [0.6], "ma": [0.3], "mean": 10.0, "scale": 1.0})
    model = ps.AutoARMA(d=0, average=3, transform=ps.Log()).fit(np.abs(y) + 1.0)
    table = model.candidates_
    assert (table["weight"][:3] > 0).all() and not table["weight"][3:].any()
    np.testing.assert_allclose(table["weight"].sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(model.params_["weights"], table["weight"][:3], rtol=1e-12)
    parts = [
        ps.ARMA(order=(row.p, row.d, row.q), trend=row.trend, transform=ps.Log()).fit(np.abs(y) + 1.0)
        for row in table[:3].itertuples()
    ]
    weights = table["weight"][:3].to_numpy()
    got, each = model.forecast(5), [part.forecast(5) for part in parts]
    mean = sum(w * f.mean() for w, f in zip(weights, each))
    np.testing.assert_allclose(got.mean(), mean, rtol=1e-5)
    second = sum(w * (f.var() + f.mean() ** 2) for w, f in zip(weights, each))
    np.testing.assert_allclose(got.var(), second - mean**2, rtol=1e-4)
    np.testing.assert_allclose(got.cdf(11.0), sum(w * f.cdf(11.0) for w, f in zip(weights, each)), rtol=1e-4)
    future = np.array([10.0, 11.0, 12.0, 11.0, 10.0])
    joint = np.log(sum(w * np.exp(float(f.log_prob(future, joint=True))) for w, f in zip(weights, each)))
    np.testing.assert_allclose(float(got.log_prob(future, joint=True)), joint, rtol=1e-5)


def test_training_data_do_not_move_the_weights_and_new_data_do():
    y = simulate(120, order=(1, 0), parameters={"ar": [0.8], "mean": 0.0, "scale": 1.0})
    model = ps.AutoARMA(d=0, average=True).fit(y)
    weights = model.params_["weights"].values

    def at(state):
        return state.inner.log_weights[0, 0].exp().numpy()

    np.testing.assert_allclose(at(model.training_state_), weights, rtol=1e-12)
    assert np.abs(at(model.filter(y[:60]).tree) - weights).max() > 1e-3


@pytest.mark.parametrize("average", [False, 4])
def test_a_file_keeps_the_search(tmp_path, average):
    y = simulate(60, order=(1, 0), parameters={"ar": [0.5], "mean": 0.0, "scale": 1.0})
    model = ps.AutoARMA(average=average).fit(y)
    model.save(tmp_path / "model")
    loaded = ps.load(tmp_path / "model")
    assert loaded.candidates_.equals(model.candidates_)
    assert (loaded.order_, loaded.seasonal_order_) == (model.order_, model.seasonal_order_)
    np.testing.assert_array_equal(loaded.forecast(4).quantile([0.1, 0.9]), model.forecast(4).quantile([0.1, 0.9]))


def test_average_takes_candidates_by_weight_or_number():
    y = simulate(60, order=(1, 0), parameters={"ar": [0.5], "mean": 0.0, "scale": 1.0})
    whole = ps.AutoARMA(d=0).fit(y).candidates_["weight"]
    for average, expected in (
        (2, 2),
        (0.5, int((whole >= 0.5 * whole[0]).sum())),
        (True, int((whole >= 0.01 * whole[0]).sum())),
    ):
        model = ps.AutoARMA(d=0, average=average).fit(y)
        assert int((model.candidates_["weight"] > 0).sum()) == expected > 1


def test_heldout_is_the_likelihood_of_the_last_part():
    y = simulate(100, order=(1, 0), parameters={"ar": [0.7], "mean": 5.0, "scale": 1.0})
    model = ps.AutoARMA(d=0, criterion="heldout", validation_fraction=0.25, transform=ps.Log()).fit(np.abs(y) + 1)
    best = model.candidates_.iloc[0]
    first, last = (np.abs(y) + 1)[:75], (np.abs(y) + 1)[75:]
    part = ps.ARMA(order=(best["p"], 0, best["q"]), trend=best["trend"], transform=ps.Log()).fit(first)
    np.testing.assert_allclose(best["log_likelihood"], part.log_likelihood_, atol=1e-6)
    np.testing.assert_allclose(best["criterion"], -2 * float(part.log_prob(last, history=ps.TRAINING)), atol=1e-3)
    again = ps.ARMA(order=model.order_, trend=model.trend_, transform=ps.Log()).fit(np.abs(y) + 1)
    np.testing.assert_allclose(model.log_likelihood_, again.log_likelihood_, atol=1e-6)


def test_posterior_draws_of_averaged_orders():
    y = simulate(60, order=(1, 0), parameters={"ar": [0.5], "mean": 0.0, "scale": 1.0})
    point = ps.AutoARMA(d=0, average=2).fit(y)
    drawn = ps.AutoARMA(d=0, average=2, inference=ps.Laplace(n_draws=300), random_state=0).fit(y)
    assert drawn.params_.sizes["draw"] == 300
    np.testing.assert_allclose(drawn.forecast(3).mean(), point.forecast(3).mean(), atol=0.2)
    assert (drawn.forecast(3).var() > 0.98 * point.forecast(3).var()).all()
    one = ps.AutoARMA(d=0, inference=ps.Laplace(n_draws=5), random_state=0).fit(y)
    assert one.params_.sizes["draw"] == 5 and one.order_ == point.order_


def test_gaps_covariates_and_several_sequences():
    rng = np.random.default_rng(5)
    y = np.stack(
        [simulate(120, seed=i, order=(1, 0), parameters={"ar": [0.7], "mean": 0.0, "scale": 1.0}) for i in range(3)]
    )
    u = np.cumsum(rng.normal(size=y.shape), 1)
    y = y + 2.0 * u
    y[0, 30:34] = y[2, 5] = np.nan
    model = ps.AutoARMA(max_p=2, max_q=1).fit(y[..., None], covariates=u[..., None])
    assert model.order_ == (1, 0, 0)
    np.testing.assert_allclose(model.params_["coefficients"], 2.0, atol=0.2)
    fixed = ps.ARMA(order=(1, 0), trend=model.trend_).fit(y[..., None], covariates=u[..., None])
    np.testing.assert_allclose(model.log_likelihood_, fixed.log_likelihood_, atol=1e-6)
    assert model.n_scored_ == 3 * 120 - 5
    options = {"max_p": 1, "max_q": 0, "d": 0, "trend": model.trend_}
    doubled = ps.AutoARMA(**options).fit(y[..., None], covariates=u[..., None], weights=[2, 2, 2])
    np.testing.assert_allclose(doubled.log_likelihood_, 2 * model.log_likelihood_, rtol=1e-6)


def test_waves_stand_for_a_season():
    t = np.arange(150)
    y = 5 * np.sin(2 * np.pi * t / 20.5) + simulate(
        150, order=(1, 0), parameters={"ar": [0.4], "mean": 0, "scale": 1.0}
    )
    model = ps.AutoARMA(fourier={20.5: 1}).fit(y)
    assert model.order_ == (1, 0, 0)
    assert model.params_["fourier"].shape == (2,)


@pytest.mark.parametrize("n", [4, 6, 9])
def test_short_series_get_small_orders(n):
    y = np.random.default_rng(n).normal(size=n)
    model = ps.AutoARMA(period=4).fit(y)
    table = model.candidates_
    assert max(table["p"].max(), table["q"].max()) <= n // 3
    assert (table["P"] == 0).all()
    usable = table[np.isfinite(table["criterion"])]
    assert (usable["n_parameters"] < n - 1 - table["d"][0]).all()
    assert np.isfinite(model.forecast(2).std()).all()


def test_failures_of_candidates_are_told():
    model = ps.AutoARMA(d=0, max_p=2, max_q=2).fit(np.random.default_rng(1).normal(size=6))
    left_out = model.candidates_[~np.isfinite(model.candidates_["criterion"])]
    assert len(left_out) > 0
    assert set(left_out["status"]) <= {"undefined", "failed", "unit root"}
    assert (left_out["weight"] == 0).all()


@pytest.mark.parametrize("y", [np.full(30, 2.0), np.arange(30.0) * 0 + 1e9])
def test_constants_say_so(y):
    with pytest.raises(DataError, match="does not vary"):
        ps.AutoARMA().fit(y)


def test_what_covariates_explain_has_no_orders():
    u = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.warns(ps.errors.DegenerateWarning, match="explain the series but for rounding"):
        model = ps.AutoARMA().fit(10.0 + u[:, 0], covariates=u)
    assert model.order_ == (0, 0, 0) and model.forecast(1, covariates=np.ones((1, 2))).mean().item() == pytest.approx(
        11
    )
    with pytest.raises(DataError, match="does not vary"):
        ps.AutoARMA().fit(np.full(30, 2.0), covariates=u)


def test_two_values_are_too_few():
    with pytest.raises(DataError):
        ps.AutoARMA().fit([1.0, 2.0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"criterion": "AIC"},
        {"search": "greedy"},
        {"test": "pp"},
        {"max_p": -1},
        {"max_q": 1.5},
        {"period": 0},
        {"d": -1},
        {"D": 1},
        {"max_order": -1},
        {"trend": "x"},
        {"trend": True},
        {"average": -1},
        {"average": 1.5},
        {"average": "yes"},
        {"validation_fraction": 1.0},
        {"min_root": 0.9},
        {"min_root": "1.01"},
        {"fourier": 12},
    ],
)
def test_bad_arguments_raise(arguments):
    with pytest.raises(ParameterError) as error:
        ps.AutoARMA(**arguments).fit(np.random.default_rng(0).normal(size=30))
    assert next(iter(arguments)) in str(error.value)


def test_aicc_of_too_many_parameters_is_infinite():
    y = [1.0, 2.0, 0.5, 3.0]
    assert ps.ARMA(order=(1, 0)).fit(y).aicc == np.inf  # 3 parameters, 4 values


def test_parameters_without_orders_raise():
    with pytest.raises(UnsupportedError, match="ARMA"):
        ps.AutoARMA().with_parameters(scale=1.0)


def test_a_failed_fit_keeps_the_fit_before():
    y = np.random.default_rng(0).normal(size=40)
    model = ps.AutoARMA(d=0).fit(y)
    before = model.candidates_
    with pytest.raises(DataError):
        model.fit(np.full(40, 1.0))
    assert model.candidates_.equals(before)


def test_information_criteria():
    # -2 log L + 2k, + k log n, and Hurvich and Tsai's (1989) correction 2k(k + 1) / (n - k - 1).
    assert information_criterion("aic", -10.0, 3, 20) == 26.0
    np.testing.assert_allclose(information_criterion("bic", -10.0, 3, 20), 20 + 3 * np.log(20), rtol=1e-14)
    np.testing.assert_allclose(information_criterion("aicc", -10.0, 3, 20), 26 + 24 / 16, rtol=1e-14)
    assert information_criterion("aicc", -10.0, 19, 20) == np.inf


def test_neighbours_stay_inside_the_bounds():
    space = SearchSpace(1, 2, 0, 1, ("c", "n"), max_order=2)
    corner = Candidate(0, 0, 0, 0, "c")
    expected = {(1, 0, 0, 0, "c"), (0, 1, 0, 0, "c"), (1, 1, 0, 0, "c"), (0, 0, 0, 1, "c"), (0, 0, 0, 0, "n")}
    assert set(space.neighbours(corner)) == expected
    assert all(sum(one.orders) <= 2 for one in space.all())
    assert len(space.all()) == 2 * 8
    assert all(one in space for one in space.starts())


def test_threads_change_nothing(monkeypatch):
    y = np.cumsum(np.random.default_rng(7).normal(size=3000))
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("PROBSEQ_NUM_THREADS", threads)
        found.append(ps.AutoARMA(max_p=1, max_q=1).fit(y).candidates_)
    assert found[0].equals(found[1])


def test_global_generators_are_left_alone():
    before = torch.get_rng_state()
    ps.AutoARMA(d=0, inference=ps.MLE(n_init=2), random_state=1).fit(np.random.default_rng(0).normal(size=40))
    assert torch.equal(torch.get_rng_state(), before)
