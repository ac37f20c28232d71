"""The GluonTS half of the page "From GluonTS": fits, forecasts, and writes what the page shows to gluonts_side.json.

GluonTS needs a pandas older than the one that probseq is developed with, so it has its own environment: `make peers`.
"""

import json
import logging
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from gluonts.dataset.pandas import PandasDataset
from gluonts.torch import DeepAREstimator
from gluonts.torch.distributions import NormalOutput

import probseq as ps

logging.getLogger("lightning.pytorch").setLevel("ERROR")
torch.manual_seed(0)
np.random.seed(0)

y = ps.datasets.air_passengers()
train, test = ps.split(y, horizon=24)
series = train.to_series()
series.index = series.index.to_period("M")

# [fit]
dataset = PandasDataset(series.to_frame("target"), target="target")
estimator = DeepAREstimator(
    freq="M",
    prediction_length=24,
    context_length=36,
    num_layers=1,
    hidden_size=32,
    lr=5e-3,
    distr_output=NormalOutput(),
    num_batches_per_epoch=20,
    trainer_kwargs={
        "max_epochs": 20,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "default_root_dir": tempfile.mkdtemp(),
    },
)
predictor = estimator.train(dataset)
# [forecast]
forecast = next(iter(predictor.predict(dataset, num_samples=500)))
mean = forecast.mean
low, high = forecast.quantile(0.05), forecast.quantile(0.95)
total = forecast.samples.sum(axis=1)
# [end]

samples = ps.Forecast.from_paths(forecast.samples, like=train)
found = {
    "mean": mean.round(2).tolist(),
    "low": low.round(2).tolist(),
    "high": high.round(2).tolist(),
    "total": [round(float(np.quantile(total, q)), 1) for q in (0.05, 0.95)],
    "crps": round(float(samples.crps(test).mean()), 4),
    "versions": {name: version(name) for name in ("gluonts", "torch", "pandas")},
}
assert len(found["mean"]) == 24 and np.isfinite(found["mean"]).all(), "DeepAR has no forecast"
assert bool((np.asarray(low) <= np.asarray(high)).all()), "intervals of DeepAR cross"
assert found["crps"] < 100, f"DeepAR did not learn: CRPS {found['crps']}"

if "--write" in sys.argv:
    text = json.dumps(found, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")
print(json.dumps({name: found[name] for name in ("crps", "total", "versions")}))
