"""Settings of an architecture: a default, and what a value must be. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Field:
    """One setting of an architecture.

    Args:
        default: the value where none is given.
        wants: what a value must be, in words that end the sentence "must be …".
        accepts: whether a value is that.
        convert: brings an accepted value into the form the architecture takes (YAML gives lists and floats).
    """

    default: Any
    wants: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any]


def is_count(value: Any, least: int = 1) -> bool:
    """Whether `value` is a whole number (not a bool) of at least `least`."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def is_number(value: Any) -> bool:
    """Whether `value` is a number and not a bool; "not a number" and infinity compare false later on."""
    return not isinstance(value, bool) and isinstance(value, Real)


def count(default: int) -> Field:
    """A setting that is a whole number above 0."""
    return Field(default, "a whole number of at least 1", is_count, int)


def count_or_zero(default: int) -> Field:
    """A setting that is a whole number, 0 or more."""
    return Field(default, "a whole number of at least 0", lambda v: is_count(v, 0), int)


def counts(default: tuple[int, ...]) -> Field:
    """A setting that is a list of whole numbers above 0; it may be empty."""

    def accepts(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(is_count(v) for v in value)

    return Field(default, "a list of whole numbers of at least 1", accepts, lambda v: tuple(map(int, v)))


def count_or_auto() -> Field:
    """A setting that is a whole number above 0, or None to have it chosen."""
    return Field(
        None,
        "a whole number of at least 1, or null to have it chosen",
        lambda v: v is None or is_count(v),
        lambda v: None if v is None else int(v),
    )


def share(default: float) -> Field:
    """A setting that is a number from 0 up to, but without, 1."""
    return Field(default, "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1, float)


def positive(default: float) -> Field:
    """A setting that is a finite number above 0."""
    return Field(default, "a finite number above 0", lambda v: is_number(v) and 0 < v < float("inf"), float)


def switch(default: bool) -> Field:
    """A setting that is on or off."""
    return Field(default, "true or false", lambda v: isinstance(v, bool), bool)


def choice(default: str, *others: str) -> Field:
    """A setting that is one of a few words."""
    words = (default, *others)
    return Field(default, f"one of {', '.join(words)}", lambda v: isinstance(v, str) and v in words, str)
