"""expunge report: redraw a dossier from its saved measurements."""

from __future__ import annotations

from pathlib import Path

import typer


def report(folder: Path = typer.Argument(..., help="A folder with results.json.")) -> None:
    """Redraw report.html from saved measurements alone, and print the summary.

    Example: `expunge report dossier`
    """
    from expunge.report import draw, summary
    from expunge.report.saved import read_results

    page = draw(folder)
    typer.echo(summary(read_results(folder)))
    typer.echo(f"\nReport: {page.resolve()}")


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(report)
