"""A bar that says how much of a long task is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(
    n: int, doing: str, unit: str, wanted: bool | None, least: int
) -> AbstractContextManager[Callable[[], None]]:
    """A context whose value is called once a finished part.

    Parameters
    ----------
    n : how many parts there are
    doing, unit : what is done, and to what, such as "fitting" and "series"
    wanted : True or False; None shows a bar in a terminal for at least ``least`` parts
    """
    if wanted is False or (wanted is None and n < least):
        return nullcontext(lambda: None)
    from rich.console import Console

    console = Console(stderr=True)
    shown = console.is_terminal if wanted is None else wanted
    return _Bar(n, doing, unit, console) if shown else nullcontext(lambda: None)


class _Bar(AbstractContextManager[Callable[[], None]]):
    """A bar of rich with the share that is done."""

    def __init__(self, n: int, doing: str, unit: str, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True)
        self.task = self.bar.add_task(doing, total=n)

    def __enter__(self) -> Callable[[], None]:
        self.bar.start()
        return lambda: self.bar.advance(self.task)

    def __exit__(self, *error: object) -> None:
        self.bar.stop()
