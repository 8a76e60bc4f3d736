"""The report: one page and one terminal summary, drawn from saved measurements alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["draw", "summary"]


def draw(folder: Path | str) -> Path:
    """The path of ``report.html``, drawn anew from the measurements saved in `folder`.

    The page is one file that needs no network. Drawing it twice gives the same bytes, and a page that
    cannot be drawn leaves the one that was there untouched.

    Args:
        folder: the dossier: holds ``results.json`` and, if it was kept, ``manifest.json``.

    Raises:
        ExpungeError: there is no ``results.json``, it is not readable, or it has another schema version.
    """
    from expunge.report.page import write

    return write(Path(folder))


def summary(results: dict[str, Any], width: int = 120) -> str:
    """The verdicts and a compact table as plain text.

    Args:
        results: what ``results.json`` holds.
        width: of the text, in characters.
    """
    from expunge.report.text import plain

    return plain(results, width)
