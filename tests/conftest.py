"""One thread, no windows, checked shapes: the same conditions for every test."""

from pathlib import Path

import matplotlib
import pytest
import torch
from hypothesis import settings
from shape_checks import switch_on

switch_on("probseq", root=Path(__file__).parents[1])
matplotlib.use("Agg")
torch.set_num_threads(1)
settings.register_profile("probseq", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("probseq")

CHAINS = ("hmm", "hsmm", "chain", "durations", "tracks", "vb", "gibbs")
LINEAR = ("arma", "kalman", "linear_gaussian", "linear_system", "structural", "switching", "impulse")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the two halves, which two processes take, with kernels of different families.

    On a fresh machine each process compiles its own family first, and finds the other compiled when it comes to it.
    """
    chains = [item for item in items if _is_of(item, CHAINS)]
    linear = [item for item in items if _is_of(item, LINEAR) and not _is_of(item, CHAINS)]
    known = {id(item) for item in (*chains, *linear)}
    rest = [item for item in items if id(item) not in known]
    cut = max(0, len(items) // 2 - len(chains))
    items[:] = [*chains, *rest[:cut], *linear, *rest[cut:]]


def _is_of(item: pytest.Item, words: tuple[str, ...]) -> bool:
    return item.path.parent.name in ("kernels", "models", "inference", "estimators") and any(
        word in item.path.stem for word in words
    )
