"""The results of the benchmarks: whole, finite, and not to be replaced by a short run."""

import argparse
import copy
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recorder():
    spec = importlib.util.spec_from_file_location("_record", ROOT / "benchmarks" / "_record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def committed():
    return sorted((ROOT / "docs" / "benchmarks" / "results").glob("*.json"))


def run(recorder, folder, smoke, ratio=3.0):
    options = argparse.Namespace(write=False, results=folder, smoke=smoke)
    record = recorder.Record("walk", "A walk", "Seconds.", options, ["numpy"])
    record.speed("fit", "short", "numpy, plain", [0.1, 0.2, 0.3], [0.1 * ratio, 0.2 * ratio, 0.6 * ratio])
    record.value("cover", series="x", share=np.float64(0.5), nothing=None)
    record.mark("times as fast", ratio, 2.0)
    record.finish()
    return json.loads((folder / "walk.json").read_text())


@pytest.mark.parametrize("path", committed(), ids=lambda path: path.stem)
def test_committed_results_are_whole(recorder, path):
    found = json.loads(path.read_text(encoding="utf-8"))
    recorder.check(found)
    assert found["name"] == path.stem
    assert not found["smoke"]
    script = found["command"].split()[1]
    assert (ROOT / script).exists()
    assert " /" not in found["command"]
    assert {"probseq", "numpy", "torch"} <= set(found["versions"])
    for row in found["speed"]:
        assert row["version"] == found["versions"][row["peer"].split(",")[0]]
        assert row["ratio"] == pytest.approx(np.median(np.divide(row["theirs"], row["ours"])), rel=1e-4)
        assert row["spread"][0] <= row["ratio"] <= row["spread"][1]
    for row in found["marks"]:
        reached = row["value"] >= row["wanted"] if row["at_least"] else row["value"] <= row["wanted"]
        assert row["met"] == reached


def test_there_are_results():
    assert {"hmm", "arma"} <= {path.stem for path in committed()}


def test_a_run_says_what_it_found_and_where(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/a/b/walk.py", "--data", "/a/c", "--only", "a b", "--results", "/a/d"])
    found = run(recorder, tmp_path, smoke=False)
    assert found["command"] == "python benchmarks/walk.py --data FOLDER --only 'a b'"
    (row,) = found["speed"]
    assert (row["ratio"], row["spread"], row["rounds"]) == (3.0, [3.0, 4.5], 3)
    assert row["version"] == np.__version__
    assert found["values"] == {"cover": [{"series": "x", "share": 0.5, "nothing": None}]}
    assert found["marks"][0]["met"]
    assert found["machine"]["cores"] >= 1


def test_a_smoke_run_leaves_a_whole_one(recorder, tmp_path):
    assert run(recorder, tmp_path, smoke=True)["smoke"]
    assert run(recorder, tmp_path, smoke=False, ratio=4.0)["speed"][0]["ratio"] == 4.0
    assert run(recorder, tmp_path, smoke=True, ratio=5.0)["speed"][0]["ratio"] == 4.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda found: found.pop("machine"), "lacks machine"),
        (lambda found: found["speed"][0].update(ratio=9.0), "not that of its rounds"),
        (lambda found: found["speed"][0]["theirs"].__setitem__(0, float("nan")), "not positive and finite"),
        (lambda found: found["values"]["cover"][0].update(share=float("inf")), "share of"),
        (lambda found: found.update(speed=[], values={}), "no figure"),
    ],
)
def test_a_spoilt_record_is_refused(recorder, tmp_path, spoil, message):
    found = copy.deepcopy(run(recorder, tmp_path, smoke=False))
    spoil(found)
    with pytest.raises(ValueError, match=message):
        recorder.check(found)


def test_summary_takes_geometric_means(recorder):
    rows = [{"task": "fit", "case": str(r), "peer": "numpy", "version": "2", "ratio": r} for r in (2.0, 8.0)]
    (found,) = recorder.summary([{"name": "walk", "speed": rows}])
    assert found["mean"] == pytest.approx(4.0)
    assert (found["least"], found["most"], found["cases"]) == (2.0, 8.0, 2)
