"""Options of gradient training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from probseq._types import Configuration, positive_number, whole_number
from probseq.errors import ParameterError

__all__ = ["TrainingOptions"]

_STEPS_IN_ALL = 3000
_FEWEST_EPOCHS = 40
# What Lightning calls the precisions.
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_CHOICES = {
    "optimizer": ("adam", "adamw", "rmsprop", "sgd"),
    "schedule": ("cosine", "constant", "plateau"),
    "precision": (*PRECISIONS, *PRECISIONS.values()),
}


@dataclass(eq=False, repr=False)
class TrainingOptions(Configuration):
    """How to train.

    Parameters
    ----------
    max_epochs : int or None
        Passes over the data. None is as many as make 3000 steps, at least 40.
    learning_rate : float or None
        None is the inference's own default: 0.005 for maximum likelihood, 0.02 for ``MeanField``.
    optimizer : {"adam", "adamw", "rmsprop", "sgd"}
        "sgd" has ``momentum``; "adamw" decays weights apart from the gradient (Loshchilov and Hutter 2019), the others
        add the decay to it.
    momentum : float
        Of "sgd" and "rmsprop".
    weight_decay : float
    schedule : {"cosine", "constant", "plateau"}
        "cosine" lets the learning rate fall to zero along the training; "plateau" halves it whenever the validation
        score (the training score, where nothing is held back) has not risen for a quarter of the ``patience``.
    warmup : float
        Fraction of the training in which the learning rate rises from zero.
    batch_size : int
        Windows in a mini-batch.
    window, context : int or None
        Scored steps of a window and unscored steps before it; None keeps sequences of up to 512 steps whole.
    carry_state : bool or int
        Windows of a sequence follow each other, and each begins with the state that the one before it left (truncated
        back-propagation through time); a number ends a stream after so many windows. Where there are fewer sequences
        than ``batch_size``, long ones are cut into that many streams. The noise of a law of weights is held as long as
        states are carried. False takes windows in random order, each after its own context.
    gradient_clip : float or None
        Largest norm of a gradient.
    validation_fraction : float or None
        Part of the data held back for early stopping: whole sequences where there are ten or more, otherwise the end of
        each sequence. 0 trains on everything. None is the inference's own default: 0.15 for maximum likelihood, 0 for
        ``MeanField``.
    patience : float
        Early stopping waits this fraction of ``max_epochs`` for a better validation score.
    precision : {"32", "bf16", "16"}
        "bf16" and "16" multiply matrices in half precision and keep the weights and the likelihood in the model's own;
        Lightning's names ("bf16-mixed") mean the same.
    device : str
        "auto" takes a CUDA device where there is one; "cpu", "cuda", "cuda:1".
    devices, strategy : int or list of int, str
        Several devices share out each mini-batch; ``strategy`` is Lightning's ("ddp", "ddp_spawn", "ddp_fork").
    checkpoint : str, path or None
        A folder in which the state of the training is kept, in ``last.ckpt``. Give ``random_state`` too, so that a
        second run starts from the same place.
    checkpoint_seconds : float
        The file is written when at least so many seconds have passed.
    resume : bool
        Go on from the file in ``checkpoint``, if there is one. On a CPU the result is bit for bit that of a training
        which was never stopped.
    callbacks : sequence of TrainingCallback
        Told after each round of steps how it went; one that returns True ends the training. Callbacks of Lightning
        belong to ``trainer_kwargs``.
    verbose : bool
        Show a bar with nats per value.
    trainer_kwargs : mapping or None
        Passed on to ``lightning.Trainer``.
    """

    not_saved: ClassVar[tuple[str, ...]] = ("checkpoint", "resume", "callbacks", "trainer_kwargs")

    max_epochs: int | None = None
    learning_rate: float | None = None
    optimizer: str = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.0
    batch_size: int = 32
    window: int | None = None
    context: int | None = None
    carry_state: bool | int = False
    gradient_clip: float | None = 1.0
    validation_fraction: float | None = None
    patience: float = 0.2
    precision: str = "32"
    device: str = "auto"
    devices: int | Sequence[int] = 1
    strategy: str = "auto"
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_seconds: float = 60.0
    resume: bool = False
    callbacks: Sequence[Any] = ()
    verbose: bool = False
    trainer_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParameterError(
                    got=f"{name}={getattr(self, name)!r}", expected=" or ".join(f'"{one}"' for one in choices)
                )
        for name in ("max_epochs", "batch_size", "window"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1)
        if self.context is not None:
            whole_number("context", self.context, 0)
        if not isinstance(self.carry_state, bool):
            whole_number("carry_state", self.carry_state, 1, remedy="True carries the state to the end of a sequence.")
        for name in ("learning_rate", "gradient_clip"):
            if getattr(self, name) is not None:
                positive_number(name, getattr(self, name))
        for name in ("validation_fraction", "warmup", "momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ParameterError(got=f"{name}={value!r}", expected=f"0 <= {name} < 1")
        for name in ("weight_decay", "patience", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise ParameterError(got=f"{name}={getattr(self, name)!r}", expected="0 or more")
        if self.momentum and self.optimizer not in ("sgd", "rmsprop"):
            raise ParameterError(
                got=f'momentum={self.momentum} with optimizer="{self.optimizer}"',
                expected='optimizer="sgd" or "rmsprop"',
                remedy="Leave momentum out: Adam has its own.",
            )
        if self.resume and self.checkpoint is None:
            raise ParameterError(
                got="resume=True without checkpoint",
                expected="the folder of the training that was stopped",
                remedy='Write checkpoint="folder".',
            )
        for one in self.callbacks:
            if not callable(getattr(one, "on_epoch_end", None)):
                raise ParameterError(
                    got=f"the callback {one!r}",
                    expected="an object with the method on_epoch_end(record)",
                    remedy='Pass callbacks of Lightning as trainer_kwargs={"callbacks": [...]}.',
                )

    def completed(self, *, learning_rate: float, validation_fraction: float) -> Self:
        """The same options with these values where None was given."""
        rate = learning_rate if self.learning_rate is None else self.learning_rate
        held = validation_fraction if self.validation_fraction is None else self.validation_fraction
        return replace(self, learning_rate=rate, validation_fraction=held)

    def epochs(self, batches: int) -> int:
        """``max_epochs``, or what makes the usual number of steps with so many mini-batches a pass."""
        return self.max_epochs or max(_FEWEST_EPOCHS, -(-_STEPS_IN_ALL // batches))
