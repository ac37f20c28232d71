"""Pictures of latent variables against the arrays that they draw."""

import numpy as np
import pytest

from probseq.errors import ParameterError, ShapeError
from probseq.plotting import plot_latent_paths


def test_every_state_has_a_line_inside_its_band():
    times = np.arange("2024-01-01", "2024-01-06", dtype="datetime64[D]")
    means = np.arange(10.0).reshape(5, 2)
    ax = plot_latent_paths(times, means, (means - 1.0, means + 2.0), names=["level", "slope"], title="two", ylabel="z")
    assert [line.get_label() for line in ax.lines] == ["level", "slope"]
    assert np.array_equal(ax.lines[1].get_ydata(), means[:, 1])
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == -1.0 and heights.max() == 10.0
    assert ax.get_title(loc="left") == "two" and ax.get_ylabel() == "z"
    assert plot_latent_paths(times, means, ax=ax) is ax
    one = plot_latent_paths([3], means[:1], (means[:1] - 1.0, means[:1] + 1.0))
    assert len(one.lines) == 2 and one.lines[0].get_marker() == "o"


def test_shapes_that_do_not_fit():
    means = np.zeros((4, 2))
    for wrong in ((means[:3], None), (means[:, 0], None), (means, (means, means[:3]))):
        with pytest.raises(ShapeError, match="means and band"):
            plot_latent_paths(np.arange(4), *wrong)
    with pytest.raises(ShapeError, match="names"):
        plot_latent_paths(np.arange(4), means, names=["one"])
    with pytest.raises(ParameterError):
        plot_latent_paths(np.arange(4), means, ax=3)
