"""Files of fitted models: all that a fit has found comes back, streams go on, old files load, bad ones say so."""

import copy
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributions import Dirichlet, Laplace

import probseq as ps
from probseq._types import equal_values
from probseq.errors import FileFormatError, ParameterError
from probseq.estimators.records import Reader, Writer
from probseq.inference.base import Draws
from probseq.inference.nuts import NUTSDraws
from probseq.testing.estimators import check_same_fit

FILES = Path(__file__).parent / "files"


def switching(t, seed=0):
    rng = np.random.default_rng(seed)
    states = np.cumsum(rng.random(t) < 0.1) % 2
    return 3.0 * states + rng.normal(size=t)


def mixed(t):
    x = switching(t)
    return np.stack([x, np.random.default_rng(1).poisson(np.exp(0.5 * x))], -1)


def counts(t):
    return np.random.default_rng(2).poisson(np.exp(0.6 * switching(t)))


def gibbs():
    return ps.Gibbs(n_draws=8, n_chains=2, n_warmup=10, thin=2)


def vb():
    return ps.VB(n_draws=3, n_init=2, prune=0.0)


def net(inference):
    return ps.LSTM(2, inference=inference, random_state=0).fit(switching(40))


SHORT = ps.TrainingOptions(max_epochs=2)
NOISY = ps.TrainingOptions(max_epochs=2, window=10, batch_size=2)
QUIET = ps.TrainingOptions(max_epochs=4, window=10, batch_size=2, learning_rate=1e-4)
PRIORS = {"transition": Dirichlet(torch.full((2,), 2.0))}
POISSON = ps.PoissonDuration(4)
SPARSE = ps.Transitions(fixed=[[0.5, np.nan, np.nan], [0.0, np.nan, np.nan], [np.nan, 0.0, np.nan]])
FITS = {
    "EM": lambda: ps.HMM(2, inference=ps.EM(n_init=2, covariance=True), random_state=0).fit(switching(80)),
    "MLE": lambda: ps.HMM(2, inference=ps.MLE(), random_state=0).fit(switching(80)),
    "MAP": lambda: ps.HMM(2, inference=ps.MAP(PRIORS), random_state=0).fit(switching(80)),
    "Laplace": lambda: ps.HMM(2, inference=ps.Laplace(n_draws=4), random_state=0).fit(switching(80)),
    "NUTS": lambda: ps.HMM(
        2, ps.Poisson(), inference=ps.NUTS(n_draws=8, n_chains=2, n_warmup=8, max_tree_depth=3), random_state=0
    ).fit(counts(60)),
    "OnlineEM": lambda: ps.HMM(2, inference=ps.OnlineEM(tol=0.01, n_init=2), random_state=0).fit(switching(80)),
    "Gibbs": lambda: ps.HMM(2, ps.Poisson(), inference=gibbs(), random_state=0).fit(counts(60)),
    "Gibbs of a renamed model": lambda: (
        ps.HMM(2, ps.Poisson(), inference=gibbs(), random_state=0)
        .fit(counts(60))
        .order_states("rate", descending=True)
        .label_states(["many", "few"])
    ),
    "VB": lambda: ps.HMM(2, inference=vb(), random_state=0).fit(switching(80)),
    "VB of a product": lambda: ps.HMM(2, ps.Product([ps.Normal(), ps.Poisson()]), inference=vb(), random_state=0).fit(
        mixed(80)
    ),
    "VB of covariances": lambda: ps.HMM(2, ps.Normal("tied"), inference=vb(), random_state=0).fit(mixed(80)),
    "VB of categories": lambda: ps.HMM(2, ps.Categorical(), inference=vb(), random_state=0).fit("abbaabbbaabab" * 4),
    "VB of bits": lambda: ps.HMM(2, ps.Bernoulli(), inference=vb(), random_state=0).fit(
        (switching(80) > 1).astype(float)
    ),
    "VB of known moves": lambda: ps.HMM(3, transitions=SPARSE, inference=vb(), random_state=0).fit(switching(80)),
    "HSMM by EM": lambda: ps.HSMM(2, duration=POISSON, inference=ps.EM(n_init=1, tol=0.1), random_state=0).fit(
        switching(60)
    ),
    "HSMM by MLE": lambda: ps.HSMM(2, duration=POISSON, inference=ps.MLE(tol=1e-3), random_state=0).fit(switching(60)),
    "HSMM by Laplace": lambda: ps.HSMM(2, duration=POISSON, inference=ps.Laplace(n_draws=3), random_state=0).fit(
        switching(60)
    ),
    "ARMA": lambda: ps.ARMA((1, 1)).fit(pd.Series(switching(60), pd.date_range("2020-01-31", periods=60, freq="ME"))),
    "LSTM by MeanField": lambda: net(ps.MeanField(2, "learnt", draws_per_batch=2, training=SHORT)),
    "LSTM by MAP": lambda: net(ps.MAP({"weights": Laplace(0.0, 0.2)}, training=SHORT)),
    "LSTM by MCDropout": lambda: net(ps.MCDropout(n_draws=2, training=SHORT)),
    "LSTM by Ensemble": lambda: net(ps.Ensemble(2, ps.MeanField(2, {"head": 2.0}, training=SHORT))),
    "LSTM by SWAG": lambda: net(ps.SWAG(n_draws=2, training=NOISY)),
    "LSTM by Laplace": lambda: net(ps.Laplace(n_draws=2, training=SHORT)),
    "LSTM by SGHMC": lambda: net(ps.SGHMC(n_draws=2, learning_rate=1e-5, training=QUIET)),
    "IID of a frame": lambda: ps.IID(ps.Normal("full"), transform=ps.Standardize()).fit(
        pd.DataFrame(mixed(30), columns=[3, 7])
    ),
    "known parameters": lambda: ps.HMM(2, ps.Poisson()).with_parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.1, 0.9]], rate=[[1.0], [4.0]]
    ),
}


@pytest.fixture(scope="module", params=list(FITS))
def fitted(request):
    return FITS[request.param]()


def content(path):
    with safe_open(str(path), framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    return tensors, metadata["version"], json.loads(metadata["header"])


@pytest.mark.filterwarnings("ignore::probseq.errors.ConvergenceWarning", "ignore::probseq.errors.DegenerateWarning")
def test_all_that_a_fit_shows_comes_back(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = ps.load(tmp_path / "model")
    check_same_fit(loaded, fitted)
    assert type(loaded.draws_) is type(fitted.draws_)
    xr.testing.assert_identical(loaded.params_, fitted.params_)
    if fitted.draws_.covariance is not None and fitted.model_.n_draws == 1:
        xr.testing.assert_identical(loaded.standard_errors_, fitted.standard_errors_)
    loaded.save(tmp_path / "again")
    assert equal_values(*(content(tmp_path / name) for name in ("again", "model")))


def test_diagnostics_and_laws_are_objects_that_work(tmp_path):
    chains = FITS["NUTS"]()
    chains.save(tmp_path / "chains")
    draws = ps.load(tmp_path / "chains").draws_
    assert isinstance(draws, NUTSDraws) and draws.n_chains == 2
    assert draws.diagnostics.problems(8, 2) == chains.draws_.diagnostics.problems(8, 2)
    variational = FITS["VB of a product"]()
    variational.save(tmp_path / "variational")
    loaded = ps.load(tmp_path / "variational")
    assert_allclose(loaded.draws_.law.divergence(loaded.draws_.law), 0.0, atol=1e-12)
    turned = [model.order_states("mean", descending=True) for model in (loaded, variational)]
    check_same_fit(*turned)


def stream(kind):
    x = switching(200)
    if kind == "values":
        return ps.HMM(2, inference=ps.EM(n_init=2), random_state=0), [
            x[:80],
            x[80:120],
            x[120:121],
            x[121:160],
            x[160:],
        ]
    if kind == "stamps":
        series = pd.Series(np.exp(x), pd.date_range("2020-01-01", periods=200, freq="D"))
        online = ps.OnlineEM(kappa=0.7, window=25, n_init=2)
        cuts = [(0, 80), (80, 120), (125, 140), (140, 160), (160, 200)]
        return ps.HMM(2, transform=ps.Log(), inference=online, random_state=0), [series[a:b] for a, b in cuts]
    parts = [{"a": x[i : i + 20], "b": switching(200, 1)[i : i + 20]} for i in range(0, 100, 20)]
    return ps.HMM(2, ps.StudentT(), inference=ps.EM(n_init=2), random_state=0), parts


@pytest.mark.parametrize("kind", ["values", "stamps", "many"])
def test_a_stream_goes_on_after_loading_as_if_it_had_not_been_saved(kind, tmp_path):
    model, parts = stream(kind)
    model.fit(parts[0])
    for number, part in enumerate(parts[1:]):
        model.save(tmp_path / "model")
        loaded = ps.load(tmp_path / "model").partial_fit(part)
        model.partial_fit(part)
        loaded.fit_seconds_ = model.fit_seconds_
        check_same_fit(loaded, model)
        assert loaded.online_.draws is loaded.draws_, number
    xr.testing.assert_identical(loaded.forecast(3).mean(), model.forecast(3).mean())


def test_files_hold_no_training_values(tmp_path):
    x = switching(80)
    for number, inference in enumerate((ps.EM(n_init=2), gibbs(), vb(), ps.Laplace(n_draws=2))):
        model = ps.HMM(2, inference=inference, random_state=0).fit(x[:70])
        if number == 0:
            model.partial_fit(x[70:])
        model.save(tmp_path / "model")
        data = (tmp_path / "model").read_bytes()
        assert not any(value.tobytes() in data or repr(float(value)).encode() in data for value in x)
        assert model.params_["mean"].values.ravel()[0].tobytes() in data and b"pickle" not in data


def test_files_of_calibrated_models_hold_held_out_values_and_draws_once(tmp_path):
    x = switching(100)
    inside = ps.HMM(2, inference=ps.Laplace(n_draws=30), random_state=0)
    bands = ps.Conformal(inside).fit(x)
    bands.save(tmp_path / "bands")
    data = (tmp_path / "bands").read_bytes()
    assert [value.tobytes() in data for value in x] == [False] * 70 + [True] * 30
    bands.estimator_.save(tmp_path / "inside")
    ours, alone = (content(tmp_path / name)[0] for name in ("bands", "inside"))
    numbers = [sum(tensor.numel() for name, tensor in one.items() if "draws" in name) for one in (ours, alone)]
    assert numbers[0] == numbers[1] > 30 * 8
    ps.AnomalyDetector(inside, 0.1).fit(x).save(tmp_path / "alarms")
    data = (tmp_path / "alarms").read_bytes()
    assert not any(value.tobytes() in data for value in x)


def test_members_of_unknown_classes_are_refused(tmp_path):
    ps.Conformal(ps.IID()).fit(switching(80)).save(tmp_path / "model")
    tensors, _, header = content(tmp_path / "model")
    marks = {"format": "probseq", "version": "3"}
    for change in ({"composed": "Popen"}, {"composed": "HMM"}, {"members": {"names": [], "models": []}}):
        save_file(tensors, str(tmp_path / "bad"), metadata={**marks, "header": json.dumps({**header, **change})})
        with pytest.raises(FileFormatError, match="unknown class|damaged content"):
            ps.load(tmp_path / "bad")


def test_a_difference_of_two_fits_is_found():
    model, other = FITS["Gibbs"](), FITS["Gibbs"]()
    other.fit_seconds_ = model.fit_seconds_
    check_same_fit(other, model)
    table = {**model.draws_.diagnostics.r_hat, "rate": model.draws_.diagnostics.r_hat["rate"] + 1e-12}
    other.draws_ = replace(other.draws_, diagnostics=replace(other.draws_.diagnostics, r_hat=table))
    with pytest.raises(AssertionError, match="draws_"):
        check_same_fit(other, model)


def test_files_of_version_1_load():
    y = ps.datasets.earthquakes()
    point = ps.load(FILES / "hmm_version_1")
    # What the version that wrote these files printed.
    assert point.log_likelihood_ == -342.31826679414564 and point.n_iter_ == 48 and point.converged_
    assert point.path_log_prob_ == -4.886656531572896
    assert_allclose(float(point.log_prob(y)), point.log_likelihood_, rtol=1e-12)
    assert point.state_names_ == ("calm", "active")
    assert_allclose(point.forecast(3).mean(), [16.17948076, 16.74462057, 17.19985957], rtol=1e-8)
    assert_allclose(point.standard_errors_["rate"].squeeze(), [0.7026, 1.36], atol=5e-4)
    assert point.inference == ps.EM(n_init=4, covariance=True)
    sampled = ps.load(FILES / "gibbs_version_1")
    assert_allclose(float(sampled.params_["rate"].mean()), 21.05537171, rtol=1e-9)
    assert sampled.log_likelihood_ == -343.2592891534636 and sampled.model_.n_draws == 8
    assert sampled.inference.prior["transition"].tolist() == [[2.0, 1.0], [1.0, 2.0]]
    assert point.partial_fit(y[-1:], history=None).n_scored_ == 108


def test_old_models_are_saved_in_the_new_version(tmp_path):
    old = ps.load(FILES / "hmm_version_1")
    old.save(tmp_path / "new")
    check_same_fit(ps.load(tmp_path / "new"), old)


DAYS = pd.date_range("2024-01-01", periods=9, freq="D", unit="s")
STAMPS = {
    "none": None,
    "numbers": pd.Index([0.5 * i for i in range(9)]),
    "irregular numbers": pd.Index([1, 2, 4, 8, 16, 32, 64, 65, 66]),
    "dates": DAYS.tz_localize("Europe/Berlin"),
    "fixed offset": DAYS.tz_localize("+02:00"),
    "irregular, regular at the end": DAYS.delete(2).append(pd.DatetimeIndex(["2024-01-10"]).as_unit("s")),
    "periods": pd.period_range("2024-01", periods=9, freq="M"),
    "durations": pd.timedelta_range("0s", periods=9, freq="15s", unit="s"),
    "irregular durations": pd.to_timedelta([1.5, 2, 4, 8, 16, 32, 64, 65, 66], unit="h"),
    "date objects": pd.Index([d.date() for d in DAYS], dtype=object),
    "texts": pd.Index(list("abcdefghi")),
}


@pytest.mark.filterwarnings("ignore::probseq.errors.IndexWarning")
@pytest.mark.parametrize("kind", STAMPS)
def test_forecasts_of_a_file_have_the_same_times(kind, tmp_path):
    model = ps.RandomWalk().fit(pd.Series(np.arange(9.0) ** 1.5, STAMPS[kind]))
    model.save(tmp_path / "once")
    once = ps.load(tmp_path / "once")
    once.save(tmp_path / "twice")
    expected = model.forecast(3).mean()
    for loaded in (once, ps.load(tmp_path / "twice")):
        xr.testing.assert_identical(loaded.forecast(3).mean(), expected)
        assert loaded.forecast(3).mean()["time"].dtype == expected["time"].dtype
    again = loaded.training_.index[0]
    assert again.equals(model.training_.index[0][-3:])


@pytest.mark.filterwarnings("ignore::probseq.errors.IndexWarning")
def test_sequences_of_a_file_keep_their_own_lengths_and_steps(tmp_path):
    panel = {
        "daily": pd.Series(np.arange(9.0), STAMPS["dates"]),
        "irregular": pd.Series(np.arange(5.0), STAMPS["dates"][[0, 2, 4, 5, 6]]),
        "longer": pd.Series(np.arange(6.0), STAMPS["dates"][[0, 2, 3, 4, 5, 6]]),
        "short": pd.Series(np.arange(2.0), STAMPS["dates"][:2]),
    }
    model = ps.RandomWalk().fit(panel)
    model.save(tmp_path / "panel")
    past, kept = model.training_, ps.load(tmp_path / "panel").training_
    assert kept.n_steps == (9, 5, 6, 2) == past.n_steps and kept.freq == past.freq
    for other, own in zip(kept.future_index(2), past.future_index(2), strict=True):
        pd.testing.assert_index_equal(other, own, exact="equiv")
    turned = kept.select([2, 1]).slice_time(1)
    assert turned.n_steps == (6, 5) and turned.future_index(1)[0].tolist() == [6]


def test_a_folder_is_no_file(tmp_path):
    model = ps.IID().fit(np.arange(9.0))
    with pytest.raises(IsADirectoryError, match="is a folder; pass the name of a file"):
        model.save(tmp_path)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        ps.load(tmp_path)


def test_other_versions_and_damaged_content_are_told(tmp_path):
    FITS["Gibbs"]().save(tmp_path / "model")
    tensors, _, good = content(tmp_path / "model")

    def refuse(message, change=None, **others):
        header, marks = copy.deepcopy(good), {"format": "probseq", "version": "2"}
        if change is not None:
            change(header)
        save_file(tensors, str(tmp_path / "bad"), metadata={**marks, "header": json.dumps(header), **others})
        with pytest.raises(FileFormatError, match=message):
            ps.load(tmp_path / "bad")

    refuse("format version 4 in bad. Expected .* version 1 to 3.*Update probseq", version="4")
    refuse("a panel in format version 2 in bad.*Fit it again", lambda h: h.update(panel={}))
    refuse("without the mark", format="other")
    refuse("unknown class 'Popen'", lambda h: h["records"].append({"class": "Popen", "fields": {}}))
    refuse("unknown class 'HMM'", lambda h: h["records"].append({"class": "HMM", "fields": {}}))
    refuse("unknown class 'Draws'", lambda h: h["estimator"].update({"class": "Draws"}))
    refuse("unknown form", lambda h: h["fitted"].update(n_iter_={"code": "1"}))
    refuse("unknown distribution 'Tensor'", lambda h: h["fitted"].update(n_iter_={"law": "Tensor", "arguments": {}}))
    refuse("damaged content .*colour", lambda h: h["records"][-1]["fields"].update(colour=1))
    refuse("damaged content", lambda h: h["fitted"].update(draws_={"record": 99}))
    refuse("no estimator with draws", lambda h: h["fitted"].update(draws_=1))
    refuse("impossible attribute __class__", lambda h: h["fitted"].update(__class__=1))
    refuse("impossible attribute fit", lambda h: h["fitted"].update(fit=1))
    refuse("damaged content", lambda h: h["fitted"].update(params_=1))
    refuse("damaged content", lambda h: h.pop("training"))
    tensors["draws_.params.rate"] = -tensors["draws_.params.rate"]
    refuse("impossible value of parameter rate")
    del tensors["draws_.params.rate"]
    refuse("damaged content .*rate")


def test_what_no_file_can_hold_is_named(tmp_path):
    model = ps.IID().fit(np.arange(9.0))
    model.notes_ = ["a", object()]
    with pytest.raises(ParameterError, match=r"notes_\.1 of type object"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model.notes_ = ["a", {"b": (1, np.float32(0.5), slice(1, None))}, np.array(["x", None], dtype=object)]
    model.save(tmp_path / "model")
    check_same_fit(ps.load(tmp_path / "model"), model)


def test_new_kinds_of_draws_are_kept_without_further_ado(tmp_path):
    @dataclass(frozen=True)
    class TemperedDraws(Draws):
        ladder: tuple[float, ...] = ()
        swaps: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))

    model = ps.IID().fit(np.arange(9.0))
    kept = {name: getattr(model.draws_, name) for name in Draws.__dataclass_fields__}
    model.draws_ = TemperedDraws(**kept, ladder=(1.0, 0.5), swaps=np.array([[3, 4]], dtype=">i4"))
    model.save(tmp_path / "model")
    draws = ps.load(tmp_path / "model").draws_
    assert type(draws) is TemperedDraws and draws.ladder == (1.0, 0.5)
    assert draws.swaps.tolist() == [[3, 4]] and draws.swaps.dtype == np.int32


def test_what_occurs_twice_is_one_object_again():
    params = {"rate": torch.ones(1, 2).expand(3, 2)}
    draws = Draws(params, 0.0, float("nan"), "exact")
    writer = Writer()
    written = writer.write([draws, replace(draws, n_iter=2), draws, params["rate"], params["rate"].clone()], "all")
    assert len(writer.records) == 2
    assert list(writer.tensors) == ["all.0.params.rate", "all.0.trace", "all.0.optima", "all.4"]
    first, second, same, rate, other = Reader(writer.tensors, writer.records, "memory").read(
        json.loads(json.dumps(written))
    )
    assert first is same and first is not second and second.n_iter == 2
    assert rate is first.params["rate"] is second.params["rate"] and rate is not other and torch.equal(rate, other)
