"""Small feed-forward parts of a network, over weights that may carry draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from probseq.models.recurrent_layout import Part

__all__ = ["Dense", "affine", "positive", "positive_inverse"]

_LEAST = 1e-4


class Dense:
    r"""y = W_L g(... g(sum_i W_1i x_i + b_1) ...) + b_L with g = tanh: several inputs side by side, one output.

    The first matrix lies in blocks, one an input, so that an input which is the same for many rows is multiplied once.

    Parameters
    ----------
    name : str
        What its pieces are called: "name.0.weight", "name.0.bias", "name.1.weight", ...
    inputs : sequence of int
        Sizes of the inputs; those of size 0 do not count.
    sizes : sequence of int
        Units of every layer, the last one those of the output.
    """

    def __init__(self, name: str, inputs: Sequence[int], sizes: Sequence[int]) -> None:
        self.name, self.inputs, self.sizes = name, tuple(inputs), tuple(sizes)
        self.shapes = [(out, into) for into, out in zip((sum(inputs), *sizes), sizes)]

    @property
    def parts(self) -> dict[str, Part]:
        """The weights, with the prior scale 1 / sqrt(columns) of a matrix and 1 of a bias."""
        parts = {}
        for i, shape in enumerate(self.shapes):
            parts[f"{self.name}.{i}.weight"] = Part(shape, "dense", max(1, shape[1]) ** -0.5)
            parts[f"{self.name}.{i}.bias"] = Part(shape[:1], "dense_bias", 1.0)
        return parts

    def start(self, weights: Mapping[str, Tensor], generator: torch.Generator, last: float = 1.0) -> None:
        """Fill the weights: matrices uniform between +- last^[layer is the last] / sqrt(columns), biases zero."""
        for i, (_, into) in enumerate(self.shapes):
            bound = (last if i + 1 == len(self.shapes) else 1.0) * max(1, into) ** -0.5
            weights[f"{self.name}.{i}.weight"].uniform_(-bound, bound, generator=generator)
            weights[f"{self.name}.{i}.bias"].zero_()

    def first(self, weights: Mapping[str, Tensor], inputs: Mapping[int, Tensor]) -> Tensor:
        """The part of the first layer before g that some of the inputs, by number, have in it; without the bias."""
        blocks = weights[f"{self.name}.0.weight"].split(self.inputs, -1)
        parts = [affine(x, blocks[i]) for i, x in inputs.items() if self.inputs[i]]
        return sum(parts[1:], parts[0])

    def __call__(self, weights: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        """y (*draw, ..., o) from x_i (*draw, ..., size of i), which broadcast against each other."""
        return self.finish(weights, self.first(weights, dict(enumerate(inputs))))

    def finish(self, weights: Mapping[str, Tensor], first: Tensor) -> Tensor:
        """y from what ``first`` gives for all inputs."""
        y = _add(first, weights[f"{self.name}.0.bias"])
        for i in range(1, len(self.sizes)):
            y = affine(torch.tanh(y), weights[f"{self.name}.{i}.weight"], weights[f"{self.name}.{i}.bias"])
        return y


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b, (*draw, ..., o), from x (*draw, ..., i), W (*draw, o, i) and b (*draw, o)."""
    draws = weight.ndim - 2
    if not draws:
        return torch.nn.functional.linear(x, weight, bias)
    y = torch.matmul(x.flatten(draws, -2), weight.mT).reshape(*x.shape[:-1], weight.shape[-2])
    return y if bias is None else _add(y, bias)


def _add(y: Tensor, bias: Tensor) -> Tensor:
    """y + b for y (*draw, ..., o) and b (*draw, o)."""
    return y + bias.reshape(*bias.shape[:-1], *(1,) * (y.ndim - bias.ndim), bias.shape[-1])


def positive(x: Tensor) -> Tensor:
    """A standard deviation from a number: log(1 + e^x) + 1e-4."""
    return torch.nn.functional.softplus(x) + _LEAST


def positive_inverse(scale: float) -> float:
    """The number that ``positive`` makes this standard deviation of."""
    return math.log(math.expm1(scale - _LEAST))
