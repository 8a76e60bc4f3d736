"""expunge audit: judge models that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer


def audit(
    file: Path = typer.Argument(..., help="A YAML file; `models: {original: a.safetensors, mine: b.safetensors}`."),
    changes: list[str] = typer.Option([], "--set", help="Replace a setting, e.g. audit.seeds=5."),
    seeds: Optional[str] = typer.Option(None, help="Seeds in place of the file's: 0-4 or 0,2,5."),  # noqa: UP045
    force: bool = typer.Option(False, help="Write into a folder that holds something else; nothing is removed."),
) -> None:
    """Judge models that exist: those named under `models`, or those that a run left in its folder.

    Example: `expunge audit run.yaml --seeds 0-4`
    """
    from expunge.cli.parts import command_line, conclude, resumable
    from expunge.conduct import judge_given
    from expunge.experiment import parse_seeds, read

    experiment = read(file, changes, parse_seeds(seeds) if seeds is not None else None)
    with resumable():
        report = judge_given(experiment, force=force, command=command_line())
    conclude(report, experiment.out)


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(audit)
