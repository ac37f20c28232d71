"""Options of gradient training."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from probseq._types import (
    Configuration,
    Rule,
    number_in,
    one_of,
    or_none,
    positive_number,
    truth_value,
    whole_number,
)
from probseq.errors import ParameterError

__all__ = ["TrainingOptions", "options_or_none"]

_STEPS_IN_ALL = 3000
_FEWEST_EPOCHS = 40
# What Lightning calls the precisions.
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


def _device(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise ParameterError(
            got=f"{name}={value!r}",
            expected='"auto", "cpu", "cuda" or one device such as "cuda:1"',
            remedy='Try "auto".',
        )


def _devices(name: str, value: Any) -> None:
    """A number of devices, or the numbers of some."""
    if not isinstance(value, list | tuple) or not value:
        whole_number(name, value, 1, "A list such as [0, 1] chooses some of them.")
        return
    for one in value:
        whole_number(f"an entry of {name}", one, 0, "Try [0, 1].")


def _folder(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike):
        raise ParameterError(
            got=f"{name}={value!r}", expected="the path of a folder", remedy='Write checkpoint="folder".'
        )


def _state_is_carried(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        whole_number(name, value, 1, "True carries the state to the end of a sequence.")


def _callbacks(name: str, value: Any) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ParameterError(
            got=f"{name}={value!r}",
            expected="a list of objects with the method on_epoch_end(record)",
            remedy=f"Write {name}=[callback].",
        )
    for one in value:
        if isinstance(one, type) or not callable(getattr(one, "on_epoch_end", None)):
            raise ParameterError(
                got=f"{one!r} among {name}",
                expected="an object with the method on_epoch_end(record)",
                remedy='Pass callbacks of Lightning as trainer_kwargs={"callbacks": [...]}.',
            )


def _strategy(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ParameterError(
            got=f"{name}={value!r}",
            expected='a word of Lightning such as "auto" or "ddp"',
            remedy='Pass an object as trainer_kwargs={"strategy": ...}.',
        )


def _keywords(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ParameterError(
            got=f"{name}={value!r}",
            expected="a dict of arguments of lightning.Trainer",
            remedy='Write trainer_kwargs={"max_steps": 100}.',
        )


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

    Raises
    ------
    ParameterError
        For values of the wrong type or range, when the object is made and again when a training begins; there also for
        devices that the machine does not have, and for what Lightning does not take.

    Examples
    --------
    >>> import probseq as ps
    >>> training = ps.TrainingOptions(max_epochs=3, batch_size=8, window=25, learning_rate=0.01)
    >>> model = ps.GRU(hidden_size=4, inference=ps.MLE(training=training), random_state=0)
    >>> model.fit(ps.datasets.lake_huron()).n_parameters_
    112
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

    rules: ClassVar[Mapping[str, Rule]] = {
        "max_epochs": or_none(partial(whole_number, lowest=1)),
        "learning_rate": or_none(positive_number),
        "optimizer": partial(one_of, choices=("adam", "adamw", "rmsprop", "sgd")),
        "momentum": partial(number_in, interval="[0, 1)", remedy="Try 0.9."),
        "weight_decay": partial(number_in, interval="[0, inf)", remedy="Try 1e-4."),
        "schedule": partial(one_of, choices=("cosine", "constant", "plateau")),
        "warmup": partial(number_in, interval="[0, 1)", remedy="Write warmup=0.1 for a tenth of the training."),
        "batch_size": partial(whole_number, lowest=1),
        "window": or_none(partial(whole_number, lowest=1)),
        "context": or_none(partial(whole_number, lowest=0)),
        "carry_state": _state_is_carried,
        "gradient_clip": or_none(positive_number),
        "validation_fraction": or_none(partial(number_in, interval="[0, 1)", remedy="0 trains on everything.")),
        "patience": partial(number_in, interval="[0, inf)", remedy="Try 0.2."),
        "precision": partial(one_of, choices=(*PRECISIONS, *PRECISIONS.values())),
        "device": _device,
        "devices": _devices,
        "strategy": _strategy,
        "checkpoint": or_none(_folder),
        "checkpoint_seconds": partial(number_in, interval="[0, inf)", remedy="Try 60."),
        "resume": truth_value,
        "callbacks": _callbacks,
        "verbose": truth_value,
        "trainer_kwargs": or_none(_keywords),
    }

    def __post_init__(self) -> None:
        self.check_rules()
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

    def completed(self, *, learning_rate: float, validation_fraction: float) -> Self:
        """The same options with these values where None was given, checked anew: ``set_params`` checks nothing."""
        rate = learning_rate if self.learning_rate is None else self.learning_rate
        held = validation_fraction if self.validation_fraction is None else self.validation_fraction
        return replace(self, learning_rate=rate, validation_fraction=held)

    def epochs(self, batches: int) -> int:
        """``max_epochs``, or what makes the usual number of steps with so many mini-batches a pass."""
        return self.max_epochs or max(_FEWEST_EPOCHS, -(-_STEPS_IN_ALL // batches))


def options_or_none(name: str, value: Any) -> None:
    """The rule of an argument ``training=``."""
    if value is not None and not isinstance(value, TrainingOptions):
        raise ParameterError(
            got=f"{name}={value!r}",
            expected="TrainingOptions or None",
            remedy=f"Write {name}=ps.TrainingOptions(max_epochs=50).",
        )
