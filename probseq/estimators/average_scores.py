"""What the weights of an average of models are learnt from: log scores of steps that no model has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probseq.data.sequences import Sequences, sequences
from probseq.errors import DataError, IncompatibleError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.history import without_inputs

__all__ = ["held_out_scores", "read_as_models", "split_off", "suited", "unique_names"]


def unique_names(names: Sequence[str]) -> list[str]:
    """Names with numbers behind those that occur more than once."""
    again, seen = Counter(names), Counter[str]()
    out = []
    for name in names:
        seen[name] += 1
        out.append(f"{name} {seen[name]}" if again[name] > 1 else name)
    return out


def suited(model: SequenceEstimator, data: Sequences) -> Sequences:
    """The data without inputs that a model does not take."""
    if not data.n_covariates and not data.static_names:
        return data
    return data if model._build(model._info(data)).n_covariates else without_inputs(data)


def read_as_models(models: Mapping[str, SequenceEstimator], data: Sequences) -> Sequences:
    """The data with the codes of fitted models, all of which can take them.

    Raises
    ------
    IncompatibleError
        For models whose codes mean different tokens.
    DataError
        For data that one of them cannot take.
    """
    words = {model.vocabulary_ for model in models.values()}
    if len(words) > 1:
        raise IncompatibleError(
            got="models of different vocabularies",
            expected="one vocabulary, since their probabilities of a code are averaged",
            remedy="Fit them to texts that ps.sequences(texts, vocabulary=...) has read.",
        )
    vocabulary = words.pop()
    if vocabulary is not None and data.vocabulary is not None:
        data = sequences(data, vocabulary=vocabulary)
    for model in models.values():
        model._checked(data if model.model_.n_covariates else without_inputs(data))
    return data


def split_off(data: Sequences, fraction: float) -> tuple[Sequences, Sequences]:
    """The first steps of every sequence, and the last ones of those that have two or more."""
    cuts = np.clip(np.ceil((1 - fraction) * data.lengths).astype(int), 1, np.maximum(data.lengths - 1, 1))
    more = np.flatnonzero(data.lengths > cuts)
    if not len(more):
        raise DataError(
            got="sequences of one step",
            expected="two or more, to hold out the last ones",
            remedy='Pass longer data, or weights="equal".',
        )
    rest = (data if len(more) == data.n_sequences else data.select(more)).slice_time(cuts[more], data.lengths[more])
    return data.slice_time(0, cuts), rest


def held_out_scores(
    models: Mapping[str, SequenceEstimator], data: Sequences, history: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Log scores (value, model) of the steps that all models score alike, and how far from the end these are."""
    values, masks = [], []
    for model in models.values():
        own = model._checked(data if model.model_.n_covariates else without_inputs(data))
        steps = model._steps(own, model._begin(own, history))
        masks.append(steps.scored.numpy())
        values.append(steps.values.double().numpy())
    alike = np.all([(mask == masks[0]).all(-1) for mask in masks], 0)
    common = alike & masks[0].any(-1)
    ages = (data.lengths[:, None] - 1 - np.arange(data.max_length)).astype(float)
    return np.stack([each[common] for each in values], -1), ages[common]
