"""Settings of every exported inference and of trainings: whatever is no value of theirs is named, and what would be."""

import copy
import inspect
import math
from functools import cache

import numpy as np
import pytest
from torch.distributions import Normal

import probseq as ps
from probseq._random import torch_generator
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.base import Inference
from probseq.results.joint import make_batch
from probseq.testing import ROWS
from probseq.testing.registry import _collect

INFERENCES = sorted(
    (one for one in map(ps.__getattr__, ps.__all__[1:]) if isinstance(one, type) and issubclass(one, Inference)),
    key=lambda cls: cls.__name__,
)
# Any word is allowed at first: paths, and what Lightning knows the words of.
WORDS = ("checkpoint", "strategy")
# No value of any setting, whatever its type.
NEVER = {
    "an object": object(),
    "nan": math.nan,
    "inf": math.inf,
    "negative": -1,
    "far below": -(10**400),
    "an array": np.array([1.0, 2.0]),
    "numbers": [0.1, "a", None],
}


def wrong_values(cls):
    """Name of an argument and a value that it must not have, for all arguments of a constructor."""
    for name, parameter in inspect.signature(cls).parameters.items():
        said = str(parameter.annotation)
        for value in NEVER.values():
            yield name, value
        if name not in WORDS:
            yield name, "no such word"
        if "None" not in said:
            yield name, None
        if "bool" not in said:
            yield name, True
            yield name, np.True_


@cache
def problem(cls):
    """A model that the inference fits, with data."""
    for row in ROWS:
        used = set()
        _collect(row.make(), used)
        if cls in used:
            model = row.model()
            while hasattr(model, "inner"):
                model = model.inner
            return model, make_batch(model, row.values()[None], np.array([40]), None)
    raise AssertionError(f"no row for {cls.__name__}")


def ids(cases):
    return [f"{case[0].__name__} {case[1]}={case[2]!r:.12}" for case in cases]


FITS = [(cls, name, value) for cls in INFERENCES for name, value in wrong_values(cls)]
OPTIONS = [(ps.TrainingOptions, name, value) for name, value in wrong_values(ps.TrainingOptions)]


@pytest.mark.parametrize("cls, name, value", FITS, ids=ids(FITS))
def test_a_fit_names_the_setting_that_is_wrong(cls, name, value):
    model, batch = problem(cls)
    with pytest.raises((ParameterError, IncompatibleError)) as error:
        cls(**{name: value}).fit(model, batch, torch_generator(0))
    assert name in error.value.got
    assert error.value.expected and error.value.remedy


@pytest.mark.parametrize("cls, name, value", OPTIONS, ids=ids(OPTIONS))
def test_options_of_a_training_are_checked_when_they_are_made(cls, name, value):
    with pytest.raises(ParameterError) as error:
        cls(**{name: value})
    assert name in error.value.got
    assert error.value.expected and error.value.remedy


@pytest.mark.parametrize("cls", [cls for cls in INFERENCES if "training" in inspect.signature(cls).parameters])
def test_options_that_were_changed_are_checked_by_the_fit(cls):
    model, batch = problem(cls if cls is ps.AmortizedVI else ps.MeanField)
    inference = cls(training=ps.TrainingOptions().set_params(patience="long"))
    with pytest.raises(ParameterError, match="patience='long'"):
        inference.fit(model, batch, torch_generator(0))


def test_an_ensemble_checks_the_inference_of_its_members():
    model, batch = problem(ps.Ensemble)
    with pytest.raises(ParameterError, match="n_draws=0"):
        ps.Ensemble(inference=ps.MeanField(n_draws=0)).fit(model, batch, torch_generator(0))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"device": "foo"}, "device='foo'"),
        ({"device": "cuda:x"}, "device='cuda:x'"),
        ({"devices": 0}, "devices=0"),
        ({"devices": []}, "devices=\\[\\]"),
        ({"devices": [0, -1]}, "an entry of devices=-1"),
        ({"callbacks": print}, "callbacks=.*expected a list|callbacks=.*a list"),
        ({"callbacks": [3]}, "3 among callbacks"),
        ({"callbacks": [ps.TrainingCallback]}, "TrainingCallback.* among callbacks"),
        ({"trainer_kwargs": 3}, "trainer_kwargs=3"),
        ({"trainer_kwargs": {3: 3}}, "trainer_kwargs="),
        ({"strategy": object()}, "trainer_kwargs="),
    ],
)
def test_values_of_the_right_kind_that_make_no_sense(options, message):
    with pytest.raises(ParameterError, match=message):
        ps.TrainingOptions(**options)


def a_file(folder):
    (folder / "taken").write_text("")
    return str(folder / "taken")


@pytest.mark.parametrize(
    "options, message",
    [
        (lambda folder: {"device": "cuda:99"}, 'device="cuda:99"'),
        (lambda folder: {"trainer_kwargs": {"foo": 1}}, "'foo'.*max_steps.*spelling"),
        (lambda folder: {"trainer_kwargs": {"max_steps": "a"}}, "Lightning does not take"),
        (lambda folder: {"trainer_kwargs": {"callbacks": 3}}, "3 among the callbacks"),
        (lambda folder: {"strategy": "foo"}, "strategy='foo'"),
        (lambda folder: {"checkpoint": a_file(folder)}, "taken.*a folder"),
    ],
    ids=["device", "keyword", "value", "callbacks", "strategy", "checkpoint"],
)
def test_what_this_machine_and_lightning_do_not_know_is_named_by_the_fit(options, message, tmp_path):
    model, batch = problem(ps.MeanField)
    training = ps.TrainingOptions(max_epochs=1, **options(tmp_path))
    with pytest.raises(ParameterError, match=message):
        ps.MLE(training=training).fit(model, batch, torch_generator(0))


@pytest.mark.parametrize("cls", INFERENCES)
def test_checks_change_nothing(cls):
    inference = cls()
    before = copy.deepcopy(inference.get_params(deep=False))
    inference.check()
    assert inference.get_params(deep=False) == before


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5), np.float64(0.5), 10**12])
def test_numbers_of_numpy_are_numbers(value):
    if isinstance(value, np.floating):
        ps.TrainingOptions(learning_rate=value, patience=value, validation_fraction=value)
        ps.EM(tol=value).check()
        ps.MCDropout(rate=value).check()
    else:
        ps.TrainingOptions(max_epochs=value, learning_rate=value)
        ps.MeanField(n_draws=value, prior_scale=value).check()
    ps.MAP(priors={"weights": Normal(0.0, 1.0)}).check()
