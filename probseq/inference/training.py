"""Gradient training of a flat weight vector, or of a law of it, in mini-batches of windows."""

from __future__ import annotations

import contextlib
import inspect
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from probseq.distributions.params import flatten, unflatten
from probseq.errors import EmptyDataError, ParameterError
from probseq.inference.base import Draws, Progress
from probseq.inference.callbacks import Bar, TrainingCallback
from probseq.inference.law_fits import fit_law, log_prob_of_draws
from probseq.inference.options import PRECISIONS, TrainingOptions
from probseq.inference.rounds import Rounds
from probseq.inference.training_module import Trained, TrainingModule
from probseq.inference.weights import PointWeights, WeightLaw
from probseq.inference.windows import MiniBatch, MiniBatches, Windows
from probseq.models.base import Batch, SequenceModel

__all__ = ["Trained", "TrainingOptions", "train", "train_point"]

# Products of a weight and an input in one step, above which several threads are left to torch.
_WORTH_THREADS = 5e8
# The part of a device's free memory that the data may take.
_ROOM = 0.3
_CHECKPOINT = "last.ckpt"


class _Keeper(pl.callbacks.Checkpoint):
    """Writes the state of a training at the ends of rounds; a checkpoint comes after all other callbacks."""

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.seconds, self.written = file, seconds, time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it where it is due, and when the training ends; not after an interrupted round."""
        finished = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = time.monotonic() - self.written >= self.seconds or finished
        if trainer.strategy.broadcast(due) and not pl_module.interrupted:
            trainer.save_checkpoint(self.file)
            self.written = time.monotonic()


def train(
    model: SequenceModel[Any],
    law: WeightLaw,
    data: MiniBatches,
    generator: torch.Generator,
    options: TrainingOptions,
    *,
    kl_weight: Callable[[float], float] = lambda done: 1.0,
    validation: MiniBatch | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Maximise, over the law's own parameters, (log-likelihood - kl_weight * divergence) / scored values.

    The law is changed in place; with ``validation`` it ends with the weights of the best validation score.

    Parameters
    ----------
    data : what comes in mini-batches: `Windows`, `Streams` or any other `MiniBatches`
    kl_weight : function of the fraction of the training that lies behind
    validation : scored after each round, at the centre of the law
    progress : called with (epochs done, nats per value) after each round

    Raises
    ------
    EmptyDataError
        Where no value is scored.
    ParameterError
        Where the objective stops being finite; the message names the batch. Where a checkpoint belongs to another
        training.
    """
    if not data.n_values:
        raise EmptyDataError(got="no value to learn from", expected="at least one value that is not missing")
    options = options.completed(learning_rate=5e-3, validation_fraction=0.0)
    law.prepare(data, options)
    rounds = Rounds(data, options, generator)
    work = law.centre().numel() * min(options.batch_size, data.n_windows) * data.window
    with contextlib.ExitStack() as around:
        callbacks: list[TrainingCallback] = list(options.callbacks)
        if options.verbose:
            callbacks.append(around.enter_context(Bar()))
        module = TrainingModule(model, law, rounds, options, kl_weight, validation, progress, callbacks)
        for context in (_quiet(), torch.random.fork_rng(), _graceful(module), _few_threads(work), _silent()):
            around.enter_context(context)
        file = None if options.checkpoint is None else Path(options.checkpoint) / _CHECKPOINT
        trainer = _trainer(_trainer_arguments(options, rounds.rounds, file))
        _place(data, trainer.strategy.root_device)
        going_on: dict[str, Any] = {}
        if file is not None and options.resume and file.exists():
            going_on["ckpt_path"] = str(file)
        if going_on and "weights_only" in inspect.signature(trainer.fit).parameters:
            going_on["weights_only"] = True
        with torch.enable_grad():
            trainer.fit(module, rounds, **going_on)
    module.finish()
    return module.record


def _place(data: MiniBatches, device: torch.device) -> None:
    """Move what fits onto a graphics processor once; the rest follows mini-batch by mini-batch."""
    if device.type != "cuda" or not isinstance(data, Windows):
        return
    leaves = [*data.batch, data.scored]
    size = sum(leaf.numel() * leaf.element_size() for leaf in leaves if leaf is not None)
    if size < _ROOM * torch.cuda.mem_get_info(device)[0]:
        data.to(device)


def _trainer(arguments: dict[str, Any]) -> pl.Trainer:
    """A trainer; what Lightning has against the arguments is said of those that the user gave."""
    try:
        return pl.Trainer(**arguments)
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise ParameterError(
            got=f"training options that Lightning does not take: {error}",
            expected="devices, strategy, precision and trainer_kwargs that fit each other and this machine",
            remedy="Leave them at their defaults, or see the documentation of lightning.Trainer.",
        ) from error


def _trainer_arguments(options: TrainingOptions, rounds: int, file: Path | None) -> dict[str, Any]:
    wanted = options.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ParameterError(
            got=f'device="{wanted}"',
            expected=f"one of the {torch.cuda.device_count()} CUDA devices of this machine",
            remedy='Write device="auto", which takes one where there is one.',
        )
    given = dict(options.trainer_kwargs or {})
    known = inspect.signature(pl.Trainer).parameters
    if unknown := sorted(set(given) - set(known)):
        raise ParameterError(
            got=f"trainer_kwargs with {', '.join(map(repr, unknown))}",
            expected=f"arguments of lightning.Trainer: {', '.join(known)}",
            remedy="Check the spelling; callbacks of probseq belong to callbacks=.",
        )
    callbacks = given.pop("callbacks", None) or []
    callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    for one in callbacks:
        if not isinstance(one, pl.Callback):
            raise ParameterError(
                got=f"{one!r} among the callbacks of trainer_kwargs",
                expected="a lightning.Callback",
                remedy="Objects with on_epoch_end(record) belong to callbacks=.",
            )
    if file is not None:
        _make_folder(file.parent)
        callbacks.append(_Keeper(file, options.checkpoint_seconds))
    return {
        "max_epochs": rounds,
        "accelerator": "gpu" if kind == "cuda" else kind,
        "devices": [int(number)] if number and options.devices == 1 else options.devices,
        "strategy": options.strategy,
        "precision": PRECISIONS.get(options.precision, options.precision),
        "gradient_clip_val": options.gradient_clip,
        "callbacks": callbacks,
        "logger": False,
        "enable_checkpointing": file is not None,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        **given,
    }


def _make_folder(folder: Path) -> None:
    """The folder of the checkpoints; better to fail before the training than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            got=f'checkpoint="{folder}": {error.strerror}',
            expected="a folder that exists or can be made",
            remedy="Check the path.",
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without Lightning's advice on loaders, loggers and devices, and its use of what torch has deprecated."""
    with warnings.catch_warnings():
        for category in (UserWarning, FutureWarning):
            warnings.filterwarnings("ignore", module=r"lightning\..*", category=category)
        warnings.filterwarnings("ignore", message=r"RNN module weights are not part of single contiguous chunk")
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's loggers at the level of errors for a while."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def _few_threads(work: float) -> Iterator[None]:
    """One thread for steps that take a few milliseconds: threads that wait for each other cost many times more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < _WORTH_THREADS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _graceful(module: TrainingModule) -> Iterator[None]:
    """The first interrupt ends training after the running step; Lightning itself would end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if module.interrupted and callable(before):
            before(number, frame)
        module.interrupt()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def train_point(
    model: SequenceModel[Any],
    batch: Batch,
    generator: torch.Generator,
    options: TrainingOptions | None = None,
    *,
    validation: Batch | None = None,
    weights: Tensor | None = None,
    progress: Progress | None = None,
) -> Draws:
    """Maximum likelihood by gradient steps, stopped early by the data held back.

    Parameters
    ----------
    model : SequenceModel whose ``_initial_guess`` starts the search and whose predictive has gradients
    options : TrainingOptions or None for its defaults
    validation : batch for early stopping; None holds back ``options.validation_fraction`` of the batch
    weights : (n,) sequence weights or None
    progress : called with (epochs done, nats per value)
    """
    options = (options or TrainingOptions()).completed(learning_rate=5e-3, validation_fraction=0.15)
    specs = model.parameters()
    law = PointWeights(flatten(specs, model._initial_guess(batch, generator)))
    fit = fit_law(model, law, batch, generator, options, validation=validation, weights=weights, progress=progress)
    params = unflatten(specs, law.centre().detach().unsqueeze(0))
    total = log_prob_of_draws(model, params, batch, weights)
    return Draws(params, **fit.record(total, float(total[0]), fit.done.status))
