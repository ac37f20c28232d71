"""Gradient training of a flat weight vector, or of a law of it, in mini-batches of windows."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import flatten, unflatten
from probseq.errors import EmptyDataError, ParameterError
from probseq.inference.base import Draws, Progress
from probseq.inference.options import TrainingOptions
from probseq.inference.weights import PointWeights, WeightLaw
from probseq.inference.windows import MiniBatch, Windows, hold_back, whole_sequences
from probseq.models.base import Batch, SequenceModel

__all__ = ["Trained", "TrainingOptions", "train", "train_point"]

_STEPS_A_ROUND = 25
# Products of a weight and an input in one step, above which several threads are left to torch.
_WORTH_THREADS = 5e8


@dataclass
class Trained:
    """How a training went: nats per scored value by round, validation score by round, epochs done and status."""

    trace: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    n_epochs: int = 0
    status: str = "max_iter"


class _Rounds:
    """A loader that Lightning sees: one of its epochs is a round of one or several passes over the data."""

    def __init__(self, windows: Windows, options: TrainingOptions, generator: torch.Generator) -> None:
        self.windows, self.batch_size, self.generator = windows, options.batch_size, generator
        batches = windows.n_batches(options.batch_size)
        self.epochs = options.epochs(batches)
        self.passes = max(1, min(_STEPS_A_ROUND // batches, self.epochs))
        self.rounds = -(-self.epochs // self.passes)
        self.steps = self.rounds * self.passes * batches

    def __iter__(self) -> Iterator[MiniBatch]:
        for _ in range(self.passes):
            yield from self.windows.passing(self.batch_size, self.generator)


class _Module(pl.LightningModule):
    """Minus the objective in nats per scored value; validation and the best weights are kept here."""

    def __init__(
        self,
        model: SequenceModel[Any],
        law: WeightLaw,
        rounds: _Rounds,
        options: TrainingOptions,
        kl_weight: Callable[[float], float],
        validation: MiniBatch | None,
        progress: Progress | None,
    ) -> None:
        super().__init__()
        self.law, self.model, self.specs = law, model, model.parameters()
        self.rounds, self.options, self.kl_weight, self.progress = rounds, options, kl_weight, progress
        self.held_back, self.n_values = validation, rounds.windows.n_values
        self.record, self.best = Trained(), -np.inf
        self.kept: dict[str, Tensor] | None = None
        self.total, self.steps, self.interrupted = 0.0, 0, False
        self.noise: torch.Generator | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decay = self.options.weight_decay
        kind = torch.optim.AdamW if decay else torch.optim.Adam
        return kind(self.parameters(), lr=self.options.learning_rate, weight_decay=decay)

    def _log_likelihood(self, vector: Tensor, mini: MiniBatch) -> Tensor:
        """Weighted log-likelihood of the scored values without noise, (b,)."""
        params = unflatten(self.specs, vector)
        law, _ = self.model.predictive(params, mini.batch)
        return law.log_prob_seen(mini.batch.x, mini.scored).sum(-1) * mini.weight

    def _training_log_likelihood(self, vector: Tensor, mini: MiniBatch) -> Tensor:
        """The same as the model wants it trained, (b,)."""
        params = unflatten(self.specs, vector)
        values, _ = self.model._training_log_prob(params, mini.batch, mini.scored, None, self._noise())
        return values * mini.weight

    def _noise(self) -> torch.Generator:
        if self.noise is None:
            seed = int(torch.randint(2**62, (), generator=self.rounds.generator))
            self.noise = torch.Generator(self.device).manual_seed(seed)
        return self.noise

    def on_train_epoch_start(self) -> None:
        """Set the learning rate of the round."""
        self.total, self.steps = 0.0, 0
        if self.options.schedule == "cosine":
            done = self.current_epoch / self.rounds.rounds
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self.options.learning_rate * 0.5 * (1 + np.cos(np.pi * done))

    def training_step(self, mini: MiniBatch, index: int) -> Tensor | None:
        """Minus the objective of one mini-batch, nats per value."""
        try:
            return self._loss(mini, index)
        except KeyboardInterrupt:
            self.interrupt()
            return None

    def _loss(self, mini: MiniBatch, index: int) -> Tensor:
        vectors = self.law.draw(self._noise())
        pieces = mini.split(len(vectors))
        fit = torch.stack([self._training_log_likelihood(v, piece).sum() for v, piece in zip(vectors, pieces)]).sum()
        fit = fit / (mini.share * self.n_values)
        divergence = self.law.divergence()
        if divergence is None:
            loss, objective = -fit, fit
        else:
            cost = divergence / self.n_values
            loss = self.kl_weight(self.current_epoch / self.rounds.rounds) * cost - fit
            objective = fit - cost
        value = float(objective.detach())
        if not np.isfinite(value):
            raise self._not_finite(value, mini, index)
        self.total += value
        self.steps += 1
        return loss

    def on_train_batch_end(self, outputs: Any, mini: MiniBatch, index: int) -> None:
        """Let the law note the step."""
        self.law.after_step(min(1.0, self.global_step / self.rounds.steps), self._noise())

    def _not_finite(self, value: float, mini: MiniBatch, index: int) -> ParameterError:
        rows = mini.rows.tolist()
        names = ", ".join(f"{s} (steps {a} to {b - 1})" for s, a, b in rows[:4]) + (", ..." if len(rows) > 4 else "")
        return ParameterError(
            got=f"an objective of {value} in epoch {self.current_epoch * self.rounds.passes}, batch {index}: "
            f"sequences {names}",
            expected="a finite log-likelihood",
            remedy="Lower learning_rate, standardise the data, or look for extreme values in these sequences.",
        )

    def interrupt(self) -> None:
        """Stop after this step and keep the best weights so far."""
        self.interrupted = True
        self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Record the round, score what was held back, decide whether to stop."""
        record = self.record
        record.n_epochs = min((self.current_epoch + 1) * self.rounds.passes, self.rounds.epochs)
        if self.steps:
            record.trace.append(self.total / self.steps)
        if self.held_back is not None:
            self._validate()
        if self.progress is not None and record.trace:
            try:
                self.progress(record.n_epochs, record.trace[-1])
            except KeyboardInterrupt:
                self.interrupt()

    def _validate(self) -> None:
        held = self.held_back
        with torch.no_grad():
            centre = self.law.centre()
            mini = MiniBatch(*(move(leaf, centre.device) for leaf in held))  # type: ignore[union-attr]
            score = float(self._log_likelihood(centre, mini).sum() / (mini.scored.sum((-2, -1)) * mini.weight).sum())
        scores = self.record.validation
        scores.append(score)
        if score > self.best or self.kept is None:
            self.best = score
            self.kept = {name: value.detach().clone() for name, value in self.law.state_dict().items()}
        waited = len(scores) - 1 - int(np.argmax(scores))
        if waited > max(3.0, self.options.patience * self.rounds.rounds):
            self.record.status = "converged"
            self.trainer.should_stop = True


def move(leaf: Any, device: torch.device) -> Any:
    """A tensor, or a tuple of tensors, on a device."""
    if leaf is None or isinstance(leaf, Tensor):
        return None if leaf is None else leaf.to(device)
    return type(leaf)(*(move(part, device) for part in leaf))


def train(
    model: SequenceModel[Any],
    law: WeightLaw,
    windows: Windows,
    generator: torch.Generator,
    options: TrainingOptions,
    *,
    kl_weight: Callable[[float], float] = lambda done: 1.0,
    validation: MiniBatch | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Maximise, over the law's own parameters, (log-likelihood - kl_weight * divergence) / scored values.

    The law is changed in place; with ``validation`` it ends with the weights of the best validation score.

    Raises
    ------
    EmptyDataError
        Where no value is scored.
    ParameterError
        Where the objective stops being finite; the message names the batch.
    """
    if not windows.n_values:
        raise EmptyDataError(got="no value to learn from", expected="at least one value that is not missing")
    options = options.completed(learning_rate=5e-3, validation_fraction=0.0)
    rounds = _Rounds(windows, options, generator)
    module = _Module(model, law, rounds, options, kl_weight, validation, progress)
    work = law.centre().numel() * min(options.batch_size, windows.n_windows) * windows.window
    with _quiet(), torch.random.fork_rng(), warnings.catch_warnings(), _graceful(module), _few_threads(work):
        # Lightning's advice on loaders, loggers and devices, and its use of what torch has deprecated.
        for category in (UserWarning, FutureWarning):
            warnings.filterwarnings("ignore", module=r"lightning\..*", category=category)
        warnings.filterwarnings("ignore", message=r"RNN module weights are not part of single contiguous chunk")
        trainer = pl.Trainer(**_trainer_arguments(options, rounds.rounds))
        with torch.enable_grad():
            trainer.fit(module, rounds)
    if module.kept is not None:
        law.load_state_dict(module.kept)
    law.cpu()
    if module.interrupted:
        module.record.status = "interrupted"
    return module.record


def _trainer_arguments(options: TrainingOptions, rounds: int) -> dict[str, Any]:
    wanted = options.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    return {
        "max_epochs": rounds,
        "accelerator": "gpu" if kind == "cuda" else kind,
        "devices": [int(number)] if number else 1,
        "gradient_clip_val": options.gradient_clip,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        **(options.trainer_kwargs or {}),
    }


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
def _graceful(module: _Module) -> Iterator[None]:
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
    rest, rest_weights, held = batch, weights, None
    if validation is not None:
        held = whole_sequences(validation)
    elif options.validation_fraction:
        rest, rest_weights, held = hold_back(batch, weights, options.validation_fraction, generator)
    windows = Windows(rest, rest.seen, rest_weights, options.window, options.context)
    done = train(model, law, windows, generator, options, validation=held, progress=progress)
    params = {name: value.detach().unsqueeze(0) for name, value in unflatten(specs, law.centre()).items()}
    with torch.no_grad():
        each = model.log_prob(params, batch)[0]
    total = float(each.sum() if weights is None else (each * weights).sum())
    return Draws(
        params,
        log_prob=total,
        objective=total,
        status=done.status,
        n_iter=done.n_epochs,
        trace=np.asarray(done.trace) * windows.n_values,
        optima=np.asarray([total]),
    )
