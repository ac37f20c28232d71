"""How much each sequence counts in a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from probseq.data.sequences import Sequences
from probseq.errors import DataError

__all__ = ["sequence_weights"]


def sequence_weights(weights: Any, data: Sequences) -> torch.Tensor | None:
    """The weights of the sequences, (n,), as numbers or by the names of the sequences; None where none are given.

    Raises
    ------
    DataError
        That says which of them is missing, unknown, negative or no number.
    """
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        unknown = [name for name in weights if name not in data.names]
        missing = [name for name in data.names if name not in weights]
        if unknown or missing:
            raise DataError(
                got=f"weights of the sequences {list(weights)}",
                expected=f"one for each of {list(data.names[:5])}{'...' if data.n_sequences > 5 else ''}",
                remedy=" ".join(
                    f"{what}: {names[:5]}." for what, names in (("Missing", missing), ("Unknown", unknown)) if names
                ),
            )
        weights = [weights[name] for name in data.names]
    try:
        array = np.asarray(weights, dtype=np.float64).copy()
    except (TypeError, ValueError) as error:
        raise DataError(
            got=f"weights={weights!r}", expected="numbers, one a sequence", remedy="Convert them first."
        ) from error
    if array.shape != (data.n_sequences,):
        raise DataError(
            got=f"weights of shape {array.shape}",
            expected=f"{data.n_sequences} numbers, one a sequence",
            remedy="Weigh sequences, not steps.",
        )
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(
            got=f"the weight {array[i]:g} of sequence {data.names[i]!r}",
            expected="finite numbers from 0 upwards",
            remedy="A weight of 0 leaves a sequence out.",
        )
    if not array.any():
        raise DataError(
            got="weights that are all zero", expected="at least one above zero", remedy="Leave weights out."
        )
    return torch.as_tensor(array)
