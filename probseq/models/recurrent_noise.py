"""Dropout while a network is trained."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq._types import number_in

__all__ = ["NO_DROPOUT", "Dropout", "Masks", "dropout_rate"]


class Masks(NamedTuple):
    """What multiplies the parts of one forward pass; each entry is 0 or 1 / (1 - rate), or the mask is None.

    weights : (m,), of the flat vector of the cells; ones but in the recurrent matrices
    inputs : (n, 1, i), of what the first layer reads
    between : of what each further layer reads, (n, t, h) or (n, 1, h)
    features, direct : of what the head reads, (n, t, f) or (n, 1, f), and (n, 1, i)
    """

    weights: Tensor | None
    inputs: Tensor | None
    between: tuple[Tensor, ...]
    features: Tensor | None
    direct: Tensor | None


def dropout_rate(name: str, value: Any) -> float:
    """An argument as the share of what is dropped, in [0, 1); a ParameterError that names it otherwise."""
    return number_in(name, value, "[0, 1)", f"Write {name}=0.2 for 20 %.")


class Dropout(NamedTuple):
    r"""Rates of three kinds of noise; what is left is divided by 1 - rate, so that every expectation stays.

    outputs : what a layer passes on, to the next one or to the head, anew at every step (Zaremba et al. 2014)
    locked : what each layer and the head read, one mask a sequence of a mini-batch (Gal and Ghahramani 2016, section 4)
    weights : the recurrent matrices, one mask a mini-batch (Merity et al. 2018, section 2)
    """

    outputs: float = 0.0
    locked: float = 0.0
    weights: float = 0.0

    def check(self) -> None:
        """Raise ``ParameterError`` for a rate outside [0, 1)."""
        for name, rate in zip(("dropout", "locked_dropout", "weight_dropout"), self, strict=True):
            dropout_rate(name, rate)

    def masks(
        self,
        like: Tensor,
        shape: tuple[int, int],
        sizes: tuple[int, int, int],
        n_above: int,
        places: tuple[slice, ...],
        n_weights: int,
        generator: torch.Generator,
    ) -> Masks:
        """Draw the masks of one forward pass over (n, t) steps, with the dtype and on the device of ``like``.

        Parameters
        ----------
        sizes : numbers of inputs, hidden units and features
        n_above : number of layers above the first
        places : where the recurrent matrices lie in the flat vector of the cells, which has ``n_weights``
        """
        (n, t), (n_inputs, hidden, n_features) = shape, sizes

        def mask(rate: float, *wanted: int) -> Tensor:
            kept = torch.empty(wanted, dtype=like.dtype, device=like.device)
            return kept.bernoulli_(1 - rate, generator=generator).div_(1 - rate)

        def passed(size: int) -> Tensor | None:
            found = None
            if self.outputs:
                found = mask(self.outputs, n, t, size)
            if self.locked:
                fixed = mask(self.locked, n, 1, size)
                found = fixed if found is None else found * fixed
            return found

        weights = None
        if self.weights:
            weights = torch.ones(n_weights, dtype=like.dtype, device=like.device)
            for place in places:
                weights[place] = mask(self.weights, place.stop - place.start)
        inputs, direct = (mask(self.locked, n, 1, n_inputs) if self.locked else None for _ in range(2))
        above = [passed(hidden) for _ in range(n_above)]
        return Masks(weights, inputs, tuple(m for m in above if m is not None), passed(n_features), direct)


NO_DROPOUT = Dropout()
