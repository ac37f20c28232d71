"""Who is told how a training goes: callbacks, and a bar that shows it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = ["Bar", "TrainingCallback", "TrainingRecord"]


class TrainingRecord(NamedTuple):
    """How a training stands after a round: one or several passes over the data, or part of a long one.

    epoch, max_epochs : passes done, and passes in all
    step : steps of the optimiser done
    train : objective of the round in nats per scored value, higher is better
    validation, best : score of what is held back in nats per value, now and at its best; None where nothing is
    learning_rate : of the last step

    Examples
    --------
    >>> import probseq as ps
    >>> class Keep:
    ...     def __init__(self):
    ...         self.seen = []
    ...     def on_epoch_end(self, record):
    ...         self.seen.append(record)
    >>> keep = Keep()
    >>> training = ps.TrainingOptions(max_epochs=3, callbacks=[keep])
    >>> model = ps.GRU(hidden_size=4, inference=ps.MLE(training=training), random_state=0).fit(ps.datasets.lake_huron())
    >>> keep.seen[-1].epoch, keep.seen[-1].max_epochs
    (3, 3)
    """

    epoch: int
    max_epochs: int
    step: int
    train: float
    validation: float | None
    best: float | None
    learning_rate: float


@runtime_checkable
class TrainingCallback(Protocol):
    """An object that ``TrainingOptions(callbacks=[...])`` takes.

    Examples
    --------
    >>> class Enough:
    ...     def on_epoch_end(self, record):
    ...         return record.validation is not None and record.validation > -1.0
    >>> isinstance(Enough(), TrainingCallback)
    True
    """

    def on_epoch_end(self, record: TrainingRecord) -> bool | None:
        """Look at a round of steps; True ends the training, with the best weights so far."""
        ...


class Bar:
    """A line with the passes done and nats per value, kept up to date while a training runs."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_epoch_end(self, record: TrainingRecord) -> None:
        """Show the round."""
        if self._bar is None:
            self._begin(record.max_epochs)
        text = f"{record.train:.4f} nats per value"
        if record.validation is not None and record.best is not None:
            text += f", held back {record.validation:.4f} (best {record.best:.4f})"
        self._bar.update(self._task, completed=record.epoch, text=text)

    def _begin(self, epochs: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(BarColumn(bar_width=10), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self._task = self._bar.add_task("training", total=epochs, text="")
        self._bar.start()
