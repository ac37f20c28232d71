"""Deep ensembles: the same network fitted several times, from its own start and with its own order of mini-batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration, Rule, whole_number
from probseq.errors import IncompatibleError, ProbseqError
from probseq.inference.amortized import AmortizedVI
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.law_fits import log_prob_of_draws
from probseq.inference.optimize import MLE
from probseq.inference.weight_draws import WeightDraws
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent_network import LatentNetwork
from probseq.models.recurrent import RecurrentModel

__all__ = ["Ensemble", "EnsembleDraws"]

_WORST_FIRST = ("interrupted", "degenerate", "decreased", "max_iter", "stopped", "converged", "exact")


@dataclass(frozen=True)
class EnsembleDraws(WeightDraws):
    """Draws of all members, one member after the other; ``point`` is empty, ``divergence`` the mean of theirs.

    Parameters
    ----------
    member : (n_draws,) int64
        Which member each draw is of; members that failed have none.
    objectives : tuple of float
        What each member maximised, in the order of the members, NaN for those that failed.
    failures : dict
        What went wrong, by the number of the member.
    """

    member: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    objectives: tuple[float, ...] = ()
    failures: dict[int, str] = field(default_factory=dict)


class Ensemble(Inference):
    r"""p(x | data) = 1/M sum_m p(x | w_m), each w_m found by a fit of its own.

    Members differ by their random start, by the order of their mini-batches and, where part of the data is held back
    for early stopping, by that part. Each member is a draw, or as many as its inference gives, all members with the
    same weight. That the spread of the members is the spread of a posterior is not claimed by theory; in practice it
    tells where a network guesses at least as well as many approximate posteriors.

    Parameters
    ----------
    n_members : int
    inference : Inference or None
        How each member is fitted: ``MLE``, ``MAP``, ``MeanField``, ``MCDropout``... None is ``MLE()``, and
        ``AmortizedVI()`` for networks with latent variables.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
    ensembles.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=5, batch_size=2, window=10)
    >>> model = ps.GRU(hidden_size=4, inference=ps.Ensemble(3, ps.MLE(training=short)), random_state=0).fit(level)
    >>> parts = model.forecast(2).decompose()
    >>> bool((parts["epistemic"] < parts["total"]).all())
    True
    """

    fits: ClassVar[str] = "recurrent networks and networks with latent variables, by an inference that fits them"
    rules: ClassVar[Mapping[str, Rule]] = {"n_members": partial(whole_number, lowest=1)}

    def __init__(self, n_members: int = 5, inference: Inference | None = None) -> None:
        self.n_members, self.inference = n_members, inference

    def _default_part(self, name: str) -> Configuration | None:
        return MLE() if name == "inference" else None

    def check(self) -> None:
        super().check()
        if self.inference is None:
            return
        if not isinstance(self.inference, Inference):
            raise IncompatibleError(
                got=f"inference={self.inference!r} for the members of an ensemble",
                expected="an inference object such as MLE() or MeanField(), or None",
                remedy="Write it with parentheses." if isinstance(self.inference, type) else "Pass one of them.",
            )
        self.inference.check()

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        inner = self._of_members(model_class)
        network = issubclass(model_class, RecurrentModel | LatentNetwork)
        return network and isinstance(inner, Inference) and inner.can_fit(model_class)

    def _of_members(self, model_class: type[SequenceModel[Any]]) -> Inference:
        if self.inference is not None:
            return self.inference
        return AmortizedVI() if issubclass(model_class, LatentNetwork) else MLE()

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> EnsembleDraws:
        """Fit the members one after the other.

        ``log_prob`` of the result is log (1/D) sum_d p(x | w_d); ``objective`` is the mean of what the members
        maximised, ``optima`` are theirs, best first, and ``trace`` holds theirs in the order of the members. An
        interrupt keeps the members that are done, and the one that was being fitted if it keeps what it found.
        ``progress`` hears the iterations of all members, one after the other.

        Raises
        ------
        ParameterError
            For ``n_members`` out of range.
        IncompatibleError
            For models that are no networks, and an inference that cannot fit them.
        ProbseqError, ArithmeticError, RuntimeError
            What the first member failed with, where every member failed; where only some did, a message of the result
            names them.
        """
        self.check()
        self.require(type(model))
        inner = self._of_members(type(model))
        done: dict[int, Draws] = {}
        failures: dict[int, Exception] = {}
        seeds = torch.randint(2**62, (self.n_members,), generator=generator).tolist()
        n_iter, interrupted = 0, False
        for member, seed in enumerate(seeds):
            own = torch.Generator().manual_seed(seed)
            report = None if progress is None else _later(progress, n_iter)
            try:
                found = _of_member(inner, member).fit(
                    model, batch, own, validation=validation, weights=weights, progress=report
                )
            except KeyboardInterrupt:
                if not done:
                    raise
                interrupted = True
                break
            except (ProbseqError, ArithmeticError, RuntimeError) as error:
                failures[member] = error
                continue
            done[member] = found
            n_iter += found.n_iter
            if found.status == "interrupted":
                interrupted = True
                break
        if not done:
            first = next(iter(failures.values()))
            first.add_note(f"All {self.n_members} members of the ensemble failed; this is the first of them.")
            raise first
        said = {member: f"{type(error).__name__}: {error}" for member, error in failures.items()}
        return self._joined(model, batch, weights, done, said, n_iter, interrupted)

    def _joined(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        weights: Tensor | None,
        done: dict[int, Draws],
        failures: dict[int, str],
        n_iter: int,
        interrupted: bool,
    ) -> EnsembleDraws:
        members = list(done.values())
        params = {name: torch.cat([one.params[name] for one in members]) for name in members[0].params}
        sizes = [len(next(iter(one.params.values()))) for one in members]
        equal = len(set(sizes)) == 1 and all(one.log_weights is None for one in members)
        log_weights = torch.cat([_log_weights(one, size) for one, size in zip(members, sizes)]) - math.log(len(members))
        total = log_prob_of_draws(model, params, batch, weights)
        statuses = [one.status for one in members]
        objectives = {member: one.objective for member, one in done.items()}
        messages = [f"Member {member} failed and is left out. {reason}" for member, reason in failures.items()]
        messages += [f"Member {member}: {text}" for member, one in done.items() for text in one.messages]
        return EnsembleDraws(
            params,
            log_prob=float(torch.logsumexp(total + log_weights, 0)),
            objective=float(np.mean(list(objectives.values()))),
            status="interrupted" if interrupted else min(statuses, key=_WORST_FIRST.index),
            n_iter=n_iter,
            trace=np.asarray(list(objectives.values())),
            optima=np.sort(np.asarray(list(objectives.values())))[::-1].copy(),
            messages=tuple(messages),
            log_weights=None if equal else log_weights,
            member=torch.repeat_interleave(torch.tensor(list(done)), torch.tensor(sizes)),
            objectives=tuple(objectives.get(member, float("nan")) for member in range(self.n_members)),
            failures=failures,
            divergence=float(np.mean([one.divergence if isinstance(one, WeightDraws) else 0.0 for one in members])),
            kl_weight=members[0].kl_weight if isinstance(members[0], WeightDraws) else 1.0,
        )


def _of_member(inference: Inference, member: int) -> Inference:
    """The inference with a folder of its own for the checkpoints of a member."""
    folder = getattr(getattr(inference, "training", None), "checkpoint", None)
    if folder is None:
        return inference
    return inference.__sklearn_clone__().set_params(training__checkpoint=Path(folder) / f"member-{member}")


def _log_weights(draws: Draws, size: int) -> Tensor:
    """Those of the draws of one member, which sum to one."""
    given = draws.log_weights
    return torch.log_softmax(torch.zeros(size, dtype=torch.float64) if given is None else given.double(), -1)


def _later(progress: Progress, before: int) -> Progress:
    """Progress of a fit that began after some iterations."""
    return lambda iteration, value: progress(before + iteration, value)
