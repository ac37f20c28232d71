"""Hidden Markov models with diagonal normals against dynamax (jitted) and pomegranate, on one core, in alternation.

Run ``python benchmarks/hmm_peers.py``; peers that are not installed are left out. Processor time in double precision,
compilation not counted. Ratios are what matters. The case with many sequences suits the peers, which run them as one
batch.
"""

# ruff: noqa: E402 - threads are pinned before numpy loads

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PROBSEQ_NUM_THREADS"):
    os.environ[variable] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
import torch
from _record import Record, add_options

import probseq as ps

# states, sequences, steps, dims
CASES = ((3, 1, 50_000, 1), (8, 1, 50_000, 4), (8, 100, 500, 4))
ROUNDS = 5

Tasks = dict[str, Callable[[], Any]]


def case(n_states: int, n: int, n_steps: int, n_variables: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Data (n, t, d) from a chain with normal emissions, and its parameters."""
    rng = np.random.default_rng(0)
    parameters = {
        "initial": np.full(n_states, 1.0 / n_states),
        "transition": rng.dirichlet(np.ones(n_states), n_states),
        "mean": 3 * rng.normal(size=(n_states, n_variables)),
        "scale": rng.uniform(0.7, 1.4, (n_states, n_variables)),
    }
    z = rng.integers(0, n_states, (n, n_steps))
    x = parameters["mean"][z] + parameters["scale"][z] * rng.normal(size=(n, n_steps, n_variables))
    return x, parameters


def ours(x: np.ndarray, parameters: dict[str, np.ndarray]) -> Tasks:
    known = ps.HMM(len(parameters["initial"]), emission=ps.Normal()).with_parameters(**parameters)
    model, batch = known.model_.model, known._batch(known._read(x, None))
    start = {name: torch.from_numpy(value)[None] for name, value in parameters.items()}
    return {
        "score": lambda: float(known.log_prob(x).sum()),
        "decode": lambda: known.decode(x),
        "EM step": lambda: model.em_step(start, batch),
    }


def dynamax(x: np.ndarray, parameters: dict[str, np.ndarray]) -> Tasks:
    import jax

    jax.config.update("jax_enable_x64", True)
    from dynamax.hidden_markov_model import DiagonalGaussianHMM

    model = DiagonalGaussianHMM(len(parameters["initial"]), x.shape[-1])
    params, properties = model.initialize(
        method="prior",
        initial_probs=jax.numpy.asarray(parameters["initial"]),
        transition_matrix=jax.numpy.asarray(parameters["transition"]),
        emission_means=jax.numpy.asarray(parameters["mean"]),
        emission_scale_diags=jax.numpy.asarray(parameters["scale"]),
    )
    values = jax.numpy.asarray(x)

    # Parameters and values are arguments: what is constant the compiler would work out once and for all.
    @jax.jit
    def score(params: Any, values: Any) -> Any:
        return jax.vmap(lambda one: model.marginal_log_prob(params, one))(values).sum()

    @jax.jit
    def decode(params: Any, values: Any) -> Any:
        return jax.vmap(lambda one: model.most_likely_states(params, one))(values)

    @jax.jit
    def step(params: Any, values: Any) -> Any:
        statistics, log_prob = jax.vmap(lambda one: model.e_step(params, one))(values)
        return model.m_step(params, properties, statistics, model.initialize_m_step_state(params, properties)), log_prob

    return {
        "score": lambda: float(score(params, values)),
        "decode": lambda: decode(params, values).block_until_ready(),
        "EM step": lambda: jax.block_until_ready(step(params, values)),
    }


def pomegranate(x: np.ndarray, parameters: dict[str, np.ndarray]) -> Tasks:
    from pomegranate.distributions import Normal
    from pomegranate.hmm import DenseHMM

    torch.set_default_dtype(torch.float64)
    n_states = len(parameters["initial"])
    values = torch.from_numpy(x)

    def new() -> Any:
        laws = [
            Normal(mean, scale**2, covariance_type="diag")
            for mean, scale in zip(parameters["mean"], parameters["scale"], strict=True)
        ]
        ends = np.full(n_states, 1.0 / n_states)
        return DenseHMM(laws, edges=parameters["transition"], starts=parameters["initial"], ends=ends)

    model = new()

    def step() -> None:
        fresh = new()
        fresh.summarize(values)
        fresh.from_summaries()

    return {
        # Its sequences also end with probability 1 / states.
        "score": lambda: float(model.log_probability(values).sum()) + len(x) * np.log(n_states),
        "decode": lambda: model.viterbi(values),
        "EM step": step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one short round, to see that it runs")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    peers = {}
    for make in (dynamax, pomegranate):
        if importlib.util.find_spec(make.__name__) is None:
            print(f"{make.__name__}: not installed")
        else:
            peers[make.__name__] = make
    record = Record(
        "hmm_peers",
        "Hidden Markov models with diagonal normals beside dynamax and pomegranate",
        "Processor time on one core in double precision, compilation not counted: log-likelihood, most probable path, "
        "one EM iteration.",
        options,
        ["dynamax", "jax", "pomegranate"],
    )
    cases = [(s, n, t // 100, d) for s, n, t, d in CASES[:2]] if options.smoke else CASES
    print(f"{'states, n, steps, dims':>22} {'task':>8} {'ours ms':>9} {'peer':>12} {'peer ms':>10} {'ratio':>8}")
    for size in cases:
        x, parameters = case(*size)
        mine = ours(x, parameters)
        for name, make in (peers or {"itself": ours}).items():
            theirs = make(x, parameters)
            np.testing.assert_allclose(theirs["score"](), mine["score"](), rtol=1e-8)
            for task, run in mine.items():
                a, b = alternate(run, theirs[task], 1 if options.smoke else ROUNDS)
                ratio = np.median(b / a)
                print(
                    f"{size!s:>22} {task:>8} {np.median(a):9.2f} {name:>12} {np.median(b):10.2f} {ratio:8.1f}",
                    flush=True,
                )
                words = f"{size[0]} states, {size[1]} x {size[2]} x {size[3]}"
                record.speed(task, words, name, 1e-3 * a, 1e-3 * b)
    record.finish()


def alternate(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of two calls in turn, after one of each that does not count."""
    taken = np.empty((2, rounds))
    one(), other()
    for k in range(rounds):
        for row, run in list(enumerate((one, other)))[:: -1 if k % 2 else 1]:
            begun = time.process_time()
            run()
            taken[row, k] = 1e3 * (time.process_time() - begun)
    return taken[0], taken[1]


if __name__ == "__main__":
    main()
