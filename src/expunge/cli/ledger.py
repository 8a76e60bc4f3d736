"""expunge ledger: what a ledger holds, and what a request would cost with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from expunge.artifact.ledger import Ledger


def ledger(
    folder: Path = typer.Argument(..., help="A ledger's folder, or that of a run whose recipe has a ledger."),
    classes: list[str] = typer.Option([], help="Classes that would be forgotten, e.g. 3 or cat,dog."),
    ids: list[Path] = typer.Option([], help="A text or CSV file with ids that would be forgotten."),
    verify: bool = typer.Option(False, help="Read every record and name those that are damaged."),
) -> None:
    """Say how much of a training a request touches, before anything is paid for it.

    Example: `expunge ledger runs/mnist-3 --classes 3`
    """
    from expunge.artifact.ledger import Ledger
    from expunge.cli.parts import class_list, one_file

    wanted, file = class_list(classes), one_file(ids, "--ids")
    lines, damaged = [], False
    for place in _ledgers(folder):
        opened = Ledger(place)
        lines += [f"Ledger {place.resolve()}", _contents(opened)]
        if verify:
            damage = opened.verify()
            lines += damage or ["Every record is there and intact."]
            damaged = damaged or bool(damage)
        if wanted is not None:
            lines.append(str(opened.touched(opened.of_classes(wanted))))
        if file is not None:
            lines.append(str(opened.touched(file)))
    typer.echo("\n".join(lines))
    if damaged:
        raise typer.Exit(1)


def _ledgers(folder: Path) -> list[Path]:
    """The folder itself, or the ledgers of the run in it, one for each seed."""
    from expunge import io
    from expunge.errors import ExpungeError

    if (folder / "ledger.json").is_file():
        return [folder]
    if (folder / "ledgers.json").is_file():
        return [Path(place) for place in io.read_json(folder / "ledgers.json").values()]
    raise ExpungeError(
        f"There is no ledger in {folder}. Give a ledger's folder, or that of a run with recipe: {{ledger: ...}}."
    )


def only_ledger(folder: Path) -> Path:
    """The folder itself, or the only ledger of the run in it.

    Raises:
        ExpungeError: there is none, or there are several.
    """
    from expunge.errors import ExpungeError

    places = _ledgers(folder)
    if len(places) > 1:
        named = ", ".join(map(str, places[:3]))
        raise ExpungeError(
            f"The run in {folder} has {len(places)} ledgers, one for each seed: {named}. Give that of the training "
            "that the weights come from."
        )
    return places[0]


def _contents(opened: Ledger) -> str:
    about, settings = opened.about or {}, opened.settings
    weights = sum(math.prod(shape) for _, shape, _ in about["layers"])
    dense = 4 * weights * max(opened.steps, 1)
    lines = [
        f"{opened.steps:,} steps of {about['optimizer']}, {weights:,} weights in {len(about['layers'])} tensors; "
        f"record: {settings.record}, keep: {settings.keep:g}, values: {settings.values}.",
        f"{opened.size / 1e6:,.1f} MB on the disk, {100 * opened.size / dense:.1f} % of plain float32 updates.",
    ]
    if opened.error:
        lines.append(f"Rounded to {settings.values}: no recorded value is off by more than {opened.error:.2g}.")
    if opened.ended:
        lines.append(f"It does not hold the whole training: {opened.ended}.")
    lines += [f"Deletion of {d['steps']:,} steps by {d['method']['name']}." for d in opened.deletions]
    return "\n".join([*lines, *opened.purges])


def add_to(app: typer.Typer) -> None:
    """Make the verb known."""
    app.command()(ledger)
