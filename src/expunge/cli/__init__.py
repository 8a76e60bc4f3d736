"""The command line: one file for each verb. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import sys

import typer

from expunge.cli import audit, check, data, demo, ledger, methods, report, run, unlearn
from expunge.errors import ExpungeError

INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    name="expunge",
    help="Remove chosen training data from a trained PyTorch model, and judge against retraining whether it is gone.",
    epilog="Begin with: expunge demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for verb in (demo, methods, data, check, unlearn, run, audit, report, ledger):
    verb.add_to(app)


def _version(shown: bool) -> None:
    if shown:
        from expunge import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line: exit code 0 when all is done, 2 for what the user can mend, 1 for anything else."""
    try:
        app()
    except ExpungeError as error:
        lines = getattr(error, "problems", [str(error)])
        for line in lines:
            typer.echo(f"expunge: {line}", err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo("\nInterrupted.", err=True)
            sys.exit(1)
        raise
