"""What several verbs do in the same way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from expunge.dossier import Report


def conclude(report: Report, folder: Path, show: bool = False) -> None:
    """Print the summary and say where the page is; open it when asked for and there is a terminal."""
    typer.echo(str(report))
    page = (folder / "report.html").resolve()
    typer.echo(f"\nReport: {page}")
    if show and sys.stdout.isatty():
        typer.launch(page.as_uri())


def console() -> Console:
    """For tables: as wide as the terminal, and wide enough for all of it in a pipe or a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost, and end with exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. What was made is kept; the same command goes on from there.", err=True)
        raise typer.Exit(1) from None


def command_line() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(["expunge", *sys.argv[1:]])


def values(pairs: list[str]) -> dict[str, Any]:
    """Fields from `name=value` texts; values are read as YAML."""
    from expunge.errors import ExpungeError
    from expunge.experiment import parse_value

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ExpungeError(f"--set takes field=value, e.g. --set epochs=5; got {pair!r}.")
        found[name] = parse_value(value, f"--set {name}")
    return found


def class_list(given: list[str]) -> list[str] | None:
    """Classes from texts such as `3`, `3, 5`, `[3, 5]` or `cat,"red bus, old"`; none where nothing is given."""
    import csv

    inner = [text.strip() for text in given]
    inner = [text[1:-1] if text.startswith("[") and text.endswith("]") else text for text in inner]
    return [name.strip() for line in csv.reader(inner, skipinitialspace=True) for name in line or [""]] or None


def one_file(given: list[Path], option: str) -> Path | None:
    """The file that an option names; none where nothing is given.

    Raises:
        ExpungeError: the option was given twice, and one of the files would be passed over.
    """
    from expunge.errors import ExpungeError

    if len(given) > 1:
        raise ExpungeError(f"{option} takes one file; got {', '.join(map(str, given))}. Put all of it into one.")
    return given[0] if given else None
