"""One thread, no windows, checked shapes: the same conditions for every test."""

from pathlib import Path

import matplotlib
import torch
from hypothesis import settings
from shape_checks import switch_on

switch_on("probseq", root=Path(__file__).parents[1])
matplotlib.use("Agg")
torch.set_num_threads(1)
settings.register_profile("probseq", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("probseq")
