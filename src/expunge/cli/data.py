"""expunge data: what can be loaded by name."""

from __future__ import annotations

import typer


def data() -> None:
    """List the datasets that can be loaded by name, and where they are.

    Example: `EXPUNGE_DATA=~/data expunge data`
    """
    from rich.table import Table

    from expunge.cli.parts import console
    from expunge.data.catalogue import available, data_folder

    table = Table(box=None, header_style="bold")
    for column in ("name", "kind", "train", "test", "shape", "classes"):
        table.add_column(column, no_wrap=True)
    table.add_column("where", overflow="fold")
    for d in available():
        shape = "–" if d["shape"] is None else "×".join(map(str, d["shape"]))
        counts = ["–" if d[part] is None else f"{d[part]:,}" for part in ("train", "test")]
        where = d["problem"] or d["where"]
        table.add_row(d["name"], d["kind"], *counts, shape, str(len(d["classes"]) if d["classes"] else "–"), str(where))
    console().print(table)
    folder = data_folder()
    if folder is not None and not folder.is_dir():
        typer.echo(f"\nEXPUNGE_DATA is {folder}, which is not a folder; set it to a folder of datasets to see more.")
    if folder is None:
        typer.echo("\nSet EXPUNGE_DATA to a folder of datasets to see more; a path works as well as a name.")


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(data)
