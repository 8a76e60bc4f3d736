"""expunge demo: the main job, end to end, on real handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

CONFIG: dict[str, Any] = {
    "model": {"name": "convnet", "width": 32},
    "data": {"name": "digits"},
    "request": {"classes": [3]},
    "recipe": {"epochs": 15, "lr": 0.1, "batch_size": 64},
    "methods": [
        {"name": "finetune", "epochs": 5, "lr": 0.2, "batch_size": 64},
        {"name": "gradient_ascent", "batch_size": 64},
        {"row": "gradient_ascent (strong)", "name": "gradient_ascent", "lr": 0.03, "batch_size": 64},
        {"name": "neggrad_plus", "batch_size": 64},
        {"name": "random_label", "batch_size": 64},
        {"name": "l1_sparse", "epochs": 5, "batch_size": 64},
        {"name": "last_layers", "epochs": 5, "batch_size": 64},
    ],
    "audit": {"seeds": [0, 1, 2]},
}


def demo(
    out: Path = typer.Option(Path("dossier"), help="Where the dossier goes."),
    force: bool = typer.Option(False, help="Write into a folder that holds something else."),
    show: bool = typer.Option(True, "--open/--no-open", help="Open the report in the browser, from a terminal."),
) -> None:
    """Train on real handwritten digits, forget a class in seven ways, and judge each against retraining.

    Example: `expunge demo --out dossier`
    """
    import torch

    from expunge.cli.parts import command_line, conclude, resumable
    from expunge.conduct import conduct
    from expunge.experiment import from_dict

    torch.set_num_threads(1)  # images of 8 by 8 pixels give threads more to wait for than to do
    typer.echo("Training on 1,438 handwritten digits, forgetting every 3, and retraining without them (3 seeds each).")
    experiment = from_dict({**CONFIG, "out": str(out)})
    with resumable():
        report = conduct(experiment, force=force, command=command_line())
    conclude(report, out, show)


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(demo)
