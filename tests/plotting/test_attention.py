"""The picture of attention weights."""

import numpy as np
import pytest

from probseq.errors import ShapeError
from probseq.plotting import plot_attention

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def test_shades_are_the_weights_by_time_and_lag():
    import matplotlib.pyplot as plt

    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    figure, ax = plt.subplots()
    times = np.arange("2020-01", "2020-06", dtype="datetime64[M]")
    assert plot_attention(times, weights, title="one", ax=ax) is ax
    shown = ax.collections[0].get_array().reshape(3, 5)
    np.testing.assert_array_equal(shown, weights.T)
    assert ax.get_ylabel() == "lag"
    assert len(figure.axes) == 2
    plt.close("all")


def test_weights_of_another_shape_raise():
    for weights in (np.ones(5), np.ones((4, 3)), np.ones((5, 2, 3))):
        with pytest.raises(ShapeError, match="one row for each of 5 times"):
            plot_attention(np.arange(5), weights)
