"""The command line: ``probseq compare``, ``forecast`` and ``datasets``.

What a command needs is imported when it runs, so that ``probseq --help`` answers at once.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probseq import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from probseq.estimators.base import SequenceEstimator

__all__ = ["app"]

app = typer.Typer(
    help="Sequence models compared: which predicts your series best, by how much, and how sure is that?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NAMES = "hmm, arma, lstm, rw, snaive, iid"
Column = Annotated[str | None, typer.Option(help="Column to model; needed if several hold numbers.")]
Time = Annotated[str | None, typer.Option(help="Column of the time stamps; found by itself where obvious.")]
Period = Annotated[int | None, typer.Option(min=0, help="Steps in a season, such as 12; 1 for none.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random number.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"probseq {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Sequence models compared: which predicts your series best, by how much, and how sure is that?"""


@app.command()
def compare(
    data: Annotated[str, typer.Argument(help="A CSV file, or an example data set (see probseq datasets).")] = (
        "air_passengers"
    ),
    column: Column = None,
    time: Time = None,
    horizon: Annotated[
        int | None, typer.Option(help="Steps to hold out at the end; two years of months, else a sixth.")
    ] = None,
    models: Annotated[str | None, typer.Option(help=f"Which models, separated by commas: {_NAMES}.")] = None,
    period: Period = None,
    out: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("probseq-report.html"),
    seed: Seed = 0,
) -> None:
    """Fit several models, score them on the held-out end of the series, forecast it, and write a report."""
    console = _console()
    with _readable(console):
        _check_target(out)
        with console.status("Loading"):
            from probseq.comparison.display import as_text
            from probseq.report import read_source, run_study, write_page
            from probseq.report.findings import findings

            _one_thread()
            source = read_source(data, column, time)
        console.print(f"[bold]{_safe(source.title)}[/]  {source.series.size} steps, {_safe(source.origin)}")
        for note in source.notes:
            console.print(f"[yellow]note:[/] {_safe(note)}")
        with _bars(console) as watch:
            study = run_study(source, horizon=horizon, models=_split(models), period=period, seed=seed, watch=watch)
        for name, texts in study.warnings.items():
            for text in texts:
                console.print(f"[yellow]{name}:[/] {_safe(text)}")
        typer.echo(as_text(study.comparison.display_table(), study.comparison.caption, []))
        for text in findings(study):
            typer.echo(f"- {text}")
        written = write_page(study, out, _command())
    typer.echo(f"\nReport: {written}")


@app.command()
def forecast(
    data: Annotated[str, typer.Argument(help="A CSV file, or an example data set (see probseq datasets).")],
    horizon: Annotated[int, typer.Option(help="How many steps ahead.")] = 12,
    model: Annotated[str, typer.Option(help=f"One of {_NAMES}.")] = "arma",
    column: Column = None,
    time: Time = None,
    period: Period = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this CSV file.")] = None,
    seed: Seed = 0,
) -> None:
    """Fit one model to a whole series and print what comes next: mean, standard deviation and quantiles."""
    console = _console()
    with _readable(console):
        if out is not None:
            _check_target(out)
        with console.status("Loading"):
            from probseq.report import forecast_series, read_source

            _one_thread()
            source = read_source(data, column, time)
        with _bars(console) as watch:
            _, found, said = forecast_series(source, model, horizon, period=period, seed=seed, watch=watch)
        for text in (*source.notes, *said):
            console.print(f"[yellow]note:[/] {_safe(text)}")
        table = found.to_dataframe()
        if out is not None:
            table.to_csv(out, index=False)
        shown = table.drop(columns="horizon")  # the rows are counted as well
        for name in shown.columns:
            shown[name] = [_cell(value) for value in shown[name]]
        unit = f", in {source.unit}" if source.unit else ""
        _print_frame(shown.set_index("time"), "time", f"{source.title}{unit}; {found.method}")
    if out is not None:
        typer.echo(f"Table: {out}")


@app.command()
def datasets() -> None:
    """List the example data: name, size, what it is, its source and its licence."""
    import pandas as pd

    with _readable(_console()):
        from probseq.data import datasets as shipped

        rows = {}
        for name in shipped.names():
            found: Any = shipped.load(name)
            many = isinstance(found, list)
            size = f"{len(found)} sequences" if many else " x ".join(str(n) for n in found.shape)
            facts = [str(found.attrs.get(key, "")) for key in ("long_name", "source", "licence")]
            rows[name] = dict(zip(("size", "what", "source", "licence"), (size, *facts), strict=True))
        _print_frame(pd.DataFrame.from_dict(rows, orient="index"), "name", wrap=True)


def _console() -> Console:
    """Progress and remarks go to the error stream, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def _readable(console: Console) -> Iterator[None]:
    """Show mistakes of the user as one message, without a traceback."""
    from probseq.errors import ProbseqError

    try:
        yield
    except ProbseqError as error:
        console.print(f"[bold red]error:[/] {_safe(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        console.print(f"[bold red]error:[/] {_safe(where + (error.strerror or str(error)))}", soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("interrupted")
        raise typer.Exit(130) from None


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str, SequenceEstimator], Any]]:
    """One line a model: what it does, its iteration and objective, the time it took."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<7}"),
        BarColumn(28),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        running: list[Any] = []

        def finish() -> None:
            for task in running:
                progress.update(task, total=1, completed=1)
                progress.stop_task(task)
            running.clear()

        def watch(name: str, model: SequenceEstimator) -> Callable[[int, float], None]:
            finish()
            task = progress.add_task(name, total=None, text="fitting")
            running.append(task)
            last = 0.0

            def report(iteration: int, objective: float) -> None:
                nonlocal last
                if time.monotonic() - last > 0.1:
                    last = time.monotonic()
                    progress.update(task, text=f"iteration {iteration}, objective {objective:.2f}")

            return report

        yield watch
        finish()


def _print_frame(frame: Any, corner: str, caption: str = "", wrap: bool = False) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=_safe(caption) or None, caption_justify="left")
    table.add_column(corner, no_wrap=True)
    for name in frame.columns:
        table.add_column(_safe(str(name)), justify="left" if wrap else "right", overflow="fold")
    for name, row in frame.iterrows():
        table.add_row(_safe(_cell(name)), *[_safe(str(value)) for value in row])
    stream = sys.stdout
    wide = None if stream.isatty() else 160
    Console(file=stream, width=wide, highlight=False).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.5g}"
    from probseq.report.findings import when

    return when(value)


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip().lower() for name in names.split(",") if name.strip()]


def _check_target(out: Path) -> None:
    """Find out before the work that its result has nowhere to go."""
    from probseq.errors import ParameterError

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ParameterError(got=f"--out {out}", expected="a file in a folder that exists", remedy="Check the path.")


def _one_thread() -> None:
    """Networks of this size run faster on one thread than on several that wait for each other."""
    import torch

    torch.set_num_threads(1)


def _command() -> str:
    """The command line as it was given, to be repeated."""
    return shlex.join(["probseq", *sys.argv[1:]])


if __name__ == "__main__":
    app()
