"""Hidden Markov models with diagonal normals against hmmlearn, on one core, in alternation; ratios are what matters.

Run ``python benchmarks/hmm.py`` (the estimators) or ``python benchmarks/hmm.py --kernels`` (the bare kernels).
hmmlearn runs with ``implementation="scaling"``, its fastest.
"""

# ruff: noqa: E402 - threads are pinned before numpy loads

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from collections.abc import Callable

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PROBSEQ_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import torch
from hmmlearn.hmm import GaussianHMM

import probseq as ps
from probseq.kernels import chain

CASES = ((3, 100_000, 1), (8, 100_000, 4), (32, 50_000, 4), (128, 10_000, 4))
ROUNDS = 7


def case(n_states: int, n_steps: int, n_variables: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Data from a chain with normal emissions, and its parameters."""
    rng = np.random.default_rng(0)
    parameters = {
        "initial": np.full(n_states, 1.0 / n_states),
        "transition": rng.dirichlet(np.ones(n_states), n_states),
        "mean": 3 * rng.normal(size=(n_states, n_variables)),
        "scale": rng.uniform(0.7, 1.4, (n_states, n_variables)),
    }
    z = rng.integers(0, n_states, n_steps)
    x = parameters["mean"][z] + parameters["scale"][z] * rng.normal(size=(n_steps, n_variables))
    return x, parameters


def peer(x: np.ndarray, parameters: dict[str, np.ndarray]) -> dict[str, Callable[[], object]]:
    def new() -> GaussianHMM:
        model = GaussianHMM(
            len(parameters["initial"]), "diag", implementation="scaling", n_iter=1, init_params="", min_covar=1e-6
        )
        model.startprob_, model.transmat_ = parameters["initial"], parameters["transition"]
        model.means_, model.covars_ = parameters["mean"], parameters["scale"] ** 2
        return model

    model = new()
    return {"score": lambda: model.score(x), "decode": lambda: model.decode(x), "EM step": lambda: new().fit(x)}


def kernels(x: np.ndarray, parameters: dict[str, np.ndarray]) -> dict[str, Callable[[], object]]:
    initial, transition = parameters["initial"][None, None], parameters["transition"][None]
    lengths = np.array([len(x)])

    def problem() -> tuple:
        emission = chain.normal_emission(x[None], parameters["mean"][None], parameters["scale"][None] ** 2)
        return initial, transition, emission, lengths

    return {
        "score": lambda: chain.log_prob_steps(*problem()),
        "decode": lambda: chain.decode(*problem()),
        "EM step": lambda: chain.normal_expectations(*problem()),
    }


def estimators(x: np.ndarray, parameters: dict[str, np.ndarray]) -> dict[str, Callable[[], object]]:
    known = ps.HMM(len(parameters["initial"]), emission=ps.Normal()).with_parameters(**parameters)
    model, batch = known.model_.model, known._batch(known._read(x, None))
    start = {name: torch.from_numpy(value)[None] for name, value in parameters.items()}
    return {
        "score": lambda: known.score(x),
        "decode": lambda: known.decode(x),
        "EM step": lambda: model.em_step(start, batch),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", action="store_true", help="time the bare kernels")
    parser.add_argument("--smoke", action="store_true", help="one short round, to see that it runs")
    options = parser.parse_args()
    ours = kernels if options.kernels else estimators
    cases = [(s, n // 50, d) for s, n, d in CASES[:2]] if options.smoke else CASES
    rounds = 1 if options.smoke else ROUNDS
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    print(f"{'states, steps, dims':>22} {'task':>8} {'ours ms':>9} {'hmmlearn ms':>12} {'ratio':>6}")
    for size in cases:
        x, parameters = case(*size)
        mine, theirs = ours(x, parameters), peer(x, parameters)
        for task in mine:
            mine[task]()
            seconds: list[list[float]] = [[], []]
            for _ in range(rounds):
                for run, taken in zip((mine[task], theirs[task]), seconds, strict=True):
                    begun = time.perf_counter()
                    run()
                    taken.append(time.perf_counter() - begun)
            a, b = np.array(seconds)
            print(
                f"{size!s:>22} {task:>8} {1e3 * np.median(a):9.2f} {1e3 * np.median(b):12.2f} {np.median(b / a):6.1f}"
            )


if __name__ == "__main__":
    main()
