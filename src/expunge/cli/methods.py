"""expunge methods: what can be done, and what it needs."""

from __future__ import annotations

from typing import Optional

import typer


def methods(name: Optional[str] = typer.Argument(None, help="A method, to see its fields and their defaults.")) -> None:  # noqa: UP045 (typer reads it)
    """List all methods, or show one with its fields and their defaults.

    Example: `expunge methods neggrad_plus`
    """
    from rich.console import Console
    from rich.table import Table

    from expunge import registry

    console = Console()
    if name is None:
        table = Table("name", "what it does", "forgets", "needs", "cost", box=None, header_style="bold")
        for each in registry.names():
            card = registry.get(each).card
            table.add_row(each, card.title, ", ".join(sorted(card.scope)), ", ".join(sorted(card.needs)), card.cost)
        console.print(table)
        return
    cls = registry.get(name)
    card = cls.card
    console.print(f"[bold]{name}[/bold]  {card.title}")
    facts = {
        "forgets": ", ".join(sorted(card.scope)),
        "models": ", ".join(sorted(card.families)),
        "needs": ", ".join(sorted(card.needs)) or "nothing",
        "cost": card.cost,
        "paper": card.paper,
        "version": card.version,
    }
    for key, value in facts.items():
        console.print(f"  {key:8} {value}", highlight=False)
    _fields(cls, console)


def _fields(cls: type, console: object) -> None:
    import dataclasses

    from rich.console import Console
    from rich.table import Table

    table = Table("field", "default", box=None, header_style="bold")
    for f in dataclasses.fields(cls):
        missing = f.default is dataclasses.MISSING
        table.add_row(f.name, "needed" if missing else str(f.default))
    if isinstance(console, Console):
        console.print(table)
        console.print(f"\n{cls.__doc__}", highlight=False, markup=False)


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(methods)
