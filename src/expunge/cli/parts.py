"""What several verbs do in the same way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from expunge.dossier import Report


def conclude(report: Report, folder: Path, show: bool = False) -> None:
    """Print the summary and say where the page is; open it when asked for and there is a terminal."""
    typer.echo(str(report))
    page = (folder / "report.html").resolve()
    typer.echo(f"\nReport: {page}")
    if show and sys.stdout.isatty():
        typer.launch(page.as_uri())


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
    import yaml

    from expunge.errors import ExpungeError

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ExpungeError(f"--set takes field=value, e.g. --set epochs=5; got {pair!r}.")
        found[name] = yaml.safe_load(value)
    return found
