"""Pictures of gradients and spectra from arrays."""

import numpy as np
import pytest

from probseq.errors import ShapeError
from probseq.plotting import plot_compression, plot_gradient_norms, plot_spectra

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def test_the_line_of_a_rate_goes_through_exact_norms():
    import matplotlib.pyplot as plt

    norms = 3 * 0.8 ** np.arange(6.0)[None]
    norms[0, 0] = 100.0
    ax = plot_gradient_norms(norms, (norms / 2, norms * 2), growth=[0.8], labels=["one"], title="so")
    np.testing.assert_allclose(ax.lines[1].get_ydata(), norms[0, 1:])
    assert ax.get_title(loc="left") == "so"
    plt.close("all")


def test_norms_that_are_zero_are_left_out():
    import matplotlib.pyplot as plt

    norms = np.array([[1.0, 0.5, 0.0, 0.0]])
    ax = plot_gradient_norms(norms, (0 * norms, norms), growth=[0.0], labels=["one"])
    assert np.isnan(ax.lines[0].get_ydata()[2:]).all()
    assert len(ax.lines) == 1
    ax.figure.canvas.draw()
    plt.close("all")


def test_arrays_that_do_not_fit_raise():
    norms = np.ones((2, 4))
    for band, growth in (((norms[:1], norms), [1.0, 1.0]), ((norms, norms), [1.0])):
        with pytest.raises(ShapeError, match="one label a layer"):
            plot_gradient_norms(norms, band, growth=growth, labels=["a", "b"])
    with pytest.raises(ShapeError, match="one name a matrix"):
        plot_spectra(np.ones((1, 2, 3)), np.ones((1, 2, 3)), names=["a"])
    with pytest.raises(ShapeError, match="three arrays"):
        plot_compression([1, 2], [0.1, 0.0], [0.5])
