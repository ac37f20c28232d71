"""Options of gradient training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from probseq._types import Configuration
from probseq.errors import ParameterError

__all__ = ["TrainingOptions"]

_STEPS_IN_ALL = 3000
_FEWEST_EPOCHS = 40


@dataclass(eq=False, repr=False)
class TrainingOptions(Configuration):
    """How to train.

    Parameters
    ----------
    max_epochs : int or None
        Passes over the data. None is as many as make 3000 steps, at least 40.
    learning_rate : float or None
        Of Adam; of AdamW where ``weight_decay`` is positive. None is the inference's own default: 0.005 for maximum
        likelihood, 0.02 for ``MeanField``.
    schedule : {"cosine", "constant"}
        "cosine" lets the learning rate fall to zero along the epochs.
    batch_size : int
        Windows in a mini-batch.
    window, context : int or None
        Scored steps of a window and unscored steps before it; None keeps sequences of up to 512 steps whole.
    gradient_clip : float or None
        Largest norm of a gradient.
    weight_decay : float
    validation_fraction : float or None
        Part of the data held back for early stopping: whole sequences where there are ten or more, otherwise the end of
        each sequence. 0 trains on everything. None is the inference's own default: 0.15 for maximum likelihood, 0 for
        ``MeanField``.
    patience : float
        Early stopping waits this fraction of ``max_epochs`` for a better validation score.
    device : str
        "auto" takes a CUDA device where there is one.
    trainer_kwargs : mapping or None
        Passed on to ``lightning.Trainer``.
    """

    max_epochs: int | None = None
    learning_rate: float | None = None
    schedule: str = "cosine"
    batch_size: int = 32
    window: int | None = None
    context: int | None = None
    gradient_clip: float | None = 1.0
    weight_decay: float = 0.0
    validation_fraction: float | None = None
    patience: float = 0.2
    device: str = "auto"
    trainer_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        whole = {"max_epochs": self.max_epochs, "batch_size": self.batch_size, "window": self.window}
        for name, value in whole.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ParameterError(got=f"{name}={value!r}", expected="a whole number of 1 or more")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ParameterError(got=f"learning_rate={self.learning_rate!r}", expected="a positive number")
        if self.validation_fraction is not None and not 0 <= self.validation_fraction < 1:
            raise ParameterError(got=f"validation_fraction={self.validation_fraction!r}", expected="0 <= fraction < 1")
        if self.schedule not in ("cosine", "constant"):
            raise ParameterError(got=f"schedule={self.schedule!r}", expected='"cosine" or "constant"')

    def completed(self, *, learning_rate: float, validation_fraction: float) -> Self:
        """The same options with these values where None was given."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.learning_rate is None:
            given["learning_rate"] = learning_rate
        if self.validation_fraction is None:
            given["validation_fraction"] = validation_fraction
        return type(self)(**given)

    def epochs(self, batches: int) -> int:
        """``max_epochs``, or what makes the usual number of steps with so many mini-batches a pass."""
        return self.max_epochs or max(_FEWEST_EPOCHS, -(-_STEPS_IN_ALL // batches))
