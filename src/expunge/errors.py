"""What can go wrong, said so that the reader knows what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class ExpungeError(ValueError):
    """The base of every error that expunge raises on purpose; the command line prints it and exits with 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        """So that an error raised in another process arrives as it was."""
        return _restored, (type(self), self.args, vars(self))


class Problems(ExpungeError):
    """Several things that are wrong, all told at once.

    Args:
        problems: one sentence for each thing that is wrong (at least one).
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def _restored(cls: type[ExpungeError], args: tuple[Any, ...], state: dict[str, Any]) -> ExpungeError:
    error = cls.__new__(cls)
    error.args = args
    vars(error).update(state)
    return error


class Diverged(ExpungeError):
    """A descent whose loss or weights are no longer finite numbers; the message says where, and what to lower."""


class UnknownName(ExpungeError):
    """A name that is not among those that exist; the message offers the nearest ones.

    Args:
        kind: what was looked for, e.g. ``"method"``.
        name: the name that was given.
        known: the names that exist.
        hint: an extra sentence, e.g. where to see the list.
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        listing = f" There are: {', '.join(known)}." if known else ""
        super().__init__(f"Unknown {kind} {str(name)!r}.{near(name, known)}{listing}{' ' + hint if hint else ''}")


class MissingExtra(ExpungeError, ImportError):
    """An optional dependency is needed and not installed.

    Args:
        package: the package that could not be imported.
        extra: the extra of expunge that installs it.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'expunge[{extra}]'")


def near(name: object, known: Iterable[str]) -> str:
    """` Did you mean ...?` with the nearest names, or nothing when none is near."""
    close = difflib.get_close_matches(str(name), sorted(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


@contextmanager
def collected(problems: list[str], prefix: str = "") -> Iterator[None]:
    """Add what an ExpungeError inside the block says to `problems`, instead of raising it.

    Args:
        problems: sentences; the list grows in place.
        prefix: what each new one begins with, e.g. ``"ledger: "``.
    """
    try:
        yield
    except ExpungeError as error:
        problems += [prefix + problem for problem in getattr(error, "problems", [str(error)])]


def few(names: Iterable[object], most: int = 8) -> str:
    """The first of some names, and how many more there are."""
    listed = list(map(str, names))
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def raise_if(problems: list[str]) -> None:
    """Raise all `problems` at once, or nothing when the list is empty."""
    if problems:
        raise Problems(problems)
