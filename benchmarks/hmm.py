"""Hidden Markov models against hmmlearn, in alternation in one process; ratios are what matters.

Run ``python benchmarks/hmm.py`` (the estimators), with ``--kernels`` (the bare kernels), ``--threads 2``,
``--emissions`` (one EM iteration with other emissions than diagonal normals), ``--short`` (series on which the call
counts for more than the arithmetic) or ``--memory`` (peak memory of a fit).
hmmlearn runs with ``implementation="scaling"``, its fastest, and has one thread.
"""

# ruff: noqa: E402 - threads are pinned before numpy loads

from __future__ import annotations

import argparse
import logging
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

from _record import Record, add_options

_parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
_parser.add_argument("--kernels", action="store_true", help="time the bare kernels")
_parser.add_argument("--emissions", action="store_true", help="one EM iteration with other emissions")
_parser.add_argument("--short", action="store_true", help="short series")
_parser.add_argument("--memory", action="store_true", help="peak memory of a fit")
_parser.add_argument("--fit", choices=("probseq", "hmmlearn", "neither"), help="one fit, for --memory")
_parser.add_argument("--threads", type=int, default=1, help="threads of our kernels")
_parser.add_argument("--rounds", type=int, default=7)
_parser.add_argument("--smoke", action="store_true", help="one short round, to see that it runs")
add_options(_parser)
OPTIONS = _parser.parse_args() if __name__ == "__main__" else _parser.parse_args([])

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["PROBSEQ_NUM_THREADS"] = str(OPTIONS.threads)

import numpy as np
import torch
from hmmlearn import hmm as peers

import probseq as ps
from probseq.kernels import chain

Tasks = dict[str, Callable[[], object]]


class Case(NamedTuple):
    """States, sequences, steps of each (give or take a share of ``spread``), variables."""

    n_states: int
    n: int
    n_steps: int
    spread: float
    n_variables: int

    def __str__(self) -> str:
        return f"{self.n_states} states, {self.n} x {self.n_steps} x {self.n_variables}"


CASES = (
    Case(3, 1, 100_000, 0.0, 1),
    Case(8, 1, 100_000, 0.0, 4),
    Case(32, 1, 50_000, 0.0, 4),
    Case(128, 1, 10_000, 0.0, 4),
    Case(8, 100, 1000, 0.1, 4),
    Case(32, 1000, 100, 0.2, 4),
)
SHORT = (Case(3, 1, 100, 0.0, 1), Case(3, 1, 1000, 0.0, 1), Case(3, 1, 10_000, 0.0, 1), Case(8, 1, 1000, 0.0, 4))
# The least geometric mean, and the least ratio of a single case, on one core.
PASS = {"score": (14.0, 3.0), "decode": (12.0, 3.0), "EM step": (8.0, 2.5)}
EMISSIONS = ("Poisson", "Categorical", "Normal full", "StudentT")
EMISSION_PASS = 5.0


def make(case: Case) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Data from a chain with normal emissions, the lengths of its sequences, and its parameters."""
    rng = np.random.default_rng(0)
    s, d = case.n_states, case.n_variables
    widest = int(case.n_steps * case.spread)
    lengths = rng.integers(case.n_steps - widest, case.n_steps + widest + 1, case.n)
    parameters = {
        "initial": np.full(s, 1.0 / s),
        "transition": rng.dirichlet(np.ones(s), s),
        "mean": 3 * rng.normal(size=(s, d)),
        "scale": rng.uniform(0.7, 1.4, (s, d)),
    }
    z = rng.integers(0, s, lengths.sum())
    x = parameters["mean"][z] + parameters["scale"][z] * rng.normal(size=(lengths.sum(), d))
    return x, lengths, parameters


def peer(x: np.ndarray, lengths: np.ndarray, parameters: dict[str, np.ndarray]) -> Tasks:
    def new() -> peers.GaussianHMM:
        model = peers.GaussianHMM(
            len(parameters["initial"]), "diag", implementation="scaling", n_iter=1, init_params="", min_covar=1e-6
        )
        model.startprob_, model.transmat_ = parameters["initial"], parameters["transition"]
        model.means_, model.covars_ = parameters["mean"], parameters["scale"] ** 2
        return model

    model = new()
    return {
        "score": lambda: model.score(x, lengths),
        "decode": lambda: model.decode(x, lengths),
        "EM step": lambda: new().fit(x, lengths),
    }


def kernels(x: np.ndarray, lengths: np.ndarray, parameters: dict[str, np.ndarray]) -> Tasks:
    initial, transition = parameters["initial"][None, None], parameters["transition"][None]
    padded = np.zeros((len(lengths), lengths.max(), x.shape[1]))
    padded[np.arange(lengths.max()) < lengths[:, None]] = x

    def problem() -> tuple:
        emission = chain.normal_emission(padded, parameters["mean"][None], parameters["scale"][None] ** 2)
        return initial, transition, emission, lengths

    return {
        "score": lambda: chain.log_prob_steps(*problem()),
        "decode": lambda: chain.decode(*problem()),
        "EM step": lambda: chain.summed_expectations(*problem()),
    }


def estimators(x: np.ndarray, lengths: np.ndarray, parameters: dict[str, np.ndarray]) -> Tasks:
    known = ps.HMM(len(parameters["initial"]), emission=ps.Normal()).with_parameters(**parameters)
    given = None if len(lengths) == 1 else lengths
    model, batch = known.model_.model, known._batch(known._read(x, given))
    start = {name: torch.from_numpy(value)[None] for name, value in parameters.items()}
    return {
        "score": lambda: known.score(x, lengths=given),
        "decode": lambda: known.decode(x, lengths=given),
        "EM step": lambda: model.em_step(start, batch),
    }


def other_emissions(name: str, case: Case) -> tuple[Callable[[], object], Callable[[], object] | None]:
    """One EM iteration of ours, and of hmmlearn's where it has that emission."""
    x, lengths, parameters = make(case)
    rng = np.random.default_rng(1)
    s, d = case.n_states, case.n_variables
    known = {"initial": parameters["initial"], "transition": parameters["transition"]}
    theirs: peers.BaseHMM | None = None
    options = {"n_components": s, "implementation": "scaling", "n_iter": 1, "init_params": ""}
    if name == "Poisson":
        x = rng.poisson(np.exp(0.3 * x))
        emission, known = ps.Poisson(), {**known, "rate": rng.uniform(1, 6, (s, d))}
        theirs = peers.PoissonHMM(**options)
        attributes = {"lambdas_": known["rate"]}
    elif name == "Categorical":
        x = rng.integers(0, 6, (len(x), 1))
        emission, known = ps.Categorical(6), {**known, "probs": rng.dirichlet(np.ones(6), s)}
        theirs = peers.CategoricalHMM(**options)
        attributes = {"emissionprob_": known["probs"], "n_features": 6}
    elif name == "Normal full":
        root = 0.3 * rng.normal(size=(s, d, d)) + np.eye(d)
        covariance = root @ np.swapaxes(root, 1, 2)
        emission = ps.Normal("full")
        known = {**known, "mean": parameters["mean"], "covariance": covariance}
        theirs = peers.GaussianHMM(covariance_type="full", **options)
        attributes = {"means_": parameters["mean"], "covars_": covariance}
    else:
        emission = ps.StudentT(df=5.0)
        known = {**known, "loc": parameters["mean"], "scale": parameters["scale"]}
        attributes = {}
    estimator = ps.HMM(s, emission=emission).with_parameters(**known)
    model, batch = estimator.model_.model, estimator._batch(estimator._read(x, None))
    start = {key: value.detach() for key, value in estimator.model_.params.items()}

    def fit() -> object:
        theirs.startprob_, theirs.transmat_ = parameters["initial"], parameters["transition"]
        for key, value in attributes.items():
            setattr(theirs, key, value)
        return theirs.fit(x, lengths)

    return lambda: model.em_step(start, batch), fit if theirs is not None else None


def alternate(mine: Callable[[], object], theirs: Callable[[], object], rounds: int, calls: int = 1) -> np.ndarray:
    """Seconds of a call of both (2, rounds), the peer last in one round and first in the next.

    With one thread the clock counts the time of the processor, which other processes on the machine do not change.
    """
    clock = time.process_time if OPTIONS.threads == 1 else time.perf_counter
    mine()
    seconds = []
    for number in range(rounds):
        taken = {}
        for run in (mine, theirs) if number % 2 == 0 else (theirs, mine):
            begun = clock()
            for _ in range(calls):
                run()
            taken[run] = (clock() - begun) / calls
        seconds.append((taken[mine], taken[theirs]))
    return np.array(seconds).T


def medians(seconds: np.ndarray) -> tuple[float, float, float]:
    """Milliseconds of both and the ratio within a round."""
    ours, theirs = seconds
    return 1e3 * float(np.median(ours)), 1e3 * float(np.median(theirs)), float(np.median(theirs / ours))


def begin(name: str, title: str, measured: str, options: argparse.Namespace) -> Record:
    return Record(name, title, measured, options, ["hmmlearn", "scikit-learn"], options.threads)


def compare_tasks(options: argparse.Namespace) -> None:
    cases = [case._replace(n_steps=case.n_steps // 50, n=-(-case.n // 50)) for case in CASES[:1] + CASES[4:5]]
    ratios: dict[str, list[float]] = {task: [] for task in PASS}
    record = begin(
        "hmm" + "_kernels" * options.kernels + (f"_{options.threads}_threads" if options.threads > 1 else ""),
        "Hidden Markov models with diagonal normals beside hmmlearn",
        f"{'Processor time' if options.threads == 1 else 'Time on the wall'} of "
        f"{'the bare kernels' if options.kernels else 'the estimators, reading and checks included,'} and of hmmlearn "
        "with its fastest implementation, which has one thread: log-likelihood, most probable path, one EM iteration.",
        options,
    )
    print(f"{'case':>28} {'task':>8} {'ours ms':>9} {'hmmlearn ms':>12} {'ratio':>6}")
    for case in cases if options.smoke else CASES:
        data = make(case)
        mine, theirs = (kernels if options.kernels else estimators)(*data), peer(*data)
        for task in PASS:
            seconds = alternate(mine[task], theirs[task], options.rounds)
            record.speed(task, str(case), "hmmlearn", *seconds)
            a, b, ratio = medians(seconds)
            ratios[task].append(ratio)
            print(f"{case!s:>28} {task:>8} {a:9.2f} {b:12.2f} {ratio:6.1f}", flush=True)
    for task, (mean, least) in PASS.items():
        found = np.exp(np.mean(np.log(ratios[task])))
        marks = f"geometric mean at least {mean:g}: {found >= mean}; every case at least {least:g}"
        print(f"{task:>8}: geometric mean {found:.1f} ({marks}: {min(ratios[task]) >= least})")
        if options.threads == 1 and not options.kernels:
            record.mark(f"{task}: times as fast as hmmlearn, geometric mean", found, mean)
            record.mark(f"{task}: times as fast as hmmlearn, least of all cases", min(ratios[task]), least)
    record.finish()


def compare_short(options: argparse.Namespace) -> None:
    record = begin(
        "hmm_short",
        "Hidden Markov models with diagonal normals on short series beside hmmlearn",
        "Processor time of one call, of 20 in a row. On short series the call itself, with its checks, counts for more "
        "than the recursion.",
        options,
    )
    print(f"{'case':>28} {'task':>8} {'ours ms':>9} {'hmmlearn ms':>12} {'ratio':>6}")
    for case in SHORT[:1] if options.smoke else SHORT:
        data = make(case)
        mine, theirs = estimators(*data), peer(*data)
        for task in PASS:
            seconds = alternate(mine[task], theirs[task], options.rounds, 20)
            record.speed(task, str(case), "hmmlearn", *seconds)
            a, b, ratio = medians(seconds)
            print(f"{case!s:>28} {task:>8} {a:9.2f} {b:12.2f} {ratio:6.1f}", flush=True)
    record.finish()


def compare_emissions(options: argparse.Namespace) -> None:
    record = begin(
        "hmm_emissions",
        "Hidden Markov models with other emissions beside hmmlearn",
        "Processor time of one EM iteration; hmmlearn with its fastest implementation.",
        options,
    )
    print(f"{'emission':>12} {'case':>28} {'ours ms':>9} {'hmmlearn ms':>12} {'ratio':>6}")
    for name in EMISSIONS:
        case = Case(8, 1, 2000 if options.smoke else 50_000, 0.0, 4)
        mine, theirs = other_emissions(name, case)
        seconds = alternate(mine, theirs or mine, options.rounds)
        a, b, ratio = medians(seconds)
        if theirs:
            record.speed("EM step", f"{name}, {case}", "hmmlearn", *seconds)
            record.mark(f"EM step, {name}: times as fast as hmmlearn", ratio, EMISSION_PASS)
        rest = f"{b:12.2f} {ratio:6.1f} (at least {EMISSION_PASS:g}: {ratio >= EMISSION_PASS})"
        print(f"{name:>12} {case!s:>28} {a:9.2f} {rest if theirs else 'no peer':>12}", flush=True)
    record.finish()


def fit_once(which: str, smoke: bool) -> None:
    """One fit in this process; prints the peak memory of the process in MB."""
    case = Case(8, 1, 5000 if smoke else 100_000, 0.0, 4)
    x, lengths, parameters = make(case)
    # What a first call loads and compiles is no part of a fit.
    few = 2000
    if which == "probseq":
        known = ps.HMM(case.n_states, emission=ps.Normal(), inference=ps.EM(n_init=1, max_iter=3))
        known.fit(x[:few])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        known.fit(x)
    elif which == "hmmlearn":
        model = peers.GaussianHMM(case.n_states, "diag", implementation="scaling", n_iter=3)
        model.fit(x[:few])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.fit(x, lengths)
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def compare_memory(options: argparse.Namespace) -> None:
    record = begin(
        "hmm_memory",
        "Memory that the fit of a hidden Markov model takes",
        "MiB that three EM iterations add to the peak memory of a process that has fitted a short series before.",
        options,
    )
    extra = ["--smoke"] if options.smoke else []
    peaks = {}
    for which in ("probseq", "hmmlearn"):
        command = [sys.executable, __file__, "--fit", which, *extra]
        peaks[which] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        print(f"{which:>9}: a fit adds {peaks[which]:.1f} MB to the peak memory of the process")
        record.value("peak memory of a fit", library=which, MiB=peaks[which])
    share = peaks["probseq"] / max(peaks["hmmlearn"], 1e-9)
    print(f"share of hmmlearn's: {share:.2f} (at most 0.5: {share <= 0.5})")
    record.mark("peak memory of a fit, share of hmmlearn's", share, 0.5, at_least=False)
    record.finish()


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if options.smoke:
        options.rounds = 1
    if options.fit:
        fit_once(options.fit, options.smoke)
    elif options.memory:
        compare_memory(options)
    elif options.short:
        compare_short(options)
    elif options.emissions:
        compare_emissions(options)
    else:
        compare_tasks(options)


if __name__ == "__main__":
    main(OPTIONS)
