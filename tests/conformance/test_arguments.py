"""Arguments of every exported estimator: what is no value of theirs, or would have no effect, is named by ``fit``."""

import inspect
import math
import warnings
from functools import cache

import numpy as np
import pytest

import probseq as ps
from probseq.errors import IncompatibleError, ParameterError, ProbseqError, ProbseqWarning
from probseq.estimators.base import SequenceEstimator
from probseq.testing import ROWS

ESTIMATORS = {
    one.__name__: one
    for one in map(ps.__getattr__, ps.__all__[1:])
    if isinstance(one, type) and issubclass(one, SequenceEstimator)
}
# No value of any argument, whatever its type.
NEVER = [object(), math.nan, math.inf, -1, np.array([1.0, 2.0]), [0.1, "a", None], "no such word"]
NET = ps.MLE(training=ps.TrainingOptions(max_epochs=1))


def wrong_values(cls):
    """Name of an argument and a value that it must not have, for all arguments of a constructor."""
    for name, parameter in inspect.signature(cls).parameters.items():
        said = str(parameter.annotation)
        for value in NEVER:
            yield name, value
        if said in ("Any", "RandomState"):
            continue
        if "None" not in said and "Any" not in said:
            yield name, None
        if "bool" not in said:
            yield name, True
        elif "int" not in said:
            yield name, 3


@cache
def plain(cls):
    """The row of the family with the fewest arguments set, of those that the most checks apply to."""
    rows = [row for row in ROWS if type(row.make()) is cls]
    return min(rows, key=lambda row: (len(row.skip), len(repr(row.make()))))


CASES = [(cls, name, value) for cls in ESTIMATORS.values() for name, value in wrong_values(cls)]


@pytest.mark.parametrize(
    "cls, name, value", CASES, ids=[f"{cls.__name__} {name}={value!r:.12}" for cls, name, value in CASES]
)
def test_a_fit_names_the_argument_that_is_wrong(cls, name, value):
    row = plain(cls)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbseqWarning)
        with pytest.raises(ProbseqError) as error:
            row.make().set_params(**{name: value}).fit(row.values(), covariates=row.inputs())
    assert name in str(error.value)
    assert error.value.got and error.value.expected and error.value.remedy


@pytest.mark.parametrize("net", [ps.LSTM, ps.GRU, ps.RNN])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"attention_heads": 2}, "attention_heads=2, which has no effect.*attention="),
        ({"n_particles": 50}, "n_particles=50, which has no effect.*particles"),
        ({"embedding_size": 4}, "embedding_size=4 with head=None|embedding_size=4 with head=Normal"),
        ({"embedding_size": 4, "head": ps.Poisson()}, r"embedding_size=4 with head=Poisson\(\)"),
        ({"embedding": np.eye(3)}, "an embedding"),
        ({"freeze_embedding": True}, "freeze_embedding=True without an embedding"),
        ({"tie_embeddings": True}, "tie_embeddings=True"),
        ({"attention": 4, "attention_heads": 3}, "attention_heads=3 with hidden_size=4"),
    ],
)
def test_arguments_of_networks_that_would_have_no_effect(net, arguments, message):
    values = np.random.default_rng(0).poisson(3.0, 20)
    with pytest.raises((ParameterError, IncompatibleError), match=message):
        net(4, inference=NET, **arguments).fit(values)


def test_an_embedding_size_beside_numbers():
    values = np.stack([np.arange(20) % 2, np.sin(np.arange(20))], 1)
    head = ps.Product([ps.Categorical(), ps.Normal()])
    with pytest.raises(IncompatibleError, match="embedding_size"):
        ps.LSTM(4, head=head, embedding_size=3, inference=NET, random_state=0).fit(values)


@pytest.mark.parametrize("make", [ps.LocalLevel, ps.LocalTrend])
def test_the_form_of_a_season_needs_a_season(make):
    with pytest.raises(ParameterError, match="without a period"):
        make(seasonal="trigonometric").fit(np.arange(20.0))


def test_arguments_are_checked_before_known_parameters_are_taken():
    with pytest.raises(ParameterError, match="standardize='yes'"):
        ps.LSTM(2, standardize="yes").with_parameters(weights=[0.0])


@pytest.mark.parametrize("name, value", [("n_jobs", 0), ("n_jobs", True), ("progress", "no"), ("estimator", "ARMA")])
def test_panels(name, value):
    with pytest.raises(ParameterError, match=name):
        ps.PerSequence(**{"estimator": ps.IID(), name: value}).fit([np.arange(5.0), np.arange(4.0)])
