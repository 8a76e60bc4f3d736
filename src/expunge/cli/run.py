"""expunge run: train, unlearn, judge, report, as a YAML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer


def run(
    file: Path = typer.Argument(..., help="A YAML file, see recipes/."),
    changes: list[str] = typer.Option([], "--set", help="Replace a setting, e.g. methods.0.epochs=5."),
    seeds: Optional[str] = typer.Option(None, help="Seeds in place of the file's: 0-4 or 0,2,5."),  # noqa: UP045
    jobs: int = typer.Option(1, min=1, help="Processes; seeds are shared among them."),
    out: Optional[Path] = typer.Option(None, help="Folder in place of the file's."),  # noqa: UP045
    force: bool = typer.Option(False, help="Write into a folder that holds something else."),
) -> None:
    """Train, unlearn, judge and report as a YAML file says. Interrupted, the same command goes on.

    Example: `expunge run recipes/mnist-lenet-class.yaml --seeds 0-2 --jobs 2`
    """
    from expunge.cli.parts import command_line, conclude, resumable
    from expunge.conduct import conduct
    from expunge.experiment import parse_seeds, read

    experiment = read(file, changes, parse_seeds(seeds) if seeds is not None else None, out)
    with resumable():
        report = conduct(experiment, jobs=jobs, force=force, command=command_line())
    conclude(report, experiment.out)


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(run)
