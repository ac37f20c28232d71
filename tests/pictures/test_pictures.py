"""Every picture as it was when somebody last looked at it, with all of its words in sight."""

import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from plot_gallery import PICTURES, REFERENCES, render

import probseq.plotting as pp

# From version to version letters differ a little in width, and with them the places of axes, which may move so far.
# What is in them is compared after five pixels in a row and in a column became one: letters without hints make 0.03 in
# pictures of one panel and 0.042 in the nine small ones, another colour of the bands 0.07, and no bands 0.27.
MOVE = 15
SHRINK = 5
TOLERANCE = 0.05


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def distance(image, places, reference, those):
    """Root mean square over what is painted in either of them, so that empty paper makes nothing alike."""
    if len(places) != len(those) or np.abs(np.subtract(places, those)).max() > MOVE:
        return np.inf
    worst = 0.0
    for place, that in zip(places, those, strict=True):
        size = tuple(max(2, round((that[i + 2] - that[i]) / SHRINK)) for i in (0, 1))
        one, other = (
            np.asarray(picture.resize(size, Image.Resampling.BOX, box=box), float) / 255
            for picture, box in ((image, place), (reference, that))
        )
        painted = (np.minimum(one, other).min(-1) < 0.96) | (np.abs(one - other).max(-1) > 0.04)
        worst = max(worst, float(np.sqrt(((one - other)[painted] ** 2).mean())) if painted.any() else 0.0)
    return worst


def reference_of(name):
    with Image.open(REFERENCES / f"{name}.png") as found:
        return found.convert("RGB"), json.loads(found.info["axes"])


def words_of(figure):
    """(text, box) of all words that are drawn, tick labels within their axes only."""
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text.axes is not None:
            found.append((text.get_text(), text.get_window_extent()))
    for ax in figure.axes:
        for axis, side in ((ax.xaxis, 0), (ax.yaxis, 1)):
            low, high = sorted(ax.transAxes.transform([(0, 0), (1, 1)])[:, side])
            for tick in axis.get_major_ticks():
                if tick.label1.get_visible() and tick.label1.get_text():
                    box = tick.label1.get_window_extent()
                    at = (box.x0 + box.x1) / 2 if side == 0 else (box.y0 + box.y1) / 2
                    if not low - 3 <= at <= high + 3:
                        found = [one for one in found if not np.array_equal(one[1].bounds, box.bounds)]
    return found


def test_the_gallery_has_every_public_picture():
    drawn = "".join(PICTURES[name].__code__.co_names.__repr__() for name in PICTURES)
    public = {name for name in pp.__all__ if name.startswith("plot_")}
    assert {name for name in public if f"'{name}'" not in drawn} == set()
    assert {path.stem for path in REFERENCES.glob("*.png")} == set(PICTURES)


@pytest.mark.parametrize("name", list(PICTURES))
def test_pictures_look_as_they_did(name, tmp_path):
    settings = dict(mpl.rcParams)
    figure, image, places = render(name)
    assert dict(mpl.rcParams) == settings
    for ax in figure.axes:
        if ax.axison and name != "transition_matrix":
            assert {label.get_fontsize() for label in (*ax.get_xticklabels(), *ax.get_yticklabels())} <= {8.33}
            assert ax.xaxis.label.get_fontsize() == 10 and not ax.title.get_text()  # titles stand at the left
    assert np.asarray(image, float).std() > 5, "the picture is blank"
    width, height = figure.bbox.width, figure.bbox.height
    words = words_of(figure)
    for text, box in words:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text!r} leaves the figure: {box}"
    for i, (text, box) in enumerate(words):
        for other, place in words[:i]:
            across = min(box.x1, place.x1) - max(box.x0, place.x0)
            along = min(box.y1, place.y1) - max(box.y0, place.y0)
            assert min(across, along) < 1.5, f"{text!r} and {other!r} overlap"
    found = distance(image, places, *reference_of(name))
    if found > TOLERANCE:
        path = tmp_path / f"{name}.png"
        image.save(path)
        pytest.fail(
            f"The picture differs by {found:.3f} from tests/pictures/{name}.png and is now in {path}. Look at "
            f"both; if it is right, renew it by: python tests/support/plot_gallery.py {name}"
        )


def test_another_colour_or_curve_is_noticed(monkeypatch):
    fan, reference = pp.plot_fan, reference_of("fan")
    for change in ({"color": pp.PALETTE[2]}, {"history": None}, {"bands": {}}):
        with monkeypatch.context() as patched:
            patched.setattr(pp, "plot_fan", lambda *args, change=change, **more: fan(*args, **{**more, **change}))
            _, *after = render("fan")
        assert distance(*after, *reference) > TOLERANCE
