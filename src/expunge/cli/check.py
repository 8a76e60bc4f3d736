"""expunge check: everything that will not work, at once, before any compute."""

from __future__ import annotations

from pathlib import Path

import typer


def check(
    file: Path = typer.Argument(..., help="A YAML file, see recipes/."),
    changes: list[str] = typer.Option([], "--set", help="Replace a setting, e.g. methods.0.epochs=5."),
) -> None:
    """Say everything that will not work in a YAML file, before any compute.

    Example: `expunge check run.yaml --set recipe.epochs=3`
    """
    from expunge.experiment import read
    from expunge.experiment.folder import refuse_another

    experiment = read(file, changes)
    refuse_another(experiment)
    typer.echo(experiment.request.text)
    seeds = ", ".join(map(str, experiment.terms.seeds))
    typer.echo(f"Methods: {', '.join(experiment.methods) or 'none'}. Seeds: {seeds}. Output: {experiment.out}.")
    typer.echo("All of it can be run.")


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(check)
