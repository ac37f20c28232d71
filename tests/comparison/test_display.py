"""What a comparison shows in a terminal and in a notebook."""

import numpy as np
import pandas as pd
import pytest

import probseq as ps
from probseq.comparison.display import as_text

Y = np.random.default_rng(0).standard_normal(90).cumsum()


@pytest.fixture(scope="module")
def found():
    data = pd.Series(Y, name="level")
    bayes = ps.ARMA((1, 0), inference=ps.Collapsed(n_draws=20, n_proposals=60), random_state=0)
    models = {"walk": ps.RandomWalk(), "iid[diag]": ps.IID(), "bayes": bayes}
    return ps.compare({name: model.fit(data[:60]) for name, model in models.items()}, data[60:], history=data[:60])


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_lines_fit_and_what_is_left_out_is_named(found, width):
    shown = found.display_table()
    text = as_text(shown, found.caption, found.notes, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    head, below = text.split(found.caption[:20])
    for title in shown.columns:
        left_out = title in " ".join(below.split())
        assert left_out or all(word in head for word in title.split())
    for name, nats in shown["nats per value"].items():
        row = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert nats in row.split()
    assert "± s.e." in head and ("PIT p" in head) == (width > 80)


def test_a_terminal_has_a_width_and_a_file_has_none(found, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert max(map(len, repr(found).splitlines())) <= 70
    monkeypatch.delenv("COLUMNS")
    wide = as_text(found.display_table(), found.caption, found.notes, 1000)
    assert "draws in effect" in wide and "A wider terminal" not in wide and found.caption in wide


def test_names_give_way_to_figures():
    fits = {f"a model whose name is far too long for any table in a terminal {i}": ps.IID().fit(Y) for i in range(2)}
    found = ps.compare(fits, Y)
    for width in (20, 50):
        text = as_text(found.display_table(), found.caption, found.notes, width)
        assert max(map(len, text.splitlines())) <= 50 and "…" not in text
        assert text.count(found.display_table()["nats per value"].iloc[0]) == 2
    assert "90 values scored one step ahead by both models" in " ".join(text.split())


def test_a_remark_is_said_once_for_all_its_models(found):
    about = [note for note in found.notes if "s.e. unreliable" in note]
    assert about == [f"{', '.join(n for n in found.table.index if n != found.best)}: s.e. unreliable: 30 values"]
    one = ps.compare([ps.RandomWalk().fit(Y), ps.IID().fit(Y)], Y[:1], history=Y[:5])
    assert any(note.endswith("s.e. unreliable: 1 value") for note in one.notes)


def test_nothing_of_the_users_is_markup(found):
    assert "iid[diag]" in as_text(found.display_table(), found.caption, [])
    models = {"<b>": ps.RandomWalk().fit(Y), "iid": ps.IID().fit(Y)}
    page = ps.compare(models, ps.sequences(Y).to_dataarray().assign_attrs(units="<i>"))._repr_html_()
    assert "<b>" not in page and "<i>" not in page and "&lt;i&gt;" in page
