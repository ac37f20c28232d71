"""Concatenated sequences and padded batches, cut by the lengths of the sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probseq.data.intake import Cut, Intake
from probseq.data.numeric import as_array
from probseq.errors import ShapeError

__all__ = ["split_by_lengths"]


def split_by_lengths(intake: Intake, lengths: Any) -> Intake:
    """Cut one concatenated sequence, or a padded batch, by `lengths` as hmmlearn does.

    Raises
    ------
    ShapeError
        If the lengths are not positive integers that sum to the rows of X.
    """
    given = as_array(lengths)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given) or (given < 1).any():
        raise ShapeError(
            got=f"lengths={lengths!r}",
            expected="a 1-D list of positive integers, one for each sequence",
            remedy="Leave lengths out for one sequence.",
        )
    if intake.text or (intake.many and len({len(block) for block in intake.blocks}) > 1):
        raise ShapeError(
            got="lengths= together with data that are separate sequences already",
            expected="lengths= only with one concatenated array or a padded 3-D array",
            remedy="Leave lengths out.",
        )
    if intake.many:
        return _cut_padding(intake, given)
    rows = len(intake.blocks[0])
    if given.sum() != rows:
        raise ShapeError(
            got=f"lengths that sum to {given.sum()} for X with {rows} rows",
            expected="lengths that sum to the number of rows",
            remedy="Rows may have been split or selected without their lengths; pass a list of sequences instead, "
            "which cross-validation splits by sequence.",
        )
    index = intake.indexes[0]
    return replace(
        intake,
        blocks=Cut(intake.blocks[0], given),
        indexes=[None] * len(given) if index is None else list(Cut(index, given)),
        many=True,
        coords={key: (dims, values) for key, (dims, values) in intake.coords.items() if "time" not in dims},
        covariates=None if intake.covariates is None else Cut(intake.covariates[0], given),
    )


def _cut_padding(intake: Intake, given: np.ndarray) -> Intake:
    longest = len(intake.blocks[0])
    if len(given) != len(intake.blocks) or given.max() > longest:
        raise ShapeError(
            got=f"{len(given)} lengths up to {given.max()} for {len(intake.blocks)} sequences of {longest} steps",
            expected="one length for each sequence, none longer than the padded array",
            remedy="Give the number of real steps of each sequence.",
        )
    cut = [block[:n] for block, n in zip(intake.blocks, given, strict=True)]
    stamps = [None if index is None else index[:n] for index, n in zip(intake.indexes, given, strict=True)]
    return replace(intake, blocks=cut, indexes=stamps)
