"""Generation: sequences from a fitted model, text as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Categories
from probseq.errors import HistoryError, HorizonError, ParameterError, UnsupportedError
from probseq.estimators.state_names import StateNames
from probseq.models.base import map_state

if TYPE_CHECKING:
    from probseq.estimators.base import SequenceEstimator

__all__ = ["generate", "tempering"]


def tempering(
    temperature: float, top_k: int | None, top_p: float | None
) -> Callable[[Distribution], Distribution] | None:
    """A map of categorical laws: p^(1/temperature), cut to the ``top_k`` most probable and to the nucleus ``top_p``.

    Source of the nucleus: Holtzman et al. (2020), "The curious case of neural text degeneration", eq. 2 and 3.
    """
    if temperature == 1.0 and top_k is None and top_p is None:
        return None
    if not (isinstance(temperature, int | float) and temperature > 0):
        raise ParameterError(got=f"temperature={temperature!r}", expected="a number above 0", remedy="Use 1.0.")
    if top_k is not None and not (isinstance(top_k, int) and top_k >= 1):
        raise ParameterError(got=f"top_k={top_k!r}", expected="an integer from 1", remedy="Use top_k=10.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ParameterError(got=f"top_p={top_p!r}", expected="a probability in (0, 1]", remedy="Use top_p=0.9.")

    def temper(law: Distribution) -> Distribution:
        if not law.nominal:
            raise UnsupportedError(
                got="temperature, top_k or top_p for a model of numbers",
                expected="a model of categories or tokens",
                remedy="Leave them out.",
            )
        probs: torch.Tensor = law.probs  # type: ignore[attr-defined]
        logits = torch.log(probs) / temperature
        if top_k is not None and top_k < logits.shape[-1]:
            least = logits.topk(top_k, -1).values[..., -1:]
            logits = torch.where(logits >= least, logits, torch.full_like(logits, -torch.inf))
        if top_p is not None:
            ordered, order = torch.sort(torch.softmax(logits, -1), -1, descending=True)
            outside = torch.cumsum(ordered, -1) - ordered >= top_p
            drop = torch.zeros_like(outside).scatter(-1, order, outside)
            logits = torch.where(drop, torch.full_like(logits, -torch.inf), logits)
        return Categories(logits=logits)

    return temper


def generate(
    estimator: SequenceEstimator,
    length: int,
    n_sequences: int | None,
    history: Any,
    covariates: Any,
    states: bool,
    shaping: tuple[float, int | None, float | None],
    random_state: RandomState,
) -> Any:
    """See ``SequenceEstimator.sample``."""
    estimator._check_fitted()
    n = 1 if n_sequences is None else n_sequences
    for name, value in (("length", length), ("n_sequences", n)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise HorizonError(got=f"{name}={value!r}", expected="a whole number from 1", remedy=f"Try {name}=1.")
    model = estimator.model_
    if states and not estimator.has_states:
        raise UnsupportedError(
            got=f"sample(states=True) of {type(estimator).__name__}",
            expected="a family with discrete hidden states",
            remedy="Use HMM, or leave states out.",
        )
    state, index = _start(estimator, history, n, int(length))
    ready = model.scores_next(state)
    begins = history is None and model.starts_itself
    if not begins and ready is not None and not bool(ready.all()):
        raise HistoryError(
            got="generation without the values that the model starts from",
            expected=f"a history, since {type(estimator).__name__} conditions on its first values",
            remedy="Pass history=ps.TRAINING or history=X.",
        )
    labels = replace(estimator._unlabelled(n), many=n_sequences is not None)
    inputs = estimator._future_inputs(labels, covariates, int(length), (index,) * n)
    u = None if inputs is None else torch.as_tensor(inputs)
    seed = estimator.random_state if random_state is None else random_state
    generator = torch_generator(seed)
    if states:
        if tempering(*shaping) is not None:
            raise ParameterError(
                got="states=True with temperature, top_k or top_p",
                expected="the model's own law of states and values",
                remedy="Leave the one or the other out.",
            )
        values, hidden = estimator._sample_states(state, int(length), generator, u)
        labelled = labels.label(hidden, ("sequence", "time"), name="state", index=(index,) * n)
        labelled = estimator._named_states(labelled) if isinstance(estimator, StateNames) else labelled
        return _values(estimator, labels, values, index, n_sequences), labelled
    values, _ = model.sample({}, state, int(length), generator, u, tempering(*shaping))
    return _values(estimator, labels, values.numpy().astype(float), index, n_sequences)


def _start(estimator: SequenceEstimator, history: Any, n: int, length: int) -> tuple[Any, pd.Index]:
    if history is None:
        return estimator.model_.initial_state({}, n), pd.RangeIndex(length)
    from probseq.estimators.base import TRAINING

    if history is TRAINING or estimator._is_training(history):
        past, state = estimator._training()
    else:
        past = estimator._read_past(history)
        state = estimator.model_.filter({}, estimator._batch(past))
    if past.n_sequences != 1:
        raise HistoryError(
            got=f"a history of {past.n_sequences} sequences", expected="one sequence", remedy="Select one to continue."
        )
    return map_state(lambda leaf: leaf.expand(n, *leaf.shape[1:]), state), past.future_index(length)[0]


def _values(
    estimator: SequenceEstimator, labels: Sequences, values: np.ndarray, index: pd.Index, n_sequences: int | None
) -> Any:
    words = estimator.vocabulary_
    if words is None:
        return labels.label(
            values, ("sequence", "time", "variable"), name="sample", index=(index,) * len(values), attrs=labels.attrs
        )
    decoded = [words.decode(row[:, 0]) for row in values]
    if labels.is_text:
        texts = [words.join(row) for row in decoded]
        return texts[0] if n_sequences is None else texts
    return decoded[0] if n_sequences is None else decoded
