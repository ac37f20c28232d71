"""Forecasts of one fit from many origins: one pass of states along the data, then all horizons as one batch."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone

from probseq._random import numpy_generator
from probseq.comparison.joint_scores import joint_log_score
from probseq.comparison.origins import Origins
from probseq.data.sequences import Sequences
from probseq.errors import UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.history import without_inputs
from probseq.estimators.per_sequence import PerSequence
from probseq.estimators.pipeline import model_inputs
from probseq.models.base import Batch, map_state
from probseq.results.backends import Backend, LawBackend
from probseq.results.joint import make_batch

__all__ = ["HeldForecasts", "Question", "answer", "fit_and_forecast", "fit_to_past", "note_numbers"]

# Numbers that one batch of forecasts may hold at a time.
_PATH_ENTRIES = 20_000_000


@dataclass(frozen=True)
class Question:
    """What is asked of every forecast.

    Parameters
    ----------
    horizon : int
    quantiles : (Q,) levels
    levels : (L,) probabilities of central intervals
    weights : "adapt" or "frozen"
    window : how many last steps a fit sees, None for all
    n_paths : simulated paths where a law has no closed form
    seed : of these paths
    """

    horizon: int
    quantiles: tuple[float, ...]
    levels: tuple[float, ...]
    weights: str = "adapt"
    window: int | None = None
    n_paths: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class HeldForecasts:
    """Answers of one fit at its origins, and their scores; NaN where there was no forecast or no value.

    Parameters
    ----------
    log_score : (m, h, n), nats of each step by itself
    joint_log_score : (m, n), nats of all steps together
    crps, mean, mode : (m, h, n, k); the mode is the most probable code of a category
    quantiles : (m, h, n, k, Q)
    coverage : (m, h, n, k, L), whether the central interval held the value
    method : how the laws were found
    message : what the fit had to say
    """

    log_score: np.ndarray
    joint_log_score: np.ndarray
    crps: np.ndarray
    mean: np.ndarray
    mode: np.ndarray
    quantiles: np.ndarray
    coverage: np.ndarray
    method: str = ""
    message: str = ""

    @classmethod
    def blank(cls, m: int, n: int, k: int, asked: Question) -> Self:
        """Nothing known yet."""
        step, value = (m, asked.horizon, n), (m, asked.horizon, n, k)
        shapes = (step, (m, n), value, value, value, (*value, len(asked.quantiles)), (*value, len(asked.levels)))
        return cls(*(np.full(shape, np.nan) for shape in shapes))  # type: ignore[arg-type]

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, for a file."""
        return {one.name: np.asarray(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_arrays(cls, held: Mapping[str, np.ndarray]) -> Self:
        """The inverse of ``arrays``."""
        parts: dict[str, Any] = {name: part if part.ndim else str(part) for name, part in held.items()}
        return cls(**parts)


def fit_and_forecast(
    model: SequenceEstimator | PerSequence,
    fitted: bool,
    data: Sequences,
    origins: Origins,
    group: np.ndarray,
    asked: Question,
    threads: int = 1,
) -> HeldForecasts:
    """Fit a copy to what the first origin of a group knows (a fitted model stays as it is), and forecast from each.

    The series of a ``PerSequence`` run on some threads; one that cannot be fitted leaves NaN and a message, and raises
    only where none can.
    """
    cuts, valid = origins.cuts[group], origins.valid[group]
    if not isinstance(model, PerSequence):
        return _of_one_model(model, fitted, data, cuts, valid, asked)
    rows = np.flatnonzero(valid.any(0)).tolist()

    def one(i: int) -> HeldForecasts | Exception:
        # A series that begins behind the first origin is fitted at the first one that knows some of it.
        late = int(np.argmax(valid[:, i]))
        try:
            own = model[data.names[i]] if fitted else model._template()
            return _of_one_model(own, fitted, data.select([i]), cuts[late:, [i]], valid[late:, [i]], asked)
        except (ArithmeticError, ValueError, TypeError, RuntimeError, np.linalg.LinAlgError) as error:
            return error

    if threads == 1 or len(rows) == 1:
        each = [one(i) for i in rows]
    else:
        with ThreadPoolExecutor(min(threads, len(rows))) as pool:
            each = list(pool.map(one, rows))
    return _side_by_side(each, rows, data, len(group), asked)


def _side_by_side(
    each: list[HeldForecasts | Exception], rows: list[int], data: Sequences, m: int, asked: Question
) -> HeldForecasts:
    """Answers for some series, each from its last origins of m, as one."""
    found, messages, ways = HeldForecasts.blank(m, data.n_sequences, data.n_variables, asked), [], []
    failures = [one for one in each if isinstance(one, Exception)]
    if len(failures) == len(each):
        raise failures[0]
    for i, one in zip(rows, each, strict=True):
        if isinstance(one, Exception):
            messages.append(f"{data.names[i]}: no forecasts, {type(one).__name__}: {one}")
            continue
        for part, whole in zip(one.arrays().values(), found.arrays().values(), strict=True):
            if whole.ndim:
                late = slice(m - len(part), m)
                whole[(late, [i]) if whole.ndim == 2 else (late, slice(None), [i])] = part
        ways.append(one.method)
        if one.message:
            messages.append(f"{data.names[i]}: {one.message}")
    method = ways[0] if len(set(ways)) == 1 else "one model a series"
    return replace(found, method=method, message=" ".join(messages))


def fit_to_past(
    model: SequenceEstimator, data: Sequences, cuts: np.ndarray, window: int | None = None
) -> tuple[SequenceEstimator, Sequences]:
    """A copy of a model fitted to the first ``cuts`` (n,) steps, or the last ``window`` of these; the data it reads."""
    own = clone(model)
    if not own._build(own._info(data)).n_covariates:
        data = without_inputs(data)
    known = np.flatnonzero(cuts >= 1)
    start = np.zeros_like(cuts) if window is None else np.maximum(cuts - window, 0)
    own._fit(data.select(known).slice_time(start[known], cuts[known]), None, None, None, None)
    return own, own._read(data)


def _of_one_model(
    model: SequenceEstimator, fitted: bool, data: Sequences, cuts: np.ndarray, valid: np.ndarray, asked: Question
) -> HeldForecasts:
    first = cuts[0]
    known = np.flatnonzero(first >= 1)
    if fitted:
        own, message = model, ""
        data = own._read(data if own.model_.n_covariates else without_inputs(data))
        past = (data if len(known) == len(first) else data.select(known)).slice_time(0, first[known])
        with torch.no_grad():
            started = own._after(past)
    else:
        own, data = fit_to_past(model, data, first, asked.window)
        started, message = own.training_state_, " ".join(own.draws_.messages)
    if len(known) < len(first):
        rows, fresh = torch.as_tensor(known), own.model_.initial_state({}, len(first))
        started = map_state(lambda leaf, new: leaf.index_copy(0, rows, new), fresh, started)
    state = own._held(started, asked.weights)
    batch, steps = _between(own, data, first, cuts, valid)
    with torch.no_grad():
        along = own._weighed(asked.weights)._states_at({}, batch, steps, state)
    answers = HeldForecasts.blank(len(valid), data.n_sequences, data.n_variables, asked)
    method = answer(own, data, cuts, valid, along, asked, answers)
    return replace(answers, method=method, message=message)


def _between(
    own: SequenceEstimator, data: Sequences, first: np.ndarray, cuts: np.ndarray, valid: np.ndarray
) -> tuple[Batch, torch.Tensor]:
    """The data from the first origin to the last of each sequence, and how far each origin is into them (n, m)."""
    offsets = np.where(valid, cuts - first, 0)
    lengths = offsets.max(0)
    at = np.minimum(first[:, None] + np.arange(int(lengths.max())), data.max_length - 1)
    rows, inputs = np.arange(data.n_sequences)[:, None], model_inputs(data)
    batch = make_batch(own.model_, data.values[rows, at], lengths, None if inputs is None else inputs[rows, at])
    return batch, torch.as_tensor(offsets.T)


def answer(
    own: SequenceEstimator,
    data: Sequences,
    cuts: np.ndarray,
    valid: np.ndarray,
    along: Any,
    asked: Question,
    answers: HeldForecasts,
) -> str:
    """Fill in the answers of all origins from the states there (n, m, ...), some at a time; how laws were found."""
    h, k = asked.horizon, data.n_variables
    origin, row = np.nonzero(valid)
    i, j = torch.as_tensor(row), torch.as_tensor(origin)
    tree = map_state(lambda leaf: leaf[i, j], along)
    with torch.no_grad():
        ready = own.model_.scores_next(tree)
    if ready is not None and not bool(ready.all()):
        able = ready.all(-1)
        tree, keep = map_state(lambda leaf: leaf[able], tree), able.numpy()
        origin, row = origin[keep], row[keep]
    at = cuts[origin, row][:, None] + np.arange(h)
    there = at < data.lengths[row][:, None]
    inside = np.minimum(at, data.max_length - 1)
    y = np.where(there[..., None], data.values[row[:, None], inside], np.nan)
    inputs = model_inputs(data) if own.model_.n_covariates else None
    u = None if inputs is None else np.nan_to_num(inputs[row[:, None], inside])
    generator, method = numpy_generator(np.random.SeedSequence([asked.seed, int(cuts.max())])), ""
    # Numbers a value: its quantiles, or the cdf of every draw at each of them.
    depth = (len(asked.quantiles) + 2 * len(asked.levels) + 1) * own.model_.n_draws
    width, first = max(depth, asked.n_paths), 0
    while first < len(row):
        some = slice(first, first + max(1, _PATH_ENTRIES // (width * h * k)))
        part = map_state(lambda leaf, s=some: leaf[s], tree)
        told = None if u is None else u[some]
        joint, backend, how = own._ahead(part, h, told, asked.n_paths, generator)
        method = how or backend.name
        # One axis of pairs of an origin and a sequence becomes two, with the horizon between them.
        at_origin, at_row = origin[some], row[some]
        answers.log_score[at_origin, :, at_row] = _log_score(own, part, told, backend, y[some])
        if own.has_likelihood:
            answers.joint_log_score[at_origin, at_row] = joint_log_score(joint, y[some], there[some].sum(-1))
        note_numbers(backend, y[some], there[some], asked, answers, at_origin, at_row)
        first = some.stop
        if isinstance(backend, LawBackend):
            width = depth  # no paths were needed, nor will they be
    return method


def _log_score(own: SequenceEstimator, tree: Any, u: np.ndarray | None, backend: Backend, y: np.ndarray) -> np.ndarray:
    """Nats of each step by itself, (rows, h); where there are paths only, of the first step."""
    if not own.has_likelihood:
        return np.full(y.shape[:2], np.nan)
    if isinstance(backend, LawBackend):
        return backend.log_prob(y)
    with torch.no_grad():
        law = own.model_.predict_next({}, tree, None if u is None else torch.as_tensor(u[:, 0]))
    scores = np.full(y.shape[:2], np.nan)
    scores[:, :1] = LawBackend(law[:, None]).log_prob(y[:, :1])
    return scores


def note_numbers(
    backend: Backend,
    y: np.ndarray,
    there: np.ndarray,
    asked: Question,
    answers: HeldForecasts,
    origin: np.ndarray,
    row: np.ndarray,
) -> None:
    """Fill in moments, quantiles, CRPS and coverage of forecasts that are rows of pairs of an origin and a sequence."""
    labels, blank = backend.nominal_variables, ~there[..., None]
    if labels.any():
        answers.mode[origin, :, row] = np.where(blank, np.nan, backend.mode())
    if labels.all():
        return
    y, blank = np.where(labels, np.nan, y), blank | labels
    try:
        answers.crps[origin, :, row] = backend.crps(y)
    except UnsupportedError:
        pass  # a backend without one leaves NaN
    answers.mean[origin, :, row] = np.where(blank, np.nan, backend.mean())
    levels = np.array(asked.levels)
    wanted = np.concatenate([np.array(asked.quantiles), (1 - levels) / 2, (1 + levels) / 2])
    each, back = np.unique(np.round(wanted, 12), return_inverse=True)
    found = np.where(blank[..., None], np.nan, backend.quantile(each)[..., back])
    q, n_levels = len(asked.quantiles), len(levels)
    answers.quantiles[origin, :, row] = found[..., :q]
    lower, upper = found[..., q : q + n_levels], found[..., q + n_levels :]
    held = (y[..., None] >= lower) & (y[..., None] <= upper)
    answers.coverage[origin, :, row] = np.where(np.isnan(y)[..., None], np.nan, held)
