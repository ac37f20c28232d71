"""What Lightning trains: minus the objective of a law of weights, with all that a stopped training needs to go on."""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import unflatten
from probseq.errors import DataWarning, ParameterError
from probseq.inference.base import Progress
from probseq.inference.callbacks import TrainingCallback, TrainingRecord
from probseq.inference.options import TrainingOptions
from probseq.inference.rounds import Rounds
from probseq.inference.schedules import Schedule, make_optimizer
from probseq.inference.weights import WeightLaw
from probseq.inference.windows import MiniBatch
from probseq.models.base import Batch, SequenceModel, map_state

__all__ = ["Trained", "TrainingModule"]

# Steps of all sequences that are validated at once.
_STEPS_AT_ONCE = 200_000


@dataclass
class Trained:
    """How a training went: nats per scored value by round, validation score by round, epochs done and status."""

    trace: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    n_epochs: int = 0
    status: str = "max_iter"


class TrainingModule(pl.LightningModule):
    """Minus the objective in nats per scored value; validation and the best weights are kept here."""

    def __init__(
        self,
        model: SequenceModel[Any],
        law: WeightLaw,
        rounds: Rounds,
        options: TrainingOptions,
        kl_weight: Callable[[float], float],
        validation: MiniBatch | None,
        progress: Progress | None,
        callbacks: list[TrainingCallback],
    ) -> None:
        super().__init__()
        self.law, self.model, self.specs = law, model, model.parameters()
        self.rounds, self.options, self.kl_weight = rounds, options, kl_weight
        self.progress, self.callbacks = progress, callbacks
        self.held_back, self.n_values = validation, rounds.data.n_values
        self.entry = self.generator_state = rounds.generator.get_state()
        self.seed = int(torch.randint(2**62, (), generator=rounds.generator))
        self.record, self.best, self.schedule = Trained(), -np.inf, Schedule(options, rounds.rounds)
        self.kept: dict[str, Tensor] | None = None
        self.n_steps, self.resumed_at, self.interrupted = 0, 0, False
        self.total, self.counted = 0.0, 0
        self.unread: list[tuple[Tensor, Tensor]] = []
        self.carried: dict[int, tuple[Tensor, Any]] = {}
        self.held: tuple[Tensor, dict[str, Tensor]] | None = None
        self.noises: list[torch.Generator] = []
        self.home, self.results = os.getpid(), None if options.devices == 1 else _new_file()

    # what Lightning asks for ------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes the hook that runs, dozens of times a step: not worth a search for modules and parameters."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        own = self.law.optimizer(self.options)
        return make_optimizer(self.options, self.parameters()) if own is None else own

    def transfer_batch_to_device(self, batch: MiniBatch, device: torch.device, dataloader_idx: int) -> MiniBatch:
        return batch.to(device)

    def on_train_start(self) -> None:
        """Keep what is held back, and what is random, where the weights are."""
        if self.held_back is not None:
            self.held_back = self.held_back.to(self.device)

    @property
    def done(self) -> float:
        """The fraction of the training that lies behind, in [0, 1]."""
        return min(1.0, self.n_steps / self.rounds.steps)

    def on_train_epoch_start(self) -> None:
        self.total, self.counted, self.unread = 0.0, 0, []

    def on_train_batch_start(self, mini: MiniBatch, index: int) -> None:
        """Set the learning rate of the step."""
        rate = float(self.options.learning_rate or 0.0) * self.schedule.factor(self.done, 1 / self.rounds.steps)
        rate = self.law.rate(self.done, rate)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, mini: MiniBatch, index: int) -> Tensor | None:
        """Minus the objective of one mini-batch, nats per value."""
        try:
            return self._loss(mini, index)
        except KeyboardInterrupt:
            self.interrupt()
            return None

    def on_train_batch_end(self, outputs: Any, mini: MiniBatch, index: int) -> None:
        """Let the law note the step."""
        self.n_steps += 1
        self.law.after_step(self.done, self._noise(0))

    # the objective ----------------------------------------------------------------------------------------------------

    def _loss(self, mini: MiniBatch, index: int) -> Tensor:
        vectors, ranks = self._vectors(mini), self.trainer.world_size
        pieces = mini.split(len(vectors) * ranks)[self.global_rank :: ranks]
        fits = [self._fit(vector, piece, i) for i, (vector, piece) in enumerate(zip(vectors, pieces))]
        # Where there are fewer sequences than devices this one has none, and no gradient but zero.
        fit = torch.stack(fits or [0.0 * vectors[0].sum()]).sum() * (ranks / self.n_values) / mini.share
        divergence = self.law.divergence()
        if divergence is None:
            loss, objective = -fit, fit
        else:
            cost = divergence / self.n_values
            loss, objective = self.kl_weight(self.done) * cost - fit, fit - cost
        self._note(objective.detach(), mini.rows, index)
        return loss

    def _vectors(self, mini: MiniBatch) -> tuple[Tensor, ...]:
        """The weights of a step; those of the step before, with the same noise, where states are carried."""
        noise = self._noise(0)
        if mini.carried is None:
            return self.law.draw(noise)
        if mini.carried.first or self.held is None:
            self.held = (noise.get_state(), self.law.noise_state())
            return self.law.draw(noise)
        again = torch.Generator(self.device)
        again.set_state(self.held[0])
        self.law.restore_noise(self.held[1])
        return self.law.draw(again)

    def _fit(self, vector: Tensor, piece: MiniBatch, i: int) -> Tensor:
        """Weighted log-likelihood of the scored values as the model wants it trained; i counts the vectors."""
        if not piece.batch.n:
            return 0.0 * vector.sum()
        params, state = self.law.params(self.specs, vector), self._carried_state(piece, i)
        values, final = self.model._training_log_prob(
            params, _padded(piece.batch), piece.scored, state, self._noise(1), self.done
        )
        if piece.carried is not None:
            self.carried[i] = (piece.carried.lane, map_state(torch.Tensor.detach, final))
        return (values * piece.weight).sum()

    def _carried_state(self, piece: MiniBatch, i: int) -> Any:
        """The state that the windows begin with; None at the beginning of streams."""
        if piece.carried is None or piece.carried.first or i not in self.carried:
            return None
        before, state = self.carried[i]
        lanes = piece.carried.lane
        if len(lanes) == len(before):
            return state
        on = torch.searchsorted(before, lanes).to(self.device)
        return map_state(lambda leaf: leaf[on], state)

    def _noise(self, which: int) -> torch.Generator:
        """Generators: 0 of the noise of the weights, alike on all devices; 1 of that inside the network."""
        if not self.noises:
            seeds = (self.seed, self.seed + 1 + self.global_rank)
            self.noises = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        return self.noises[which]

    def _note(self, objective: Tensor, rows: Tensor, index: int) -> None:
        """Keep the value of a step; reading it at once would make a graphics processor wait."""
        if objective.device.type != "cpu":
            self.unread.append((objective, rows))
            return
        value = float(objective)
        if not math.isfinite(value):
            raise self._not_finite(value, rows, index)
        self.total, self.counted = self.total + value, self.counted + 1

    def _read(self) -> None:
        """Add up what was kept since, and check that it is finite."""
        if not self.unread:
            return
        values = torch.stack([value for value, _ in self.unread]).cpu().double()
        if not bool(values.isfinite().all()):
            first = int((~values.isfinite()).nonzero()[0])
            raise self._not_finite(float(values[first]), self.unread[first][1], first)
        self.total, self.counted = self.total + float(values.sum()), self.counted + len(values)
        self.unread = []

    def _not_finite(self, value: float, rows: Tensor, index: int) -> ParameterError:
        places = rows.tolist()
        names = ", ".join(f"{s} (steps {a} to {b - 1})" for s, a, b in places[:4]) + (", ..." if places[4:] else "")
        return ParameterError(
            got=f"an objective of {value} in epoch {self.rounds.n_passes}, batch {index}: sequences {names}",
            expected="a finite log-likelihood",
            remedy="Lower learning_rate, standardise the data, or look for extreme values in these sequences.",
        )

    # rounds -----------------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Stop after this step and keep the best weights so far."""
        self.interrupted = True
        self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Record the round, score what was held back, decide whether to stop."""
        self._read()
        record = self.record
        record.n_epochs = self.rounds.n_passes
        if self.counted:
            mean = self.total / self.counted
            if self.trainer.world_size > 1:
                each = torch.tensor(mean, dtype=torch.float64, device=self.device)
                mean = float(self.trainer.strategy.reduce(each, reduce_op="mean"))
            record.trace.append(mean)
        if self.held_back is not None:
            self._validate(self.held_back)
        scores = record.trace if self.held_back is None else record.validation
        if scores:
            self.schedule.look(scores[-1], self.done)
        try:
            self._report()
        except KeyboardInterrupt:
            self.interrupt()

    def _report(self) -> None:
        record = self.record
        if not record.trace:
            return
        if self.progress is not None and self.global_rank == 0:
            self.progress(record.n_epochs, record.trace[-1])
        told = TrainingRecord(
            epoch=record.n_epochs,
            max_epochs=self.rounds.epochs,
            step=self.n_steps,
            train=record.trace[-1],
            validation=record.validation[-1] if record.validation else None,
            best=None if self.kept is None else float(self.best),
            learning_rate=self.trainer.optimizers[0].param_groups[0]["lr"],
        )
        wishes = [callback.on_epoch_end(told) for callback in self.callbacks if self.global_rank == 0]
        if self.trainer.strategy.reduce_boolean_decision(True in wishes, all=False):
            self._stop("stopped")

    def _stop(self, status: str) -> None:
        self.record.status = status
        self.trainer.should_stop = True

    def _validate(self, held: MiniBatch) -> None:
        with torch.no_grad():
            params = unflatten(self.specs, self.law.centre())
            total = 0.0
            for mini in held.split(-(-held.scored.shape[0] * held.scored.shape[1] // _STEPS_AT_ONCE)):
                values = self.model._validation_log_prob(params, _padded(mini.batch), mini.scored)
                total += float((values * mini.weight).sum())
            score = total / float((held.scored.sum((-2, -1)) * held.weight).sum())
        scores = self.record.validation
        scores.append(score)
        of_ready = scores[max(0, math.ceil(self.law.ready * self.rounds.rounds) - 1) :]
        if not of_ready:
            return
        if score > self.best or self.kept is None or np.isnan(self.best):
            self.best = score
            self.kept = {name: value.detach().clone() for name, value in self.law.state_dict().items()}
        waited = len(of_ready) - 1 - int(np.argmax(of_ready))
        if waited > max(3.0, self.options.patience * self.rounds.rounds):
            self._stop("converged")

    # stopping and going on --------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What a training that goes on must have in common with the one that was stopped."""
        sizes = {"weights": self.law.centre().numel(), "values": self.n_values, "windows": self.rounds.data.n_windows}
        return {**sizes, "steps": self.rounds.steps}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add all that is not a weight and not of the optimiser."""
        checkpoint["probseq"] = {
            "identity": self._identity(),
            "entry": self.entry,
            "rounds": self.rounds.state(),
            "schedule": self.schedule.state(),
            "noises": [noise.get_state() for noise in self.noises],
            "law": self.law.noise_state(),
            "held": self.held,
            "carried": {i: (lane, _leaves(state)) for i, (lane, state) in self.carried.items()},
            "record": asdict(self.record),
            "best": float(self.best),
            "kept": self.kept,
            "n_steps": self.n_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it all up again.

        Raises
        ------
        ParameterError
            Where the file is of a training of other data or of another length.
        """
        kept, own = checkpoint["probseq"], self._identity()
        if kept["identity"] != own:
            raise ParameterError(
                got=f"a checkpoint of a training with {kept['identity']}",
                expected=f"one with {own}",
                remedy="Resume with the same data, model and options, or choose another folder.",
            )
        if not torch.equal(kept["entry"].cpu(), self.entry):
            warnings.warn(
                "The training that goes on began with another random_state: its result is valid, but what is held "
                "back now may have been trained on before. Give random_state to both runs.",
                DataWarning,
                stacklevel=1,  # further up is Lightning, whose warnings are kept quiet
            )
        self.rounds.restore(kept["rounds"])
        self.schedule.restore(kept["schedule"])
        for i, state in enumerate(kept["noises"]):
            self._noise(i).set_state(state.cpu())
        self.law.restore_noise(self._here(kept["law"]))
        held = kept["held"]
        self.held = None if held is None else (held[0].cpu(), self._here(held[1]))
        template = self.model.initial_state(unflatten(self.specs, self.law.centre().detach()), 1)
        for i, (lane, leaves) in kept["carried"].items():
            rest = iter(leaves)
            self.carried[i] = (lane.cpu(), map_state(lambda leaf, rest=rest: next(rest).to(self.device), template))
        self.record, self.best = Trained(**kept["record"]), kept["best"]
        self.kept, self.n_steps = kept["kept"], kept["n_steps"]
        self.resumed_at, self.generator_state = self.n_steps, self.rounds.generator.get_state()
        if self.record.status in ("converged", "stopped"):
            self.trainer.should_stop = True

    def _here(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in state.items()}

    def on_fit_end(self) -> None:
        """Leave the results for the process that asked for them, where this is another one."""
        if self.results is not None and os.getpid() != self.home and self.global_rank == 0:
            found = {"law": self.law.state_dict(), "record": asdict(self.record), "kept": self.kept}
            torch.save(found, self.results)

    def finish(self) -> None:
        """Leave the law with the best weights, and the generator where the last round left it."""
        if self.results is not None:
            self._fetch(self.results)
        if self.resumed_at and self.resumed_at == self.n_steps:
            self.rounds.generator.set_state(self.generator_state)  # Lightning has looked into a training that was over
        if self.kept is not None:
            self.law.load_state_dict(self.kept)
        self.law.cpu()
        if self.interrupted:
            self.record.status = "interrupted"

    def _fetch(self, results: Path) -> None:
        """Take what another process left."""
        if results.stat().st_size:
            found = torch.load(results, map_location="cpu", weights_only=True)
            self.law.load_state_dict(found["law"])
            self.record, self.kept = Trained(**found["record"]), found["kept"]
        results.unlink()


def _padded(batch: Batch) -> Batch:
    """The batch with padding as steps where nothing is seen: no device has to be asked how long its sequences are."""
    return batch._replace(lengths=torch.full_like(batch.lengths, batch.t))


def _new_file() -> Path:
    number, name = tempfile.mkstemp(prefix="probseq-", suffix=".pt")
    os.close(number)
    return Path(name)


def _leaves(state: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_state(lambda leaf: found.append(leaf) or leaf, state)  # type: ignore[func-returns-value]
    return found
