"""expunge demo: the main job, end to end, on real handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

CONFIG: dict[str, Any] = {
    "model": {"name": "convnet", "width": 32},
    "data": {"name": "digits"},
    "request": {"classes": [3]},
    "recipe": {"epochs": 30, "lr": 0.1, "batch_size": 64},
    "methods": ["finetune", "gradient_ascent", "neggrad_plus", "random_label", "l1_sparse", "last_layers"],
    "audit": {"seeds": [0, 1, 2]},
}


def demo(
    out: Path = typer.Option(Path("dossier"), help="Where the dossier goes."),
    force: bool = typer.Option(False, help="Write into a folder that holds something else."),
    show: bool = typer.Option(True, "--open/--no-open", help="Open the report in the browser, from a terminal."),
) -> None:
    """Train on real handwritten digits, forget a class in six ways, and judge each against retraining.

    Example: `expunge demo --out dossier`
    """
    from expunge.cli.parts import command_line, conclude, resumable
    from expunge.conduct import conduct
    from expunge.experiment import from_dict

    typer.echo("Training on 1,438 handwritten digits, forgetting every 3, and retraining without them (3 seeds each).")
    experiment = from_dict({**CONFIG, "out": str(out)})
    with resumable():
        report = conduct(experiment, force=force, command=command_line())
    conclude(report, out, show)


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(demo)
