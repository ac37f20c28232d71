"""Training a law of a network's weights on a batch, and what its draws say about that batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from probseq._types import positive_number
from probseq.distributions.params import Real
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError
from probseq.inference.base import Inference, Progress
from probseq.inference.files import FileBatch
from probseq.inference.options import TrainingOptions
from probseq.inference.streams import mini_batches
from probseq.inference.weights import WeightLaw
from probseq.inference.windows import MiniBatch, MiniBatches, hold_back, whole_sequences
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel

__all__ = [
    "LawFit",
    "NetworkInference",
    "as_network",
    "fit_law",
    "learnt_or_positive",
    "log_prob_of_draws",
    "normal_prior",
    "training_options",
    "warn_if_tempered",
]

# Steps of all draws that are evaluated in one go: more would take memory and gain no time.
_STEPS_AT_ONCE = 100_000


class NetworkInference(Inference):
    """An inference that trains a law of the weights of recurrent networks."""

    fits: ClassVar[str] = "recurrent networks"

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, RecurrentModel)


class LawFit(NamedTuple):
    """How the training of a law went (``training.Trained``), and the number of values that it was trained on."""

    done: Any
    n_values: float

    @property
    def settled(self) -> str:
        """The status; converged where the last tenth of the trace rose by less than 0.02 nats a value, or its noise."""
        status, trace = self.done.status, self.done.trace
        if status != "max_iter" or len(trace) < 20:
            return status
        tenth = len(trace) // 10
        last, before = np.asarray(trace[-tenth:]), np.asarray(trace[-2 * tenth : -tenth])
        noise = math.sqrt((last.var() + before.var()) / tenth)
        return "converged" if last.mean() - before.mean() < max(0.02, 2 * noise) else status

    def record(self, total: Tensor, objective: float, status: str) -> dict[str, Any]:
        """What ``Draws`` tell of the fit besides the draws, whose log-likelihoods are ``total`` (D,)."""
        return {
            "log_prob": float(torch.logsumexp(total, 0) - math.log(len(total))),
            "objective": objective,
            "status": status,
            "n_iter": self.done.n_epochs,
            "trace": np.asarray(self.done.trace) * self.n_values,
            "optima": np.asarray([objective]),
        }


def learnt_or_positive(name: str, value: Any) -> None:
    """The rule of a scale that the data may choose."""
    if not isinstance(value, str) or value != "learnt":
        positive_number(name, value, f'Write {name}="learnt" to let the data choose.')


def as_network(model: SequenceModel[Any], inference: Inference) -> RecurrentModel:
    """The model as a recurrent network.

    Raises
    ------
    IncompatibleError
        Where it is none.
    """
    inference.require(type(model))
    return cast(RecurrentModel, model)


def training_options(
    given: TrainingOptions | None, learning_rate: float, validation_fraction: float
) -> TrainingOptions:
    """What a user gave as ``training=``, with the inference's own values where there is none."""
    options = given or TrainingOptions()
    return options.completed(learning_rate=learning_rate, validation_fraction=validation_fraction)


def fit_law(
    model: SequenceModel[Any],
    law: WeightLaw,
    batch: Batch,
    generator: torch.Generator,
    options: TrainingOptions,
    *,
    kl_weight: Callable[[float], float] = lambda done: 1.0,
    validation: Batch | None = None,
    weights: Tensor | None = None,
    progress: Progress | None = None,
) -> LawFit:
    """Train a law in place on what ``options`` do not hold back; see ``training.train``."""
    from probseq.inference.training import train

    rest, rest_weights, held = batch, weights, None
    if validation is not None:
        held = whole_sequences(validation)
    elif options.validation_fraction:
        rest, rest_weights, held = _held_back(batch, weights, options.validation_fraction, generator)
    data: MiniBatches
    if isinstance(rest, FileBatch):
        data = rest.mini_batches(options)
    else:
        data = mini_batches(rest, rest.to_explain, rest_weights, options)
    done = train(model, law, data, generator, options, kl_weight=kl_weight, validation=held, progress=progress)
    return LawFit(done, data.n_values)


def _held_back(
    batch: Batch, weights: Tensor | None, fraction: float, generator: torch.Generator
) -> tuple[Batch, Tensor | None, MiniBatch | None]:
    if isinstance(batch, FileBatch):
        rest, held = batch.hold_back(fraction, generator)
        return rest, weights, held
    return hold_back(batch, weights, fraction, generator)


def log_prob_of_draws(
    model: SequenceModel[Any], params: Mapping[str, Tensor], batch: Batch, weights: Tensor | None = None
) -> Tensor:
    """log p(x | w_d) of the whole batch, each sequence by its weight, (D,) in double precision, without gradients.

    Raises
    ------
    ParameterError
        Where it is no number.
    """
    if isinstance(batch, FileBatch):
        return batch.log_prob(model, params)
    n_draws = next(iter(params.values())).shape[0]
    size = max(1, _STEPS_AT_ONCE // max(1, batch.n * batch.t))
    parts = []
    with torch.no_grad():
        for first in range(0, n_draws, size):
            some = {name: value[first : first + size] for name, value in params.items()}
            each = model.log_prob(some, batch).double()
            parts.append((each if weights is None else each * weights).sum(-1))
    total = torch.cat(parts)
    if bool(total.isnan().any()):
        raise ParameterError(
            got="weights under which the log-likelihood is no number",
            expected="a training that ends at weights with a log-likelihood",
            remedy="Lower learning_rate, standardise the data, or look for extreme values in them.",
        )
    return total


def normal_prior(model: SequenceModel[Any], inference: Inference) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the model's own prior of the flat weight vector, each (m,).

    Raises
    ------
    IncompatibleError
        For parameters that are not real numbers with a normal prior.
    """
    location, scale = [], []
    for name, spec in model.parameters().items():
        if not spec.trainable:
            continue
        if not isinstance(spec.constraint, Real) or not isinstance(spec.prior, torch.distributions.Normal):
            raise IncompatibleError(
                got=f"the parameter {name!r} of {type(model).__name__}",
                expected="real numbers with a normal prior",
                remedy=f"{type(inference).__name__} fits {inference.fits}.",
            )
        location.append(spec.prior.mean.expand(spec.shape).flatten())
        scale.append(spec.prior.stddev.expand(spec.shape).flatten())
    return torch.cat(location), torch.cat(scale)


def warn_if_tempered(kl_weight: float) -> None:
    """Say that a weight of the divergence other than 1 gives no posterior."""
    if kl_weight != 1:
        warnings.warn(
            f"kl_weight={kl_weight:g}: the posterior is tempered; 1 is the evidence lower bound.",
            ApproximationWarning,
            stacklevel=3,
        )
