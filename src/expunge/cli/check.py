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
    from expunge.artifact import Store
    from expunge.errors import raise_if
    from expunge.experiment import read
    from expunge.experiment.folder import claim_problems

    experiment = read(file, changes)
    raise_if(claim_problems(experiment) + (Store().problems() if experiment.recipe is not None else []))
    typer.echo(experiment.request.text)
    seeds = ", ".join(map(str, experiment.terms.seeds))
    typer.echo(f"Methods: {', '.join(experiment.methods) or 'none'}. Seeds: {seeds}. Output: {experiment.out}.")
    made = experiment.recipe is not None or experiment.weights is not None
    typer.echo("All of it can be run." if made else "All of it can be judged: expunge audit.")


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(check)
