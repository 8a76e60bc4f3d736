"""expunge methods: what can be done, and what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from expunge.method import Method


def methods(name: Optional[str] = typer.Argument(None, help="A method, to see its fields and their defaults.")) -> None:  # noqa: UP045 (typer reads it)
    """List all methods, or show one with its fields and their defaults.

    Example: `expunge methods neggrad_plus`
    """
    from expunge import registry
    from expunge.cli.parts import console

    screen = console()
    if name is None:
        screen.print(_overview())
        return
    cls = registry.get(name)
    card = cls.card
    screen.print(f"[bold]{name}[/bold]  {card.title}")
    facts = {
        "forgets": ", ".join(sorted(card.scope)),
        "models": ", ".join(sorted(card.families)),
        "needs": ", ".join(sorted(card.needs)) or "nothing",
        "cost": card.cost,
        "paper": card.paper,
        "version": card.version,
        "dial": f"{card.dial}: {'larger' if card.dial_rises else 'smaller'} forgets more" if card.dial else "none",
    }
    for key, value in facts.items():
        screen.print(f"  {key:8} {value}", highlight=False)
    screen.print(_fields(cls))
    screen.print(f"\n{cls.__doc__}", highlight=False, markup=False)


def _overview() -> Table:
    from rich.table import Table

    from expunge import registry

    table = Table(box=None, header_style="bold")
    table.add_column("name", no_wrap=True)
    for column in ("what it does", "forgets", "needs", "cost"):
        table.add_column(column)
    for name in registry.names():
        card = registry.get(name).card
        table.add_row(name, card.title, ", ".join(sorted(card.scope)), ", ".join(sorted(card.needs)), card.cost)
    return table


def _fields(cls: type[Method]) -> Table:
    import dataclasses

    from rich.table import Table

    table = Table("field", "default", box=None, header_style="bold")
    for f in dataclasses.fields(cls):
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        table.add_row(f.name, "needed" if default is dataclasses.MISSING else str(default))
    return table


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(methods)
