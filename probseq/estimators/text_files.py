"""Fits to, and scores of, text files that are larger than memory."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from probseq._random import torch_generator
from probseq.data.sequences import Sequences, sequences
from probseq.data.textfile import TextFile
from probseq.errors import ConvergenceWarning, DataError, DegenerateWarning, VocabularyError
from probseq.estimators.fitted import TRAINING, FittedModel
from probseq.estimators.pipeline import fit_transforms
from probseq.inference.files import FileBatch, FileTotals, score_file
from probseq.models.base import SequenceModel
from probseq.models.kneser_ney import KneserNeyModel
from probseq.models.recurrent import RecurrentModel

if TYPE_CHECKING:
    from probseq.estimators.base import SequenceEstimator

__all__ = ["file_totals", "fit_file", "mean_nats"]

_KEPT = 3


def fit_file(estimator: SequenceEstimator, file: TextFile, validation: Any, progress: Any, **others: Any) -> bool:
    """``SequenceEstimator.fit`` for a file; False, with nothing done, for a family that needs its data in memory.

    Raises
    ------
    DataError
        For arguments that a text file has none of.
    """
    started = time.perf_counter()
    _nothing_else(others)
    estimator._check_arguments()
    inference = estimator._inference()
    texts = file.head()
    ends = file.end and file.lines
    example = sequences(texts if file.lines else texts[0], vocabulary=file.vocabulary, end=ends)
    estimator._check_tokens(example)
    transforms, *_ = fit_transforms(estimator._transforms(), example)
    info = estimator._info(example)
    model: SequenceModel[Any] = estimator._build(info)
    if not isinstance(model, RecurrentModel | KneserNeyModel):
        return False
    held_out = None if validation is None else estimator._held_out(validation, example, transforms, model)
    generator = torch_generator(estimator.random_state)
    model, draws = estimator._infer(
        inference, model, FileBatch.of(file), generator, validation=held_out, weights=None, progress=progress
    )
    for message in draws.messages:
        kind = ConvergenceWarning if draws.status in ("max_iter", "decreased") else DegenerateWarning
        warnings.warn(message, kind, stacklevel=3)
    estimator._adopt(model, transforms, draws, info, None)
    totals = score_file(estimator.model_, {}, file, n_draws=estimator.model_.n_draws)
    estimator.vocabulary_ = file.vocabulary
    estimator.training_ = _labels(example, file)
    if not (file.lines or file.end):
        estimator.training_state_ = estimator.model_.reset_weights(totals.final)
    estimator.log_likelihood_ = float(totals.log_prob)
    estimator.n_scored_, estimator.n_scored_steps_ = totals.n_tokens, float(totals.n_tokens)
    estimator.fit_seconds_ = time.perf_counter() - started
    return True


def _nothing_else(others: Mapping[str, Any]) -> None:
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise DataError(
            got=f"{given[0]}= together with a text file",
            expected="the file alone",
            remedy=f"Leave {given[0]} out, or read the file into memory: ps.sequences(file).",
        )


def _labels(example: Sequences, file: TextFile) -> Sequences:
    """What is kept of the data: their labels, and the last steps of one long text."""
    if file.lines:
        return replace(example.select([0]), many=True)
    end = file.n_tokens
    short = example.slice_time(0, min(_KEPT, int(example.lengths[0])))
    index = pd.RangeIndex(end - int(short.lengths[0]), end)
    return replace(short, index=(index,), cut=((int(index[0]), 1),))


def file_totals(
    estimator: FittedModel, file: TextFile, history: Any, others: Mapping[str, Any], weights: str = "adapt"
) -> FileTotals:
    """The log-likelihood of a file.

    Raises
    ------
    VocabularyError
        For a file with codes of its own.
    DataError
        For a history of lines, which begin anew, and arguments that a text file has none of.
    """
    model = estimator._weighed(weights)
    _nothing_else(others)
    if file.vocabulary != estimator.vocabulary_:
        raise VocabularyError(
            got=f"{file!r} with a vocabulary of its own",
            expected=f"that of the fitted {type(estimator).__name__}",
            remedy="Write ps.TextFile(path, vocabulary=model.vocabulary_).",
        )
    state = None
    if history is not None:
        if file.lines:
            raise DataError(
                got="history= for a file of lines", expected="lines that begin anew", remedy="Leave history out."
            )
        past = estimator._training()[1] if history is TRAINING else None
        state = estimator._held(estimator._after(estimator._read_past(history)) if past is None else past, weights)
    return score_file(model, {}, file, state, model.n_draws)


def mean_nats(totals: FileTotals, end: bool = True) -> tuple[float, int]:
    """Minus the log-likelihood and the number of tokens, with or without the end tokens."""
    if end:
        return -float(totals.log_prob), totals.n_tokens
    return -float(totals.log_prob - totals.ends), totals.n_tokens - totals.n_ends
